"""Layers of the models that have a contract of their own: S3D, VideoCLIP, VIOLET. And models that are wide enough to
say how little int8 moves them."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from contract import randomise
from contract_layers import QUANTISED, LayerContract, answer, assert_same
from tiny_violet import pairs
from tiny_violet import tiny as tiny_violet
from videoclip.test_videoclip import facebooks, tiny, with_timesformer
from videoclip.test_videoclip import inputs as pairs_of_clip
from violet.test_violet import HEADS
from violet.test_violet import inputs as pairs_of_violet

import hf_video
from hf_video.models.violet.modeling_violet import VioletModel


class OwnContract(LayerContract):
    kinds: ClassVar[dict]

    def pytest_generate_tests(self, metafunc):
        for name, chosen in (("layered", list(self.kinds)), ("shaped", list(self.kinds)[:1])):
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, chosen)

    def model(self, kind):
        return self.kinds[kind]()


class TestS3D(OwnContract):
    sizes: ClassVar = {"stem_channels": 8, "projection_dim": 24, "num_frames": 8, "image_size": 32}
    kinds: ClassVar = {"s3d": lambda: randomise(hf_video.S3DModel(hf_video.S3DConfig(**TestS3D.sizes)))}
    uncalled = r"projection"  # of `get_video_features`

    def inputs(self, kind):
        return {"pixel_values": torch.randn(2, 8, 3, 32, 32)}

    def loss(self, model, inputs):
        state = model(**inputs).last_hidden_state
        return (state * torch.linspace(-1, 1, state.numel()).view_as(state)).mean()


class TestVideoCLIP(OwnContract):
    kinds: ClassVar = {
        "transformer": lambda: tiny("transformer"),
        "lstm": lambda: tiny("lstm"),
        "tight": lambda: tiny("tight"),
        "bert": facebooks,
        "timesformer": with_timesformer,
    }
    uncalled = r"text_model\.pooler"  # the text is pooled otherwise
    unreached = r"layer\.0\.b2\.(0|1\.0)\.conv"  # S3D's, whose ReLU is zero everywhere with these weights

    def inputs(self, kind):
        return {**pairs_of_clip(), "return_loss": True}

    def loss(self, model, inputs):
        return model(**inputs).loss


class TestViolet(OwnContract):
    kinds: ClassVar = {cls.__name__: lambda cls=cls: tiny_violet(cls) for cls in (*HEADS, VioletModel)}
    uncalled = r"bert\.encoder$"  # whose layers the model calls itself, to hand out attentions

    def inputs(self, kind):
        return pairs() if kind == "VioletModel" else pairs_of_violet(getattr(hf_video, kind))

    def loss(self, model, inputs):
        output = model(**inputs)
        return output.last_hidden_state.square().mean() if "last_hidden_state" in output else output.loss


WIDE = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3, "num_hidden_layers": 3}
WIDE |= {"image_size": 64, "num_frames": 4, "num_labels": 10}


@pytest.mark.parametrize("scheme", ["torchao weights", "torchao"])
@pytest.mark.parametrize("name", ["Timesformer", "VideoMAE", "Vivit"])
def test_int8_moves_the_answer_by_less_than_two_percent(name, scheme, tmp_path):
    """Of its largest value, in models that transformers has too; TimeSformer with more tokens a clip than channels."""
    config = getattr(hf_video, f"{name}Config")(**WIDE, **({"patch_size": 8} if name == "Timesformer" else {}))
    model = randomise(getattr(hf_video, f"{name}ForVideoClassification")(config), gain=0.5)
    inputs = {"pixel_values": torch.randn(2, 4, 3, 64, 64)}
    model.save_pretrained(tmp_path)
    quantised = type(model).from_pretrained(tmp_path, quantization_config=QUANTISED[scheme]())
    assert_same(answer(quantised, inputs), answer(model, inputs), 0.02)


def test_every_class_says_what_its_inputs_meet_first():
    """Quantisation, gradient checkpointing of adapters and the like ask for it."""
    models = [
        randomise(hf_video.VioletVisualTokenizer(hf_video.VioletVisualTokenizerConfig(hidden_size=8))),
        *(kind() for contract in (TestS3D, TestVideoCLIP, TestViolet) for kind in contract.kinds.values()),
    ]
    for model in models:
        assert model.get_input_embeddings() in set(model.modules())
