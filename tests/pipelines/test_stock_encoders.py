"""Transformers' own video encoders through our doors, torchvision or not."""

from __future__ import annotations

import pytest
import torch
import transformers
from stock_models import save_classifier, stock
from tiny import write_clip

from hf_video.base.loading import find_processors

NAMES = {"vjepa2": "VJEPA2ForVideoClassification", "videoprism": "VideoPrismForVideoClassification"}


@pytest.fixture(scope="module", params=NAMES)
def saved(request, tmp_path_factory):
    """(the stock model itself, its folder)."""
    folder = save_classifier(tmp_path_factory.mktemp(request.param), request.param)
    return stock(NAMES[request.param]).from_pretrained(folder).eval(), folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mkv", 12)


def stock_scores(model, folder, clip):
    """What the stock class says of the very same pixels."""
    processor = next(one for one in find_processors(model, None, None) if one is not None)
    inputs = processor(clip, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits.flatten(1)
    return dict(zip(model.config.id2label.values(), logits.softmax(-1)[0].tolist(), strict=True))


def test_classification(saved, clip):
    expected = stock_scores(*saved, clip)
    classify = transformers.pipeline("video-classification", model=str(saved[1]))
    found = {one["label"]: one["score"] for one in classify(clip)}
    assert found == pytest.approx(expected, abs=1e-5)
    assert found.keys() == expected.keys()
    windows = classify(clip, windows=0.5, views="1x3" if "videoprism" not in str(saved[1]) else None)
    assert len(windows) == 3
    given = transformers.pipeline("video-classification", model=saved[0])(clip)
    assert {one["label"]: one["score"] for one in given} == pytest.approx(expected, abs=1e-5)
