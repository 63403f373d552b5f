"""A hundred phones, ten of them a round: small adapters travel, as 16-bit numbers, and slow phones answer partial work.

A tiny VideoMAE first learns from public clips (glyphs that drift diagonally) in one place. Then a hundred clients with
few clips each (glyphs that drift left, right, up or down; which of them differs from phone to phone) teach it their
classes: the backbone stays as it is, LoRA adapters and the head travel, FedProx keeps phones near the common model, and
whoever is out of time sends what it has. Prints the bytes beside those of the whole model.

    python examples/cross_device_mobile.py --output mobile
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from hf_video.data.moving_glyphs import DIRECTIONS, moving_glyphs
from hf_video.data.rows import VideoRow, VideoRows
from hf_video.federated.config import FederatedConfig
from hf_video.federated.simulation import simulate

VIDEOMAE = {
    **{"model_type": "videomae", "image_size": 32, "num_frames": 8, "hidden_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "intermediate_size": 192, "patch_size": 8, "tubelet_size": 2},
}
SETTINGS = (
    *("augmentation.scale=[1, 1]", "augmentation.ratio=[1, 1]", "training.learning_rate=2e-3"),
    *("training.per_device_train_batch_size=8", "training.per_device_eval_batch_size=128"),
)
LABELS, SPEED = list(DIRECTIONS), 4


def private_clips(count: int, seed: int) -> VideoRows:
    """Glyphs that drift along an axis; the class is the direction."""
    clips = moving_glyphs(count, seed, size=32, num_frames=8, speed=SPEED)
    return VideoRows([VideoRow(c.frames, LABELS.index(c.direction), f"{n:05d}") for n, c in enumerate(clips)], LABELS)


def public_clips(count: int, seed: int) -> VideoRows:
    """Glyphs that drift diagonally: other classes than those of the phones."""
    rows, rng = [], np.random.default_rng(seed)
    names = [f"{one} and {other}" for one in LABELS[:2] for other in LABELS[2:]]
    for number, clip in enumerate(moving_glyphs(count, seed, size=32, num_frames=8, speed=SPEED)):
        sideways = clip.direction in LABELS[:2]
        added = LABELS[2:][rng.integers(2)] if sideways else LABELS[:2][rng.integers(2)]
        step = np.array(DIRECTIONS[added]) * SPEED
        frames = np.stack([np.roll(frame, tuple(t * step), axis=(0, 1)) for t, frame in enumerate(clip.frames)])
        pair = (clip.direction, added) if sideways else (added, clip.direction)
        rows.append(VideoRow(frames, names.index(" and ".join(pair)), f"{number:05d}"))
    return VideoRows(rows, names)


def show(report: Any) -> None:
    accuracy = report.metrics.get("server_accuracy")
    measured = "" if accuracy is None else f", accuracy {accuracy:.1%}"
    clients = f"{len(report.clients)} clients, {(report.bytes_down + report.bytes_up) / 1e3:.0f} kB"
    print(f"round {report.round}: {clients}, loss {report.metrics['loss']:.3f}{measured}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("mobile"))
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--per-round", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clips", type=int, default=1500)
    parser.add_argument("--public-clips", type=int, default=1000)
    parser.add_argument("--public-rounds", type=int, default=6)
    parser.add_argument("--deadline", type=float, default=20.0, help="seconds in which a phone should answer")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    start = options.output / "start.json"
    start.write_text(json.dumps(VIDEOMAE))

    print("1. A model of public clips, in one place")
    public = FederatedConfig(str(start), settings=SETTINGS, rounds=options.public_rounds, min_clients=1)
    data = {"train": public_clips(options.public_clips, 99)}
    simulate(data, public, output=options.output / "public", clients=1, overwrite=True, on_round=show)

    print(f"2. {options.clients} phones, {options.per_round} a round")
    private = FederatedConfig(
        str(options.output / "public"),
        settings=SETTINGS,
        rounds=options.rounds,
        fraction=options.per_round / options.clients,
        strategy="fedprox:mu=0.01",
        lora={"r": 8, "target_modules": ["query", "value"]},
        compression="fp16",
        deadline=options.deadline,
        local_epochs=3,
        evaluate_every=5,
    )
    data = {"train": private_clips(options.clips, 0), "test": private_clips(400, 1)}
    dealt = {"clients": options.clients, "partition": "dirichlet:0.5", "test_size": 0.0}
    summary = simulate(data, private, output=options.output / "phones", overwrite=True, on_round=show, **dealt)
    whole = 4 * sum(np.prod(shape) for shape in _shapes(options.output / "phones" / "model.safetensors"))
    answers = options.rounds * options.per_round
    print(f"Accuracy on test clips: {summary['metrics']['server_accuracy']:.1%}")
    print(f"An answer: {summary['bytes_up'] / answers / 1e3:.1f} kB; the whole model has {whole / 1e3:.1f} kB")


def _shapes(path: Path) -> list[tuple[int, ...]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return [tuple(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118 - it is no mapping


if __name__ == "__main__":
    main()
