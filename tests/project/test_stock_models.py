"""Every video model in transformers' own tables goes through our doors, or is refused for a reason that is on the page;
and one that is new in the next version needs no code of ours."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from contract import randomise
from safetensors.torch import save_file
from stock_models import PROCESSORS, save_new, save_video_text
from transformers.models.auto.modeling_auto import MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES

import hf_video
from hf_video.errors import CheckpointError

DOCS = Path(__file__).parents[2] / "docs"
CLIP = np.random.default_rng(0).integers(0, 256, (12, 24, 32, 3), dtype=np.uint8)
SMALL = {
    "hidden_size": 16, "intermediate_size": 32, "attention_heads": 2, "layers": 1, "image_size": 16, "crop_size": 16,
    "patch_size": 8, "num_frames": 4, "frames_per_clip": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def listed():
    sys.path.insert(0, str(DOCS))
    try:
        import list_stock_models

        return list_stock_models
    finally:
        sys.path.remove(str(DOCS))


def shrunk(config_class):
    """A small configuration of any class, by what its fields are called."""
    plain, changes = config_class(), {}
    for name, value in plain.to_dict().items():
        if (end := next((one for one in SMALL if name.endswith(one)), None)) and isinstance(value, int):
            changes[name] = SMALL[end]
        elif name == "tubelet_size" and isinstance(value, (list, tuple)):
            changes[name] = [value[0], 8, 8]
    return config_class(**changes, num_labels=3)


def save(folder, model_type, name):
    """A small model of a type of transformers' table, with a processor's file that is like the type's own."""
    module = getattr(transformers, name).__module__
    kind = getattr(sys.modules[module], name)
    model = randomise(kind(shrunk(kind.config_class)))
    model.save_pretrained(folder)
    like = "vjepa2" if model.main_input_name == "pixel_values_videos" else "xclip"
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[like]))
    return model


@pytest.mark.parametrize("model_type", MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES)
def test_every_classifier(model_type, tmp_path):
    """Fails for a classifier that a new version of transformers brings and that needs code of ours: the error says what
    it misses."""
    stock = save(tmp_path, model_type, MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES[model_type])
    classify = transformers.pipeline("video-classification", model=str(tmp_path))
    found = {one["label"]: one["score"] for one in classify(CLIP, num_frames=4)}
    processor = classify.image_processor or classify.video_processor
    pixels = processor(CLIP, num_frames=4, return_tensors="pt")
    (clips,) = pixels.values()
    with torch.inference_mode():
        logits = stock.eval()(**{stock.main_input_name: clips}).logits
    expected = dict(zip(stock.config.id2label.values(), logits.flatten().softmax(-1).tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-5)


def test_every_model_of_video_and_text(listed, tmp_path):
    """Those that aren't refused are tried here: a new one has to be added."""
    works = {row.model_type for row in listed.video_text() if not row.refused}
    assert works == {"videoprism", "xclip"}, "make a small one in stock_models.save_video_text, and run make pages"
    for kind in works:
        folder = save_video_text(tmp_path / kind, kind)
        classify = transformers.pipeline("zero-shot-video-classification", model=str(folder))
        assert len(classify(CLIP, candidate_labels=["ring", "disc"])) == 2


def test_the_page_is_of_this_version(listed):
    written = listed.PAGE.read_text(encoding="utf-8")
    if f"transformers {transformers.__version__}." not in written:
        pytest.skip("the page is of another version of transformers")
    assert written == listed.page(), "write it again: make pages"


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_perception_encoders_say_what_they_need(tmp_path):
    transformers.PeVideoConfig().save_pretrained(tmp_path)
    save_file({"any": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="needs timm, which needs torchvision"):
        transformers.pipeline("video-feature-extraction", model=str(tmp_path))


def test_a_new_classifier_needs_no_code_of_ours(tmp_path, monkeypatch):
    model = save_new(tmp_path, monkeypatch)
    classify = transformers.pipeline("video-classification", model=str(tmp_path))
    assert isinstance(classify.video_processor, hf_video.base.processing.ClipProcessing)
    pixels = classify.video_processor(CLIP, num_frames=4, return_tensors="pt")
    expected = model(**pixels).logits[0, 0].softmax(-1).tolist()
    assert sorted(one["score"] for one in classify(CLIP)) == pytest.approx(sorted(expected), abs=1e-6)
    embed = transformers.pipeline("video-feature-extraction", model=str(tmp_path))
    assert embed(CLIP).shape == (3,)
