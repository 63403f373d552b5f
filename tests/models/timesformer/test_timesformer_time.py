"""TimeSformer: how time is seen."""

from __future__ import annotations

import pytest
import torch
from configs import timesformer
from contract import assert_close

from hf_video.models.timesformer.modeling_timesformer import TimesformerForVideoClassification


@pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time"])
def test_frames_come_from_the_tensor(attention_type):
    """A 4-frame configuration fed 8 frames is the 8-frame model with every time embedding used twice (stock groups
    tokens by the configuration's number and is silently wrong)."""
    four, eight = (timesformer(num_frames=n, attention_type=attention_type) for n in (4, 8))
    state = four.state_dict()
    state["embeddings.time_embeddings"] = state["embeddings.time_embeddings"].repeat_interleave(2, dim=1)
    eight.load_state_dict(state)
    video = torch.randn(2, 8, 3, 32, 48)
    assert_close(four(video).last_hidden_state, eight(video).last_hidden_state, atol=1e-6)


def test_space_only_answers_once_per_clip():
    model = timesformer(TimesformerForVideoClassification, attention_type="space_only", num_labels=5)
    video = torch.randn(2, 4, 3, 32, 48)
    logits = model(video).logits
    assert logits.shape == (2, 5)
    assert_close(model(video.flip(1)).logits, logits, atol=1e-6)  # a mean over frames can't see their order


def test_order_of_frames_matters_where_time_is_seen():
    model = timesformer(TimesformerForVideoClassification, num_labels=5)
    video = torch.randn(2, 4, 3, 32, 48)
    assert (model(video.flip(1)).logits - model(video).logits).abs().max() > 1e-2


def test_temporal_maps_are_over_frames_of_one_place():
    output = timesformer()(torch.randn(2, 4, 3, 32, 48), output_attentions=True)
    assert output.temporal_attentions[0].shape == (2 * 6, 4, 4, 4)
    assert output.attentions[0].shape == (2 * 4, 4, 7, 7)


def test_a_file_loads_with_another_number_of_frames_and_size(tmp_path):
    """The learned positions keep their grid and the nearest are taken, as if such a clip were fed to the old model."""
    model = timesformer(TimesformerForVideoClassification)
    model.save_pretrained(tmp_path)
    loaded = TimesformerForVideoClassification.from_pretrained(tmp_path, num_frames=8, image_size=(48, 64))
    assert loaded.config.num_frames == 8
    clip = torch.randn(2, 8, 3, 48, 64)
    assert_close(loaded(clip).logits, model(clip).logits)
    loaded.save_pretrained(tmp_path / "again")
    again = TimesformerForVideoClassification.from_pretrained(tmp_path / "again")
    assert_close(again(clip).logits, model(clip).logits)
