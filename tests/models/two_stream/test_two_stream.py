"""Two-stream networks: the contract, for each kind of network and fusion."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from contract import ModelContract, TrainerContract, assert_close, first_tensor

from hf_video.errors import ModelInputError

VGG = {"kind": "vgg", "depths": [2, 1], "widths": [6, 8], "fc_width": 8, "pool_size": 2, "dropout": [0.0, 0.0]}
RESNET = {"kind": "resnet", "depths": [1, 2], "widths": [6, 8], "dropout": [0.0]}


class TwoStreamContract(ModelContract):
    model_type = "two_stream"
    clip = (4, 16, 24)
    attention = False
    pyramid = True
    shallow: ClassVar = {}
    other_clips = ((1, 16, 24), (5, 32, 16))

    def flow(self, video: torch.Tensor) -> torch.Tensor:
        channels = 2 * self.tiny["flow_length"]
        generator = torch.Generator().manual_seed(1)
        shape = (8, video.shape[1], channels, *video.shape[-2:])
        return torch.randn(shape, generator=generator)[: len(video)].contiguous()

    def inputs(self, head, batch=2, clip=None):
        inputs = super().inputs(head, batch, clip)
        return {"flow_values": self.flow(inputs["pixel_values"]), **inputs}

    def loss(self, model, inputs):
        """Of the bare model also what its hidden layers give. (A compiled model is of no class of ours.)"""
        output = model(**inputs)
        if "loss" in output:
            return output.loss
        states = output.last_hidden_state, output.pooler_output
        return sum((x * torch.linspace(-1, 1, x.numel()).view_as(x)).mean() for x in states)

    def test_hidden_states(self, head):
        """Of both streams in turn, each of its own size."""
        model, inputs = self.model(head), self.inputs(head)
        output = model(**inputs, output_hidden_states=True)
        assert "hidden_states" not in model(**inputs)
        assert len(output.hidden_states) == 2 * (1 + self.config().num_hidden_layers)
        assert all(state.shape[0] == 2 and state.ndim == 3 for state in output.hidden_states)
        alone = model(
            pixel_values=inputs["pixel_values"], flow_values=inputs["flow_values"] * 2, output_hidden_states=True
        )
        half = len(output.hidden_states) // 2
        assert_close(alone.hidden_states[:half], output.hidden_states[:half], atol=0)
        assert not torch.equal(alone.hidden_states[half], output.hidden_states[half])

    def test_features(self, head):
        model, video = self.model(head), self.video()
        features = model.get_video_features(video, self.flow(video))
        width = self.config().hidden_size
        assert features.embedding.shape == (2, width)
        assert features.feature_map.shape[::4] == (2, width)
        if head == "AutoModelForVideoClassification":
            logits = model(video, self.flow(video)).logits
            assert_close(model.classifier(features.embedding), logits, atol=3e-6)
        else:
            output = model(video, self.flow(video))
            assert_close(output.last_hidden_state, features.feature_map.flatten(1, 3), atol=0)
            assert_close(output.pooler_output, features.embedding, atol=0)

    def test_wrong_flow(self, head):
        model, inputs = self.model(head), self.inputs(head)
        flow = inputs.pop("flow_values")
        for wrong, message in (
            (None, "flow_values is missing"),
            (flow[0], "expected"),
            (flow[:, :, :-1], "x and y of"),
            (flow.to(torch.uint8), "processor"),
            (flow[:1], "same clips"),
            (flow[:, :0], "at least one"),
        ):
            with pytest.raises(ModelInputError, match=message):
                model(flow_values=wrong, **inputs)


class TestVGG(TrainerContract, TwoStreamContract):
    tiny: ClassVar = {"spatial_config": VGG, "temporal_config": VGG, "flow_length": 2}
    tokens = 4 * 4 * 6


class TestResNet(TwoStreamContract):
    variant = True
    tiny: ClassVar = {
        "spatial_config": RESNET,
        "temporal_config": RESNET,
        "flow_length": 3,
        "fusion": "weighted",
        "fusion_scores": "softmax",
    }
    tokens = 4 * 2 * 3


class TestBottleneckConvFusion(TwoStreamContract):
    variant = True
    tiny: ClassVar = {
        "spatial_config": {**RESNET, "expansion": 4, "widths": [3, 4]},
        "temporal_config": {**RESNET, "expansion": 4, "widths": [3, 4]},
        "flow_length": 1,
        "fusion": "conv",
    }
    tokens = 2 * 3


@pytest.mark.parametrize("size", [(3, 24), (16, 3)])
def test_vgg_refuses_what_its_poolings_leave_nothing_of(size):
    contract = TestVGG()
    model = contract.model("AutoModel")
    video = torch.zeros(1, 1, 3, *size)
    with pytest.raises(ModelInputError, match="4 or more"):
        model(video, contract.flow(video))


def test_the_contract_sees_the_flow():
    """Its inputs move the answer through both streams."""
    contract = TestVGG()
    model, inputs = contract.model("AutoModel"), contract.inputs("AutoModel")
    plain = first_tensor(model(**inputs))
    for name in inputs:
        assert not torch.allclose(first_tensor(model(**{**inputs, name: -inputs[name]})), plain)
