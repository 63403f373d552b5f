"""Processors of transformers by their values. `golden/stock_processors.safetensors` has what transformers' own made
with torch 2.14.1 and torchvision 0.29.1 of the frames that `picture` draws."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from stock_models import PROCESSORS, save_classifier, videoprism_config, vjepa2_config
from transformers.utils import is_torchvision_available

from hf_video.base.modeling import inputs_for
from hf_video.base.processing import ClipProcessing
from hf_video.base.processing_stock import like, ours_for, saved, stock_class
from hf_video.errors import CheckpointError

GOLDEN = Path(__file__).parents[1] / "golden" / "stock_processors.safetensors"
SHAPES = ((4, 24, 40), (3, 64, 48), (1, 33, 16), (2, 12, 9))  # frames, height, width
CASES = {
    **PROCESSORS,
    "bicubic": {**PROCESSORS["videoprism"], "do_normalize": True, "size": {"height": 14, "width": 22}},
    "clip": {
        **PROCESSORS["xclip"],
        "resample": 3,
        "image_processor_type": "CLIPImageProcessor",
    },
}


def picture(frames: int, height: int, width: int) -> np.ndarray:
    """(frames, height, width, 3) uint8: coarse colours under fine noise."""
    random = np.random.default_rng(frames)
    coarse = random.integers(0, 200, (frames, -(-height // 6), -(-width // 6), 3))
    coarse = coarse.repeat(6, axis=1).repeat(6, axis=2)[:, :height, :width]
    return (coarse + random.integers(0, 56, coarse.shape)).astype(np.uint8)


def type_of(settings: dict) -> str:
    return settings.get("video_processor_type") or settings["image_processor_type"]


@pytest.mark.parametrize("case", CASES)
def test_pixels_are_those_of_torchvision(case):
    """To the bit: torchvision resizes uint8 frames by the same kernel of torch's."""
    processor = like(type_of(CASES[case])).from_dict(CASES[case])
    expected = load_file(GOLDEN)
    for shape in SHAPES:
        made = processor(picture(*shape), return_tensors="pt", do_sample_frames=False)
        name = "pixel_values_videos" if case in ("vjepa2", "videoprism", "bicubic") else "pixel_values"
        assert list(made) == [name]
        torch.testing.assert_close(made[name][0], expected[f"{case} {shape}"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["vjepa2", "videoprism"])
@pytest.mark.parametrize("file", ["video_preprocessor_config.json", "preprocessor_config.json"])
def test_auto_classes(kind, file, tmp_path):
    folder = save_classifier(tmp_path, kind, file=file)
    for auto in (transformers.AutoProcessor, transformers.AutoVideoProcessor):
        processor = auto.from_pretrained(folder)
        assert isinstance(processor, ClipProcessing)
        assert processor.num_frames == 4
        assert processor.model_input_names == ["pixel_values_videos"]
    processor.save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "video_preprocessor_config.json").read_text())
    assert written["video_processor_type"] == PROCESSORS[kind]["video_processor_type"]
    assert {name: written[name] for name in ("size", "resample")} == {
        name: PROCESSORS[kind][name] for name in ("size", "resample")
    }
    assert "num_frames" not in written
    again = pickle.loads(pickle.dumps(processor)).to_dict()
    assert again == processor.to_dict()


def test_sizes_follow_from_the_crop():
    """As transformers' own class decides: int(crop · 256 / 224)."""
    processor = like("VJEPA2VideoProcessor")(crop_size=384)
    assert processor.size == {"shortest_edge": 438}
    assert processor.crop_size == {"height": 384, "width": 384}


def test_frames_by_the_models_file(tmp_path):
    for config in (vjepa2_config(frames_per_clip=6), videoprism_config(num_frames=6)):
        config.save_pretrained(tmp_path)
        (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(PROCESSORS["vjepa2"]))
        assert saved(tmp_path).num_frames == 6
    transformers.XCLIPConfig(vision_config={"num_frames": 5}).save_pretrained(tmp_path)
    assert saved(tmp_path).num_frames == 5


def test_generative_models_keep_theirs(tmp_path):
    """The file of a VideoPrism names the processor of LLaVA-OneVision, whose own folders are not touched where theirs
    can be called."""
    config = {"model_type": "llava_onevision", "architectures": ["LlavaOnevisionForConditionalGeneration"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(PROCESSORS["videoprism"]))
    found = transformers.AutoVideoProcessor.from_pretrained(tmp_path)
    theirs = stock_class if is_torchvision_available() else like
    assert type(found) is theirs("LlavaOnevisionVideoProcessor")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"do_pad": True}, "do_pad=True"),
        ({"patch_size": 14}, "patch_size=14"),
        ({"size": {"longest_edge": 32}}, "longest_edge"),
        ({"do_center_crop": True}, "no crop_size"),
        (
            {"video_processor_type": "Qwen2VLVideoProcessor", "size": None},
            "Qwen2VLVideoProcessor has (a step|steps) of its own",
        ),
        ({"video_processor_type": "NoSuchVideoProcessor"}, "no image or video processor 'NoSuchVideoProcessor'"),
        ({"video_processor_type": None}, "doesn't say of which type"),
    ],
)
def test_other_steps_are_refused(changes, words, tmp_path):
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps({**PROCESSORS["videoprism"], **changes}))
    with pytest.raises(CheckpointError, match=words):
        saved(tmp_path)


def test_what_has_other_steps_stays():
    mine = type("MyProcessor", (transformers.CLIPImageProcessorPil,), {})()
    assert ours_for(mine) is mine
    converted = ours_for(transformers.CLIPImageProcessorPil(size={"shortest_edge": 16}))
    assert converted.size == {"shortest_edge": 16}
    assert converted.to_dict()["image_processor_type"] == "CLIPImageProcessor"


class Model:
    main_input_name = "pixel_values_videos"

    def forward(self, input_ids, pixel_values_videos): ...


def test_clips_are_model_inputs_the_model():
    model, clip = Model(), object()
    assert inputs_for(model, {"pixel_values": clip, "labels": 1}) == {"pixel_values_videos": clip, "labels": 1}
    assert inputs_for(model, {"pixel_values_videos": clip}) == {"pixel_values_videos": clip}
    model.main_input_name = "input_ids"
    assert inputs_for(model, {"pixel_values": clip, "input_ids": 1}) == {"pixel_values_videos": clip, "input_ids": 1}
    model.main_input_name = "clips"
    model.forward = lambda clips: clips
    assert inputs_for(model, {"pixel_values": clip}) == {"clips": clip}
