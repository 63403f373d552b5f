"""From captioned mp4 files, by the shipped recipe, a model learns what words mean: shapes, colours, and directions,
which no single frame shows. 51 of 64 combinations are trained, 13 are never shown."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_text import tiny_clip_text, tiny_tokenizer
from transformers import pipeline

import hf_video
from hf_video.data.moving_glyphs import COLORS, DIRECTIONS, OPPOSITE, moving_glyph
from hf_video.training.runs.video_text import train_video_text
from hf_video.video import write_video

pytestmark = pytest.mark.slow
SIZE, FRAMES = 64, 4
SHAPES = ("ring", "square", "triangle", "cross")
CHOSEN_COLORS = tuple(COLORS)[:4]
EVERY = [(shape, color, way) for shape in SHAPES for color in CHOSEN_COLORS for way in DIRECTIONS]
HELD_OUT = [one for i, one in enumerate(EVERY) if (i // 16 + i // 4 % 4 + i % 4) % 5 == 0]
TRAINED = [one for one in EVERY if one not in HELD_OUT]


def caption(one: tuple[str, str, str]) -> str:
    return f"a {one[1]} {one[0]} moving {one[2]}"


def write(folder: Path, combinations: list[tuple[str, str, str]], seed: int, *, backwards: bool = False) -> list[str]:
    """One clip of a second for each of `combinations`."""
    folder.mkdir()
    rng, paths = np.random.default_rng(seed), []
    for number, (shape, color, way) in enumerate(combinations):
        clip = moving_glyph(way, rng, shape=shape, color=color, size=SIZE, speed=4)
        paths.append(str(folder / f"{number}.mp4"))
        write_video(paths[-1], np.ascontiguousarray(clip.frames[::-1]) if backwards else clip.frames, 8.0)
    return paths


def save_model(folder: Path) -> Path:
    """Untrained: a VideoMAE of 4 layers and 64 channels, a text transformer of 2."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(["a", "moving", *SHAPES, *CHOSEN_COLORS, *DIRECTIONS])
    video = {"model_type": "videomae", "image_size": SIZE, "num_frames": FRAMES, "patch_size": 8, "hidden_size": 64}
    video |= {"num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256}
    video |= {"initializer_range": 0.1, "use_mean_pooling": False}  # 0.02 is for 768 channels
    text = tiny_clip_text(len(tokenizer))
    config = hf_video.VideoCLIPConfig(video_config=video, text_config=text, projection_dim=64, num_frames=FRAMES)
    sizes = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    hf_video.VideoCLIPModel(config).save_pretrained(folder)
    images = hf_video.VideoCLIPImageProcessor(**sizes, num_frames=FRAMES)
    hf_video.VideoCLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a model that has seen 20 clips of each of TRAINED."""
    folder, shown = tmp_path_factory.mktemp("learning"), TRAINED * 20
    paths = write(folder / "clips", shown, seed=1)
    pairs = [{"video": path, "caption": caption(one)} for path, one in zip(paths, shown, strict=True)]
    (folder / "pairs.json").write_text(json.dumps(pairs))
    threads, before = torch.get_num_threads(), cpu_seconds()
    torch.set_num_threads(1)
    train_video_text(
        folder / "pairs.json",
        save_model(folder / "untrained"),
        recipe="video_text_small",
        output=folder / "trained",
        settings=["training.use_cpu=true", "training.report_to=none"],
        hard_negatives=True,
        test_size=0.0,
    )
    torch.set_num_threads(threads)
    print(f"{cpu_seconds() - before:.0f} CPU seconds")
    return str(folder / "trained")


def cpu_seconds() -> float:
    """Of this process and of workers that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def named(trained: str, paths: list[str], candidates: list[str]) -> list[str]:
    """What zero-shot classification says of each clip."""
    classify = pipeline("zero-shot-video-classification", model=trained, device="cpu")
    found = classify(paths, candidate_labels=candidates, hypothesis_template="{}", top_k=1, batch_size=32)
    return [one[0]["label"] for one in found]


def test_combinations_that_were_never_shown(trained, tmp_path):
    truth = HELD_OUT * 8
    own = [caption(one) for one in truth]
    paths = write(tmp_path / "clips", truth, seed=2)
    for candidates in (HELD_OUT, EVERY):
        found = named(trained, paths, [caption(one) for one in candidates])
        right = np.mean([a == b for a, b in zip(found, own, strict=True)])
        print(f"{right:.3f} among {len(candidates)}")
        assert right >= 0.9


def test_retrieval_among_64(trained, tmp_path):
    paths = write(tmp_path / "clips", EVERY, seed=3)
    match = pipeline("video-text-retrieval", model=trained, device="cpu")
    scores = match(paths, texts=[caption(one) for one in EVERY], batch_size=32).scores
    to_video, to_text = (np.mean(scores.argmax(side) == np.arange(len(EVERY))) for side in (1, 0))
    print(f"R@1 text to video {to_video:.3f}, video to text {to_text:.3f}")
    assert to_video >= 0.9
    assert to_text >= 0.9


def test_a_clip_played_backwards_moves_the_other_way(trained, tmp_path):
    truth = HELD_OUT * 4
    paths = write(tmp_path / "clips", truth, seed=4, backwards=True)
    found = named(trained, paths, [caption(one) for one in EVERY])
    turned = [name.split()[-1] == OPPOSITE[way] for name, (_, _, way) in zip(found, truth, strict=True)]
    print(f"{np.mean(turned):.3f} turned")
    assert np.mean(turned) >= 0.9
