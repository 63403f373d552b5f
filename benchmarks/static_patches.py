"""What leaving out static patches saves, and what it costs in accuracy: VideoMAE trained on clips of a still camera.

    python benchmarks/static_patches.py            # 20 minutes of one core
    python benchmarks/static_patches.py --quick    # shows that it runs; its numbers mean nothing

Two small models learn from scratch which way the one glyph moves that moves, among others that lie still: one sees all
patches, the other is trained with `static_patches="drop"`. Both are then tested both ways on clips that they have not
seen. Frames have a sensor's noise and went through H.264, as a camera's do. Times are those of the small model and of
published sizes with random weights, on clips of the same kind: CPU time of one thread, medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that it also runs where hf_video isn't installed

from benchmarks.measure import race, ratio  # noqa: E402
from benchmarks.setting import Setting, machine  # noqa: E402

STEPS = ((0, -1), (0, 1), (-1, 0), (1, 0))  # rows and columns: left, right, up, down
# What a mirror along an axis makes of them.
MIRRORED = {-1: (1, 0, 2, 3), -2: (0, 1, 3, 2)}
SMALL = {
    "num_frames": 8,
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "layer_norm_eps": 1e-6,
    "initializer_range": 0.1,
}


def still_camera(
    rng: np.random.Generator, step: tuple[int, int], *, frames: int, size: int, side: int, noise: float
) -> np.ndarray:
    """uint8 (frames, size, size, 3): a textured ground and five glyphs that lie still, and one of `side` pixels that
    moves by `step` (rows, columns) a frame; `noise` is the sensor's deviation in grey levels."""
    from PIL import Image

    from hf_video.data.moving_glyphs import COLORS, SHAPES, draw_shape

    # Clouds of three sizes make the ground.
    ground = np.zeros((size, size, 3), np.float32)
    for cells in (3, 9, 40):
        cloud = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        ground += np.asarray(cloud.resize((size, size), Image.Resampling.BICUBIC), np.float32) / 6
    ground += 20

    def put(picture: np.ndarray, row: int, column: int, shape: str, color: str) -> None:
        part = picture[row : row + side, column : column + side]
        part += draw_shape(shape, side)[..., None] * (np.array(COLORS[color], np.float32) - part)

    def glyph() -> tuple[str, str]:
        return str(rng.choice(list(SHAPES))), str(rng.choice(list(COLORS)))

    for _ in range(5):
        put(ground, *rng.integers(0, size - side, 2), *glyph())
    path = np.array(step) * (frames - 1)
    low = np.maximum(-path, 0)
    start = low + [rng.integers(0, size - side - abs(one) + 1) for one in path]
    moving, clip = glyph(), []
    for number in range(frames):
        picture = ground.copy()
        put(picture, *(start + number * np.array(step)), *moving)
        clip.append(picture)
    grain = rng.standard_normal((frames, size, size, 3), dtype=np.float32)
    return (np.stack(clip) + noise * grain).clip(0, 255).astype(np.uint8)


def clips(
    count: int, seed: int, *, frames: int, every: int, size: int, capture: int = 224, side: int = 40, speed: int = 6
) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, frames, 3, size, size) as VideoMAE's processor makes them of encoded files, `every` so many frames, and
    directions (count,). `capture`, `side` and `speed` are in the camera's pixels."""
    from hf_video import VideoMAEImageProcessor
    from hf_video.video import VideoReader, write_video

    rng = np.random.default_rng(seed)
    processor = VideoMAEImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    pixels, taken = [], range(0, frames * every, every)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            step = tuple(speed * one for one in STEPS[number % 4])
            made = still_camera(rng, step, frames=frames * every, size=capture, side=side, noise=4.0)
            with VideoReader(write_video(Path(folder) / "clip.mp4", made, 25)) as reader:
                pixels.append(processor(reader.get_frames(taken), return_tensors="pt")["pixel_values"][0].half())
    return torch.stack(pixels), torch.arange(count) % 4


def network(static_patches: str, size: int, preset: str | None = None):
    """A small classifier of the four directions, or a published size, with random weights."""
    from hf_video import VideoMAEConfig, VideoMAEForVideoClassification

    fields = {"static_patches": static_patches, "image_size": size, "num_labels": 4}
    config = VideoMAEConfig.preset(preset, **fields) if preset else VideoMAEConfig(**SMALL, **fields)
    return VideoMAEForVideoClassification(config)


def train(model, videos: torch.Tensor, labels: torch.Tensor, steps: int) -> None:
    """Batches of 32 clips, mirrored at random and with their colours exchanged."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        rows = torch.randint(len(videos), (32,))
        seen, truth = videos[rows][:, :, torch.randperm(3)].float(), labels[rows]
        for axis, mirrored in MIRRORED.items():
            if torch.rand(()) < 0.5:
                seen, truth = seen.flip(axis), torch.tensor(mirrored)[truth]
        model.train()(seen, labels=truth).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(), schedule.step(), optimizer.zero_grad()


@torch.inference_mode()
def accuracy(model, videos: torch.Tensor, labels: torch.Tensor, static_patches: str) -> float:
    """Share of clips that are right."""
    model.eval().config.static_patches = static_patches
    found = torch.cat([model(seen.float()).logits.argmax(-1) for seen in videos.split(16)])
    return (found == labels).float().mean().item()


@torch.inference_mode()
def times(model, clip: torch.Tensor, rounds: int) -> dict[str, float]:
    """Milliseconds of one clip with and without all patches, their ratio, and the share of patches that are encoded."""
    model.eval()

    def run(static_patches: str):
        model.config.static_patches = static_patches
        return model(clip)

    kept = run("drop").kept_tokens.float().mean().item()
    measured = {name: one.cpu for name, one in race({k: lambda k=k: run(k) for k in ("keep", "drop")}, rounds).items()}
    milliseconds = {name: statistics.median(one) for name, one in measured.items()}
    return {**milliseconds, "ratio": ratio(measured["drop"], measured["keep"]), "patches": kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few clips, steps and rounds")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/static_patches.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    count, tested, steps, rounds = (32, 16, 2, 1) if options.quick else (600, 600, 500, 7)
    sizes = {"frames": SMALL["num_frames"], "every": 2, "size": 112}
    rows: dict[str, dict] = {"accuracy": {}, "times": {}}
    seen = [torch.cat(parts) for parts in zip(*(clips(count, seed, **sizes) for seed in (0, 10)), strict=True)]
    test = clips(tested, 1, **sizes)
    for trained in ("keep", "drop"):
        torch.manual_seed(0)
        model = network(trained, sizes["size"])
        train(model, *seen, steps)
        for tried in ("keep", "drop"):
            rows["accuracy"][f"trained {trained}, tested {tried}"] = accuracy(model, *test, tried)
            print(f"trained {trained}, tested {tried}: {rows['accuracy'][f'trained {trained}, tested {tried}']:.4f}")
    rows["times"]["the small model"] = times(model, test[0][:1].float(), 5 * rounds)
    clip, _ = clips(1, 2, frames=4 if options.quick else 16, every=1, size=32 if options.quick else 224)
    for preset in () if options.quick else ("small", "base"):
        model = network("keep", 224, preset)
        rows["times"][f"{preset}, float32"] = times(model, clip.float(), rounds)
        rows["times"][f"{preset}, bfloat16"] = times(model.bfloat16(), clip.bfloat16(), rounds)
    for name, row in rows["times"].items():
        print(
            f"{name}: {row['drop']:.0f} ms of {row['keep']:.0f} ms, {row['ratio']:.2f}, {row['patches']:.0%} of patches"
        )
    setting = Setting(rounds=rounds, threads=1, cache=Path(), quick=options.quick)
    options.output.write_text(json.dumps({"machine": machine(setting), **rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
