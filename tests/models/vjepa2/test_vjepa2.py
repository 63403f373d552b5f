"""V-JEPA 2: the contract, and what is peculiar: its predictor, its tables, clips that no tubelets make up."""

from __future__ import annotations

import copy
import functools
import pickle
from typing import ClassVar

import pytest
import torch
from contract import ModelContract, TrainerContract, assert_close, randomise

import hf_video
from hf_video.errors import ConfigError, ModelInputError

TINY = {
    "crop_size": 32,
    "frames_per_clip": 4,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pred_hidden_size": 24,
    "pred_num_hidden_layers": 1,
    "pred_num_attention_heads": 2,
    "pred_num_mask_tokens": 2,
    "num_pooler_layers": 1,
}


class VJEPA2Contract(ModelContract):
    model_type = "vjepa2"
    clip_name = "pixel_values_videos"
    tiny = TINY
    clip = (4, 32, 48)
    tokens = 12
    encoder_outputs: ClassVar = ["masked_hidden_state"]
    classes = ("AutoModel", "AutoModelForVideoClassification")
    uncalled = r"vjepa2\.predictor(\.|$)"  # by a classifier

    def loss(self, model, inputs):
        output = model(**inputs)
        if "loss" in output:
            return output.loss
        state = output.last_hidden_state + output.predictor_output.last_hidden_state
        return (state * torch.linspace(-1, 1, state.numel()).view_as(state)).mean()


class TestVJEPA2(TrainerContract, VJEPA2Contract):
    other_clips = ((8, 32, 64), (2, 48, 32), (1, 32, 32))
    refused_clips = ((3, 32, 32), (4, 40, 32), (4, 32, 8), (0, 32, 32))


class TestPretraining(VJEPA2Contract):
    classes = ("AutoModelForPreTraining",)
    uncalled = r"vjepa2\.encoder(\.|$)"  # with a gradient
    other_clips = ((8, 32, 64), (1, 32, 32))

    def inputs(self, head, batch=2, clip=None):
        frames, height, width = clip or self.clip
        order = torch.rand(
            batch, -(-frames // 2) * (height // 16) * (width // 16), generator=torch.Generator().manual_seed(0)
        ).argsort(1)
        return {**super().inputs(head, batch, clip), "context_mask": order[:, :-3], "target_mask": order[:, -3:-1]}

    def test_accumulates(self, tmp_path):
        once = functools.partial(TrainerContract.train_once, self, "AutoModelForPreTraining", tmp_path)
        assert_close(once(8, 2, 4), once(8, 8, 1), atol=1e-6)


class TestOtherHeads(VJEPA2Contract):
    """Of odd width, so that a channel is left over besides the pairs; a pooler with heads of its own, which reads both
    blocks; no biases."""

    variant = True
    tiny: ClassVar = {
        **TINY,
        "hidden_size": 36,
        "qkv_bias": False,
        "pooler_num_attention_heads": 2,
        "pooler_layers": [1, 0],
    }
    shallow: ClassVar = {"num_hidden_layers": 1, "pooler_layers": [0]}
    other_clips = ((8, 32, 64),)


@pytest.fixture(scope="module")
def model():
    return randomise(hf_video.VJEPA2Model(hf_video.VJEPA2Config(**TINY)))


CLIP = torch.randn(2, 4, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def places(*numbers: int) -> torch.Tensor:
    return torch.tensor([numbers, numbers[::-1]])


@torch.no_grad()
def test_an_image_is_a_clip_that_stands_still(model):
    image = CLIP[:, :1]
    still = model(image.expand(-1, 2, -1, -1, -1)).last_hidden_state
    assert_close(model(image).last_hidden_state, still, atol=0)
    assert model.get_video_features(image).feature_map.shape == (2, 1, 2, 3, 48)


@torch.no_grad()
def test_the_predictor_sees_the_context_alone(model):
    """In any order, at the places that the masks say; two pairs of masks are two predictions."""
    context, target = places(0, 3, 5, 7), places(1, 11)
    one = model(CLIP, context_mask=[context], target_mask=[target])
    assert_close(one.masked_hidden_state[1], one.last_hidden_state[1, [7, 5, 3, 0]], atol=0)
    assert_close(one.predictor_output.target_hidden_state[0], one.last_hidden_state[0, [1, 11]], atol=0)
    turned = model(CLIP, context_mask=context.flip(1), target_mask=target.flip(1)).predictor_output
    assert_close(turned.last_hidden_state, one.predictor_output.last_hidden_state.flip(1), atol=2e-6)
    other = model(CLIP, context_mask=[places(2, 4, 6, 8), context], target_mask=[places(1, 10), target])
    assert_close(other.predictor_output.last_hidden_state[2:], one.predictor_output.last_hidden_state, atol=2e-6)
    moved = model(CLIP, context_mask=[context], target_mask=[places(1, 10)]).predictor_output
    assert (moved.last_hidden_state - one.predictor_output.last_hidden_state)[0].abs().max() > 0.01
    everything = torch.arange(12).expand(2, -1)
    named = model(CLIP, context_mask=[everything], target_mask=[everything]).predictor_output
    assert_close(named.last_hidden_state, model(CLIP).predictor_output.last_hidden_state, atol=2e-6)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"context_mask": [places(0)]}, "target_mask is missing"),
        ({"context_mask": [places(0)], "target_mask": [places(12)]}, "from 12 to 12; the clip has 12 tokens"),
        ({"context_mask": [places(0)], "target_mask": [places(1).float()]}, r"torch.float32 of shape \(2, 1\)"),
        ({"context_mask": [places(0)[:1]], "target_mask": [places(1)]}, r"\(1, 1\); expected .* \(2, tokens\)"),
        ({"context_mask": [places(0)], "target_mask": [places(1), places(2)]}, "1 context masks and 2 target masks"),
        ({"context_mask": [], "target_mask": [places(1)]}, "context_mask is an empty list"),
        ({"context_mask": [places(0), places(1, 2)], "target_mask": [places(1)]}, "2 and 1 tokens"),
    ],
)
def test_masks_that_mean_nothing(model, masks, message):
    with pytest.raises(ModelInputError, match=message):
        model(CLIP, **masks)


@torch.no_grad()
def test_tables_are_made_once_for_a_grid_and_are_nobodys_weights():
    model = randomise(hf_video.VJEPA2Model(hf_video.VJEPA2Config(**TINY)))
    tables = model.encoder.tables
    expected = model(CLIP).last_hidden_state
    first = tables.made[1][0]
    model(CLIP)
    assert tables.made[1][0] is first
    assert not [name for name in model.state_dict() if "tables" in name]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.encoder.tables.made is None
        assert_close(twin(CLIP).last_hidden_state, expected, atol=2e-6)
    model(CLIP[..., :32])
    assert tables.made[1][0].shape[0] == 8
    assert_close(model(CLIP).last_hidden_state, expected, atol=2e-6)
    assert model.bfloat16().encoder.tables.made is None
    model(CLIP.bfloat16())
    assert tables.made[1][0].dtype == torch.bfloat16
    model.float()
    with torch.inference_mode():
        model(CLIP)
    with torch.enable_grad():  # what inference mode made can't be trained with
        model(CLIP).last_hidden_state.sum().backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooler_layers": [2]}, "0 to 1"),
        ({"pooler_num_attention_heads": 5}, "pooler_num_attention_heads=5"),
        ({"pred_num_attention_heads": 5}, "pred_hidden_size=24"),
        ({"crop_size": 8}, "no patch"),
        ({"tubelet_sizes": 2}, "tubelet_size"),
    ],
)
def test_configurations_that_make_no_model(options, message):
    with pytest.raises(ConfigError, match=message):
        hf_video.VJEPA2Config(**{**TINY, **options})


def test_names_of_other_models_fields():
    config = hf_video.VJEPA2Config(num_frames=8, image_size=48)
    assert (config.frames_per_clip, config.crop_size, config.num_channels) == (8, 48, 3)
    assert not {"num_frames", "image_size", "num_channels"} & set(config.to_dict())
