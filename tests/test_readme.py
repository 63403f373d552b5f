"""The Python in README and model cards is run as it stands, on a tiny model and clips in place of the named ones."""

from __future__ import annotations

import re
from importlib.util import find_spec

import numpy as np
import pytest
from project.page_blocks import CLASSIFIERS, ROOT, SIZES, blocks, save_classifier, save_image_text
from tiny_violet import TOKENIZER, tiny_config
from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessorPil

import hf_video
from hf_video.video import write_video

PAGES = (
    "README.md",
    "docs/detection.md",
    "model_cards/videomae.md",
    "model_cards/timesformer.md",
    "model_cards/two_stream.md",
    "model_cards/mvit.md",
    "model_cards/video_swin.md",
    "model_cards/videoprism.md",
    "model_cards/vivit.md",
    "model_cards/vjepa2.md",
    "model_cards/i3d.md",
    "model_cards/c3d.md",
    "model_cards/slowfast.md",
    "model_cards/x3d.md",
    "model_cards/violet.md",
    "model_cards/videoclip.md",
)


def code_blocks():
    for page in PAGES:
        for number, code in enumerate(one.code for one in blocks(page) if one.language == "python"):
            flow = "TwoStreamImageProcessor" in code and find_spec("cv2") is None
            skip = pytest.mark.skipif(flow, reason="OpenCV is an extra: pip install hf_video[flow]")
            yield pytest.param(code, id=f"{page}-{number}", marks=skip)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips and tiny models, where the pages say clip.mp4 and name models on the Hub."""
    folder = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    for name in ("clip.mp4", "other.mp4"):
        write_video(folder / name, rng.integers(0, 255, (40, 48, 64, 3), dtype=np.uint8), fps=10)
    for name, model in CLASSIFIERS.items():
        save_classifier(folder / name, model)
    save_image_text(folder / "openai/clip-vit-base-patch32")
    save_people(folder / "people", folder / "PekingU/rtdetr_r50vd")
    hf_video.VioletForQuestionAnswering(tiny_config(num_labels=5)).save_pretrained(folder / "violet-qa")
    hf_video.VioletProcessor(hf_video.VioletImageProcessor(**SIZES, num_frames=4), TOKENIZER).save_pretrained(
        folder / "violet-qa"
    )
    return folder


def save_people(people, detector):
    """A classifier of boxes, and what finds people."""
    stages = {"depths": [1], "slow_kernels": [1], "fast_kernels": [1], "stem_channels": 8, "num_frames": 4}
    config = hf_video.SlowFastConfig(**stages, fast_pathway=False, num_labels=2, image_size=32)
    hf_video.SlowFastForSpatioTemporalActionDetection(config).save_pretrained(people)
    hf_video.SlowFastImageProcessor(size={"shortest_edge": 32}, do_center_crop=False).save_pretrained(people)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    yolos = YolosConfig(**sizes, image_size=[32, 32], num_detection_tokens=5, id2label={0: "person", 1: "ball"})
    YolosForObjectDetection(yolos).save_pretrained(detector)
    YolosImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(detector)


@pytest.mark.parametrize("code", code_blocks())
def test_code_block_runs(code, folder, monkeypatch):
    monkeypatch.chdir(folder)
    exec(compile(code, "README", "exec"), {})


def test_commands_are_real():
    """Every `make` target and `hf-video` verb that the README names exists."""
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make (\w+)", readme, re.M))
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
    from hf_video.cli import VERBS

    verbs = set(re.findall(r"^hf-video (\w+)", readme, re.M))
    assert verbs
    assert verbs <= set(VERBS)
