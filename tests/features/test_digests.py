"""Digests of configurations and processors: what changes them, what does not, and that those of version 0.1.0 hold."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import CLIPConfig

from hf_video.errors import VideoIndexError
from hf_video.features.digests import changed_fields, facts_digest, fields_of_0_1_0
from hf_video.features.sequence_encoder import SequenceEncoder
from hf_video.models.videoclip.configuration_videoclip import VideoCLIPConfig
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig
from hf_video.models.videomae.image_processing_videomae import VideoMAEImageProcessor
from hf_video.retrieval import VideoIndex

SAVED = Path(__file__).parents[1] / "saved_by_0_1_0"
RULES = (changed_fields, fields_of_0_1_0)


@pytest.fixture
def later_version(monkeypatch):
    """A version whose configurations and processors have one field more."""
    for owner in (VideoMAEConfig, VideoMAEImageProcessor):
        to_dict = owner.to_dict
        monkeypatch.setattr(owner, "made_up", 1, raising=False)
        monkeypatch.setattr(owner, "to_dict", lambda self, before=to_dict: {**before(self), "made_up": self.made_up})


@pytest.mark.parametrize("rule", RULES)
def test_a_further_field_counts_where_it_is_not_the_default(rule, later_version):
    for owner in (VideoMAEConfig, VideoMAEImageProcessor):
        plain, other = owner(), owner()
        other.made_up = 2
        assert "made_up" not in rule(plain)
        assert rule(other)["made_up"] == 2


@pytest.mark.parametrize("rule", RULES)
def test_fields_that_decide_vectors_count(rule):
    """Also of a configuration in another one; where a file came from does not."""
    found = [
        rule(VideoCLIPConfig()),
        rule(VideoCLIPConfig(video_config={"model_type": "clip_vision_model", "hidden_act": "relu"})),
        rule(VideoCLIPConfig(video_config={"model_type": "timesformer"})),
        rule(CLIPConfig()),
        rule(CLIPConfig(vision_config={"hidden_act": "relu"})),
        rule(VideoMAEConfig()),
        rule(VideoMAEConfig(hidden_act="relu")),
        rule(VideoMAEImageProcessor()),
        rule(VideoMAEImageProcessor(image_mean=[0.1, 0.2, 0.3])),
    ]
    assert len(set(map(facts_digest, found))) == len(found)
    moved = VideoMAEConfig(name_or_path="elsewhere", architectures=["VideoMAEModel"], dtype="bfloat16")
    assert rule(moved) == rule(VideoMAEConfig())


@pytest.mark.parametrize("saved_before", [True, False], ids=["by 0.1.0", "before the field"])
def test_an_index_opens_in_a_version_with_a_further_field(saved_before, tmp_path, monkeypatch, request):
    folder = tmp_path / "library"
    shutil.copytree(SAVED, folder)
    monkeypatch.chdir(folder)
    if not saved_before:
        VideoIndex.build("new.index", "videos/still", "model", window="0.5s/0.5s")
    request.getfixturevalue("later_version")
    index = VideoIndex.open("library.index" if saved_before else "new.index")
    assert index.search("videos/still/still1.mp4")
    model, processor = index.encoder.model, index.encoder.processor
    model.config.made_up = 2
    with pytest.raises(VideoIndexError, match="whose config differ"):
        VideoIndex.open("library.index" if saved_before else "new.index", model, processor)


def test_an_encoder_goes_by_the_digest_that_0_1_0_made(tmp_path, later_version):
    made = SequenceEncoder(SAVED / "model", grid="8/4")
    now, before = made.digest, made._digest_by(fields_of_0_1_0)
    assert now != before
    assert not made.has_digest("0" * 16)
    assert made.digest == now
    assert made.has_digest(before)
    assert made.digest == before
