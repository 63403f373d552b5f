"""Federated learning on clips whose classes need time: one table, on a CPU, offline, in a quarter of an hour.

Clips of drifting glyphs are dealt out to ten clients, of which each sees mostly one or two of the four directions
(Dirichlet, alpha = 0.2). Rows:

- a tiny VideoMAE trained on all clips in one place, and by FedAvg in 15 rounds;
- the clients' own models, by Ditto and by 30 steps of their own after FedAvg, beside the common one, on each client's
  own kind of clips;
- LoRA adapters on a model of public clips (other classes), each video private at ε = 8, if that part is installed;
- a small I3D of public clips, trained on clips whose greys are narrower, lighter or inverted at each client, by FedAvg
  and by FedBN.

    python examples/federated_benchmark.py --output benchmark
    python examples/federated_benchmark.py --only fedavg ditto
"""

from __future__ import annotations

import argparse
import json
import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cross_device_mobile import public_clips

from hf_video.data.moving_glyphs import DIRECTIONS, moving_glyphs
from hf_video.data.rows import VideoRow, VideoRows
from hf_video.errors import HFVideoError
from hf_video.federated.config import FederatedConfig
from hf_video.federated.simulation import simulate

LABELS = list(DIRECTIONS)
VIDEOMAE = {
    **{"model_type": "videomae", "image_size": 32, "num_frames": 8, "hidden_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "intermediate_size": 192, "patch_size": 8, "tubelet_size": 2},
}
I3D = {
    **{"model_type": "i3d", "architecture": "resnet", "image_size": 32, "num_frames": 8, "stem_channels": 8},
    **{"depths": [1, 1, 1, 1], "temporal_pool": False, "head_pool": [0, 0, 0], "classifier_dropout": 0.0},
    **{"batch_norm_momentum": 0.1},
}
CLIENTS, ALPHA, SHIFT = 10, 0.2, "greys:3"
SETTINGS = ("augmentation.scale=[1, 1]", "augmentation.ratio=[1, 1]", "training.per_device_eval_batch_size=128")


@dataclass
class Row:
    """A line of the table: what is trained, and how.

    Args:
        title: Its name.
        model: Fields of the configuration, or the row whose model is gone on with.
        clips: For training.
        options: Fields of `FederatedConfig`.
        settings: Of the recipe.
        simulation: Arguments of `simulate`.
        own: Whether accuracy is that of the clients' own models on their own kind of clips; else that of the common
            model on the test clips.
        noise: Of the pixels, in grey levels.
    """

    title: str
    model: dict[str, Any] | str
    clips: int
    options: dict[str, Any]
    settings: tuple[str, ...] = ()
    simulation: dict[str, Any] = field(default_factory=dict)
    own: bool = False
    noise: float = 8.0


FEDERATED = {"clients": CLIENTS, "partition": f"dirichlet:{ALPHA}"}
CENTRAL = {"clients": 1, "partition": "iid"}
SHIFTED = {"clients": CLIENTS, "partition": "iid", "shift": SHIFT, "test_size": 0.3}
ADAM = ("training.per_device_train_batch_size=16", "training.learning_rate=2e-3")
SGD = ("training.optim=sgd", "training.learning_rate=0.5", "training.weight_decay=0", "training.max_grad_norm=0")
SMALL = ("training.per_device_train_batch_size=16", "training.learning_rate=5e-3")
LORA = {"r": 4, "target_modules": ["query", "value"]}
PRIVACY = "video:eps=8,delta=1e-4,clip=1.0"
ROWS = {
    "central": Row("VideoMAE, one place", VIDEOMAE, 1200, {"rounds": 6, "min_clients": 1}, ADAM, CENTRAL),
    "fedavg": Row("VideoMAE, FedAvg", VIDEOMAE, 1200, {"rounds": 15}, ADAM, FEDERATED),
    "ditto": Row(
        *("VideoMAE, Ditto", VIDEOMAE, 1200, {"rounds": 4, "local_epochs": 2, "personal": "ditto:lam=0.1"}, ADAM),
        *(FEDERATED, True),
    ),
    "adapt": Row(
        *("VideoMAE, adapted", VIDEOMAE, 1200, {"rounds": 3, "local_epochs": 2, "personal": "adapt:steps=30"}, ADAM),
        *(FEDERATED, True),
    ),
    "public": Row("VideoMAE, public clips", VIDEOMAE, 1200, {"rounds": 6, "min_clients": 1}, ADAM, CENTRAL),
    "private": Row(
        *("VideoMAE, LoRA, ε = 8", "public", 1200, {"rounds": 15, "lora": LORA, "privacy": PRIVACY}, SGD, FEDERATED),
    ),
    "public-i3d": Row("I3D, public clips", I3D, 800, {"rounds": 6, "min_clients": 1}, SMALL, CENTRAL),
    "shift-fedavg": Row(
        *("I3D, feature shift, FedAvg", "public-i3d", 1000, {"rounds": 8}, SMALL, SHIFTED, True, 2.0),
    ),
    "shift-fedbn": Row(
        *("I3D, feature shift, FedBN", "public-i3d", 1000, {"rounds": 8, "personal": "fedbn"}, SMALL, SHIFTED),
        *(True, 2.0),
    ),
}


def glyph_rows(clips: int, seed: int, noise: float) -> VideoRows:
    """Clips in memory: nothing is encoded, and frames are as drawn."""
    drawn = moving_glyphs(clips, seed, size=32, num_frames=8, speed=4, noise=noise)
    return VideoRows([VideoRow(c.frames, LABELS.index(c.direction), f"{n:05d}") for n, c in enumerate(drawn)], LABELS)


def run(name: str, row: Row, output: Path) -> dict[str, Any]:
    """Trains as a row says; what it measured is also written to `<name>.json`."""
    before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    model = output / f"{name}_model.json"
    if isinstance(row.model, str):
        model = output / row.model
    else:
        model.write_text(json.dumps(row.model))
    config = FederatedConfig(str(model), settings=(*SETTINGS, *row.settings), evaluate_every=5, **row.options)
    if name.startswith("public"):
        data = {"train": public_clips(row.clips, 2), "test": public_clips(400, 3)}
    else:
        data = {"train": glyph_rows(row.clips, 0, row.noise)}
    if not row.own and "test" not in data:
        data["test"] = glyph_rows(400, 1, row.noise)
    show = lambda report: print(f"  {name} round {report.round}: {_shown(report)}", flush=True)  # noqa: E731
    summary = simulate(data, config, output=output / name, on_round=show, overwrite=True, **row.simulation)
    evaluation = summary["evaluation"]
    accuracy = evaluation["accuracy"]["mean"] if row.own else summary["metrics"]["server_accuracy"]
    megabytes = (summary["bytes_down"] + summary["bytes_up"]) / 1e6
    result = {
        "title": row.title,
        "accuracy": accuracy,
        "common": evaluation.get("common_accuracy", {}).get("mean"),
        "worst": evaluation.get("accuracy", {}).get("worst"),
        "p10": evaluation.get("accuracy", {}).get("p10"),
        "rounds": summary["rounds"],
        "megabytes": megabytes,
        "seconds": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - before,
    }
    (output / f"{name}.json").write_text(json.dumps(result, indent=2))
    return result


def _shown(report: Any) -> str:
    numbers = {name: value for name, value in report.metrics.items() if name in ("loss", "server_accuracy")}
    own = [one["accuracy"] for one in report.evaluation.values() if "accuracy" in one]
    if own:
        numbers["clients"] = sum(own) / len(own)
    return ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: accuracies, the clients' worst and tenth percentile, megabytes both ways, accuracy per megabyte."""
    lines = [
        "| training | accuracy | common model | worst client | p10 | rounds | MB | points per MB | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in results.values():
        percent = ["–" if one[key] is None else f"{one[key]:.1%}" for key in ("accuracy", "common", "worst", "p10")]
        per = f"{100 * one['accuracy'] / one['megabytes']:.2f}"
        rest = [str(one["rounds"]), f"{one['megabytes']:.1f}", per, f"{one['seconds']:.0f}"]
        lines.append(f"| {' | '.join([one['title'], *percent, *rest])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("federated_benchmark"))
    parser.add_argument(
        "--only", nargs="+", choices=list(ROWS), default=list(ROWS), help="rows; private and shift-… need public…"
    )
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in options.only:
        try:
            results[name] = run(name, ROWS[name], options.output)
        except HFVideoError as error:
            print(f"{name}: {error}")
    text = table(results)
    (options.output / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
