"""ViViT's processors: [-1, 1] once, plain transformers' files and classes, and a file to its label."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from test_vivit_references import model
from transformers import AutoImageProcessor, pipeline
from transformers.models.vivit.image_processing_vivit import VivitImageProcessor as Stock

import hf_video
from hf_video.video.writer import write_video

CLASSES = (hf_video.VivitImageProcessor, hf_video.VivitVideoProcessor)
EACH = pytest.mark.parametrize("cls", CLASSES)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def values(processor, given, **options):
    return processor(given, return_tensors="pt", **options)["pixel_values"]


@EACH
def test_pixels_go_to_minus_one_and_one(cls):
    clip = noise(4, 300, 320, 3)
    pixels = values(cls(), clip)
    assert pixels.shape == (1, 4, 3, 224, 224)
    plain = values(cls(), clip, do_resize=False, do_center_crop=False)
    expected = torch.from_numpy(clip).double().permute(0, 3, 1, 2)[None] / 127.5 - 1
    assert (plain - expected).abs().max() < 1e-6
    assert (plain.min(), plain.max()) == (-1, 1)
    floats = values(cls(), clip.astype(np.float32) / 255, do_resize=False, do_center_crop=False)
    assert (floats - expected).abs().max() < 1e-6


@pytest.mark.parametrize(
    "settings",
    [
        {"do_normalize": False},
        {"do_normalize": False, "offset": False, "rescale_factor": 1 / 255},
        {"offset": False, "rescale_factor": 1 / 255},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
        {"do_normalize": False, "rescale_factor": 0.01},
        {"do_rescale": False, "offset": False, "image_std": [50, 60, 70]},
    ],
)
@EACH
def test_files_of_plain_transformers_mean_the_same(cls, settings, tmp_path):
    clip = noise(2, 260, 290, 3)
    stock = Stock(**settings)
    stock.save_pretrained(tmp_path)
    expected = stock(list(clip), return_tensors="pt")["pixel_values"]
    scale = (
        (127.5 if not settings.get("do_rescale", True) else 1.0) * 1.01 / 127.5 / min(settings.get("image_std", [0.5]))
    )
    assert (values(cls.from_pretrained(tmp_path), clip) - expected).abs().max() <= scale


@EACH
def test_the_double_normalisation_of_plain_transformers_is_undone(cls, tmp_path, caplog):
    clip = noise(2, 224, 224, 3)
    Stock().save_pretrained(tmp_path)
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        processor = cls.from_pretrained(tmp_path, do_resize=False)
    assert "do_normalize=True" in caplog.text
    pixels = values(processor, clip)
    assert (pixels.min(), pixels.max()) == (-1, 1)
    insisting = values(cls.from_pretrained(tmp_path, do_resize=False, do_normalize=True), clip)
    stock = Stock()(list(clip), do_resize=False, return_tensors="pt")["pixel_values"]
    assert (insisting - stock).abs().max() < 1e-5
    assert insisting.min() == pytest.approx(-3)


@EACH
def test_what_is_saved_here_is_loaded_as_it_was(cls, tmp_path, caplog):
    """Also a normalisation after the offset, which in a file of plain transformers is taken for its default."""
    clip = noise(2, 260, 290, 3)
    logging.getLogger("transformers").propagate = True
    for number, settings in enumerate(({"do_normalize": True}, {"do_normalize": True, "offset": False}, {})):
        processor = cls(**settings)
        processor.save_pretrained(tmp_path / str(number))
        back = cls.from_pretrained(tmp_path / str(number))
        assert back.to_dict() == processor.to_dict()
        torch.testing.assert_close(values(back, clip), values(processor, clip), rtol=0, atol=0)
    assert cls.from_dict({"do_normalize": True, "size": {"shortest_edge": 18}}).do_normalize
    assert "do_normalize=True" not in caplog.text


@EACH
def test_rescale_takes_the_offset_off(cls):
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 8, 32)
    whole = ramp.astype(np.float32) / 127.5
    np.testing.assert_allclose(cls().rescale(ramp, scale=1 / 127.5), whole - 1, atol=1e-6)
    np.testing.assert_allclose(cls().rescale(torch.from_numpy(ramp), scale=1 / 127.5), whole - 1, atol=1e-6)
    np.testing.assert_allclose(cls().rescale(ramp, scale=1 / 127.5, offset=False), whole, atol=1e-6)
    np.testing.assert_allclose(cls(offset=False).rescale(ramp, scale=1 / 127.5), whole, atol=1e-6)
    np.testing.assert_allclose(cls(offset=False).rescale(ramp, scale=1 / 127.5, offset=True), whole - 1, atol=1e-6)
    clip = noise(2, 224, 224, 3)
    pixels = values(cls(), clip, do_resize=False, offset=False)
    np.testing.assert_allclose(pixels[0], clip.transpose(0, 3, 1, 2) / np.float32(127.5), atol=1e-6)


def test_ours_in_plain_transformers(tmp_path):
    clip = noise(2, 260, 290, 3)
    hf_video.VivitImageProcessor().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert content["image_processor_type"] == "VivitImageProcessor"
    assert (content["do_normalize"], content["offset"], content["rescale_factor"]) == (False, True, 1 / 127.5)
    stock = Stock.from_pretrained(tmp_path)(list(clip), return_tensors="pt")["pixel_values"]
    assert (values(hf_video.VivitImageProcessor(), clip) - stock).abs().max() <= 1.01 / 127.5


@EACH
def test_round_trip(cls, tmp_path):
    cls(offset=False, rescale_factor=1 / 255, num_crops=3).save_pretrained(tmp_path)
    back = cls.from_pretrained(tmp_path)
    assert (back.offset, back.rescale_factor, back.num_crops, back.sampler) == (False, 1 / 255, 3, "dense")
    assert cls.from_pretrained(tmp_path, offset=True).offset


def test_a_file_to_its_label(tmp_path):
    """Every second frame of the middle, as the authors sample, and 4 x 3 views."""
    video = write_video(tmp_path / "clip.mkv", noise(40, 60, 80, 3), 10, "ffv1")
    for attention_type in ("spacetime", "factorized_encoder"):
        folder = tmp_path / attention_type
        model(attention_type, image_size=32).save_pretrained(folder)
        sizes = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
        hf_video.VivitImageProcessor(**sizes).save_pretrained(folder)
        assert type(AutoImageProcessor.from_pretrained(folder)) is hf_video.VivitImageProcessor
        processor = hf_video.VivitImageProcessor.from_pretrained(folder)
        batch = processor(str(video), return_tensors="pt", return_metadata=True)
        assert batch["video_metadata"][0]["frames_indices"].tolist() == [14, 16, 18, 20, 22, 24]
        classify = pipeline("video-classification", model=str(folder), device="cpu")
        assert sum(row["score"] for row in classify(str(video), views="4x3", top_k=5)) == pytest.approx(1)
