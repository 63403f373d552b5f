"""An archive to moments by keyframes alone (`snap="keyframe"`) against exact frames: reading, and the whole index.

The encoders are small, as ones for a first look at an archive would be. A CLIP of two layers looks at each frame for
itself: a keyframe is encoded once. A VideoMAE of two layers looks at whole clips: it takes the same time for each
moment either way, and keyframes give fewer moments; the row's note has the part that this takes. Needs hf_video's
extra [retrieval].

    python benchmarks/archives/indexing.py [--quick]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it also runs where hf_video isn't installed

from benchmarks import clips, models, report
from benchmarks.measure import Row, compare, race
from benchmarks.setting import Setting

AREA = "indexing"
WINDOWS = "2s/1s"
LIMIT = 1 / 15
EXACT, KEYFRAMES = "exact", 'snap="keyframe"'
FULL = {
    f"long{gop}": clips.Recipe(f"2 min 640x360, gop {gop}", 360, 640, 600 // gop * gop, gop, 6 if gop == 30 else 7)
    for gop in (30, 250)
}


def run(setting: Setting) -> list[Row]:
    recipes = clips.QUICK if setting.quick else FULL
    encoders = {"CLIP": small_clip(), "VideoMAE": small_videomae()}
    rows = []
    for recipe, limit in ((recipes["long250"], LIMIT), (recipes["long30"], None)):
        path = clips.clip(recipe, setting.cache)
        jobs = {"reading": lambda snap, path=path: read(path, encoders["VideoMAE"][1], snap)}
        for name, pair in encoders.items():
            jobs[f"the whole index, {name}"] = lambda snap, path=path, pair=pair: index(path, *pair, snap)
        for name, job in jobs.items():
            found = job("keyframe")
            note = moments(found, job(None))
            if name.endswith("VideoMAE"):
                forwards = len(found) * seconds_for_a_clip(encoders["VideoMAE"][0])
                note += f"; the encoder alone takes {forwards:.2f} s for these"
            candidates = {EXACT: lambda job=job: job(None), KEYFRAMES: lambda job=job: job("keyframe")}
            times = race(candidates, 1 if setting.quick else min(setting.rounds, 3), warmup=0)  # that was above
            goal = limit and setting.target(limit)
            title = f"{name}, {recipe.name}"
            rows.append(compare(times, KEYFRAMES, EXACT, area=AREA, job=title, kind="cpu", target=goal, note=note))
    return rows


SMALL = {"hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 384, "num_hidden_layers": 2}


def small_videomae() -> tuple:
    from transformers import AutoModel

    from hf_video import VideoMAEConfig, VideoMAEImageProcessor

    torch.manual_seed(0)
    model = AutoModel.from_config(VideoMAEConfig(**models.VIDEOMAE, **SMALL)).eval()
    return model, VideoMAEImageProcessor(num_frames=16)


def small_clip() -> tuple:
    from transformers import CLIPTextConfig, CLIPVisionConfig

    from hf_video import VideoCLIPConfig, VideoCLIPImageProcessor, VideoCLIPModel

    torch.manual_seed(0)
    towers = {"video_config": CLIPVisionConfig(patch_size=16, **SMALL), "text_config": CLIPTextConfig(**SMALL)}
    model = VideoCLIPModel(VideoCLIPConfig(**towers, projection_dim=64, num_frames=16)).eval()
    return model, VideoCLIPImageProcessor(num_frames=16)


def seconds_for_a_clip(encoder) -> float:
    """CPU time that vectors of a batch take, for each of its clips."""
    from hf_video.clips.batching import DEFAULT_BATCH
    from hf_video.features.extraction import ClipVectors

    side = models.VIDEOMAE["image_size"]
    clips = torch.zeros(DEFAULT_BATCH, models.VIDEOMAE["num_frames"], 3, side, side)
    with ClipVectors(encoder) as forward:
        forward({"pixel_values": clips})
        start = time.process_time()
        forward({"pixel_values": clips})
    return (time.process_time() - start) / len(clips)


def read(path: Path, processor, snap: str | None) -> list[tuple[float, float]]:
    """The (start, end) of each moment, whose clips are read and processed."""
    from hf_video.clips.read import clip_processor, read_clips
    from hf_video.clips.request import ClipRequest

    request = ClipRequest.resolve(processor, None, windows=WINDOWS, snap=snap)
    seen, *read = read_clips(path, request, clip_processor(processor))
    if len(seen) != len(read):
        raise AssertionError(f"{len(read)} clips of {len(seen)} windows")
    return [one.seconds for one in seen]


def index(path: Path, encoder, processor, snap: str | None) -> list[tuple[float, float]]:
    """The (start, end) of each moment of an index of a folder with this file."""
    from hf_video.retrieval import VideoIndex

    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder, "videos")
        videos.mkdir()
        (videos / path.name).symlink_to(path)
        VideoIndex.build(Path(folder, "index"), videos, encoder, processor, window=WINDOWS, snap=snap)
        return [(one.start, one.end) for one in VideoIndex.open(Path(folder, "index")).vectors()[0]]


def moments(fast: list[tuple[float, float]], exact: list[tuple[float, float]]) -> str:
    """How many there are, and how far at most the middle of an exact one lies from the nearest fast one."""
    far = max(min(max(a - (start + end) / 2, (start + end) / 2 - b, 0.0) for a, b in fast) for start, end in exact)
    return f"{len(fast)} moments for {len(exact)}; no middle of these is further than {far:.1f} s from one"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3, help="at most 3")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    parser.add_argument("--quick", action="store_true", help="tiny inputs: shows that all runs, measures nothing")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "hf_video_benchmarks")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    rows = run(Setting(options.rounds, options.threads, options.cache.resolve(), quick=options.quick))
    print(report.table([row.as_dict() for row in rows]))
    print("\n".join(f"{row.job}: {row.note}" for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
