"""AdaTAD beyond the official numbers: what learns, at which memory, windows of one video, files."""

from __future__ import annotations

import pytest
import torch
from contract_layers import LayerContract
from transformers import AutoConfig, AutoImageProcessor, AutoModel

import hf_video
from hf_video.base.detection.modeling import TemporalDetectionOutput
from hf_video.errors import ConfigError, ModelInputError
from hf_video.training.optim import parameter_groups

ENCODER = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32,
    "num_frames": 4,
}  # fmt: skip
DETECTOR = {"hidden_size": 32, "neck_size": 32, "head_size": 32, "branch_layers": 2}


def make(cls=hf_video.AdaTADForTemporalActionDetection, **more):
    torch.manual_seed(0)
    sizes = {"num_frames": 16, "image_size": 32, "num_labels": 3}
    encoder, detector = ENCODER | more.pop("encoder", {}), DETECTOR | more.pop("detector", {})
    return cls(hf_video.AdaTADConfig(encoder_config=encoder, detector_config=detector, **sizes | more))


def randomised(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def windows(number=2, frames=16):
    return torch.randn(number, frames, 3, 32, 32, generator=torch.Generator().manual_seed(1))


EVENTS = {"segments": [torch.tensor([[4.0, 10.0]])] * 2, "labels": [torch.tensor([1])] * 2}


def test_it_starts_as_videomae_chunk_by_chunk():
    """Adapters begin as the identity; the weights of an encoder are taken over."""
    videomae = randomised(hf_video.VideoMAEModel(hf_video.VideoMAEConfig(**ENCODER, layer_norm_eps=1e-6)))
    model = make(hf_video.AdaTADModel).eval()
    model.load_encoder(videomae)
    tokens = videomae(windows().unflatten(1, (4, 4)).flatten(0, 1)).last_hidden_state
    tokens = videomae.layernorm(tokens) if videomae.layernorm is not None else tokens
    expected = tokens.reshape(2, 8, 2, 2, 32)
    torch.testing.assert_close(model.token_map(windows()), expected)
    with pytest.raises(ModelInputError, match="does not fit"):
        make(hf_video.AdaTADModel, encoder={"num_hidden_layers": 2}).load_encoder(videomae)


@pytest.mark.parametrize("loaded", [False, True])
def test_only_adapters_and_detector_learn(loaded, tmp_path):
    model = make(encoder={"drop_path_rate": 0.5, "hidden_dropout_prob": 0.3})
    if loaded:
        model.save_pretrained(tmp_path)
        model = type(model).from_pretrained(tmp_path)
    model.train()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name in dict(model.named_parameters()) if name[:6] == "adatad" and "adapter" not in name}
    modes = {name: module.training for name, module in model.adatad.encoder.layer[1].named_children()}
    assert modes["drop_path"]
    assert modes["adapter"]
    assert not any(mode for name, mode in modes.items() if name not in ("drop_path", "adapter"))
    assert not any(module.training for module in model.adatad.encoder.layer[1].attention.modules())
    model(windows(), **EVENTS).loss.backward()
    assert all((parameter.grad is None) == (name in frozen) for name, parameter in model.named_parameters())
    assert not any(module.training for module in model.eval().modules())


def test_without_freezing_all_learns():
    model = make(freeze_encoder=False).train()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())


def test_groups_of_parameters():
    """Adapters at twice the rate, all with decay; of the detector the weights of convolutions and products."""
    model = make()
    groups = parameter_groups(model, learning_rate=1e-4, weight_decay=0.05, backbone_rate=2)
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {(g["lr"], g["weight_decay"]): {names[p] for p in g["params"]} for g in groups}
    assert set(found) == {(2e-4, 0.05), (1e-4, 0.05), (1e-4, 0.0)}
    assert found[2e-4, 0.05] == {name for name in names.values() if ".adapter." in name}
    assert "detector.class_head.output.weight" in found[1e-4, 0.05]
    assert "detector.class_head.output.bias" in found[1e-4, 0.0]


class Kept:
    """Counts the values that autograd keeps for the way back."""

    def __init__(self):
        self.size = 0

    def __enter__(self):
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def pack(self, tensor):
        self.size += 0 if isinstance(tensor, torch.nn.Parameter) else tensor.numel()
        return tensor

    def __exit__(self, *error):
        self.hooks.__exit__(*error)


def test_checkpointing_gives_the_same_gradients_with_less_kept():
    def gradients(checkpointing, **more):
        model = randomised(make(hf_video.AdaTADModel, **more)).train()
        for module in model.modules():
            if hasattr(module, "p"):
                module.p = 0.0
        if checkpointing:
            model.gradient_checkpointing_enable()
        with Kept() as kept:
            sequence = model(windows()).last_hidden_state
        sequence.square().mean().backward()
        return kept.size, {name: one.grad for name, one in model.named_parameters() if one.grad is not None}

    plain, checkpointed, full = gradients(False), gradients(True), gradients(False, freeze_encoder=False)
    assert checkpointed[0] < 0.5 * plain[0]
    assert plain[0] < full[0]
    for name, gradient in plain[1].items():
        torch.testing.assert_close(checkpointed[1][name], gradient, msg=name)


def test_padding_is_not_seen_and_a_batch_is_one_by_one():
    model = randomised(make())
    mask = torch.arange(16) < torch.tensor([[16], [12]])
    together = model(windows(), mask)
    for row in range(2):
        alone = model(windows()[row : row + 1], mask[row : row + 1])
        torch.testing.assert_close(together.logits[row], alone.logits[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(together.mask[:, :16], mask)


def test_windows_of_one_video_are_joined_before_they_are_merged():
    """The same event in two overlapping windows is one event."""
    model = make(detector={"nms": "hard", "nms_iou_threshold": 0.5})
    logits = torch.full((2, 28, 3), -20.0)
    offsets = torch.ones(2, 28, 2)
    logits[0, 12, 1], logits[1, 4, 1] = 3.0, 4.0  # frame 12 of both: the second window begins at 8
    points = model.detector(torch.randn(1, 16, 32)).points
    output = TemporalDetectionOutput(
        logits=logits, offsets=offsets, mask=torch.ones(2, 28, dtype=torch.bool), points=points
    )
    assert [len(one.segments) for one in model.find_segments(output)] == [1, 1]
    (found,) = model.find_segments(output, starts=[0, 8])
    assert found.segments.tolist() == [[11.0, 13.0]]
    assert found.scores[0] == torch.tensor(4.0).sigmoid()


def test_files_and_auto_classes(tmp_path):
    model = randomised(make(adapter_layers=[0, 2]))
    model.save_pretrained(tmp_path)
    hf_video.AdaTADImageProcessor().save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert torch.equal(loaded(windows()).logits, model(windows()).logits)
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.detector_config.num_labels == config.num_labels == 3
    assert isinstance(config.encoder_config, hf_video.VideoMAEConfig)
    encoder = AutoModel.from_pretrained(tmp_path)
    torch.testing.assert_close(encoder(windows()).last_hidden_state, model.adatad(windows()).last_hidden_state)
    assert encoder.get_video_features(windows()).feature_map.shape == (2, 8, 2, 2, 32)
    assert AutoImageProcessor.from_pretrained(tmp_path).crop_size["height"] == 160


def test_hooks_and_layers_are_called():
    model, called = randomised(make()), set()
    layers = {n: m for n, m in model.adatad.named_modules() if n and any(True for _ in m.parameters(recurse=False))}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
    model(windows())
    assert {name for name, layer in layers.items() if isinstance(layer, torch.nn.Linear | torch.nn.LayerNorm)} <= called
    assert {name for name in layers if name.endswith("adapter")} <= called


def test_what_makes_no_window():
    model = make()
    with pytest.raises(ModelInputError, match="chunks of 4 frames"):
        model(windows(frames=10))
    with pytest.raises(ModelInputError, match="mask has shape"):
        model(windows(), torch.ones(2, 15))
    with pytest.raises(ConfigError, match="multiple of the 4 frames"):
        make(num_frames=18)
    with pytest.raises(ConfigError, match="names block 3"):
        make(adapter_layers=[3])
    with pytest.raises(ConfigError, match="must be odd"):
        make(adapter_kernel_size=2)


@pytest.mark.slow
def test_it_learns_when_a_square_is_there():
    """End to end from frames: on windows that it has not seen, most events are found with an overlap above a half."""
    generator = torch.Generator().manual_seed(0)

    def batch(size):
        frames, segments, labels = 0.3 * torch.randn(size, 32, 3, 32, 32, generator=generator), [], []
        for row in frames:
            length = int(torch.randint(6, 14, (), generator=generator))
            start = int(torch.randint(0, 32 - length, (), generator=generator))
            label = int(torch.randint(0, 2, (), generator=generator))
            y, x = torch.randint(0, 16, (2,), generator=generator).tolist()
            row[start : start + length, label, y : y + 16, x : x + 16] += 2
            segments.append(torch.tensor([[float(start), float(start + length)]]))
            labels.append(torch.tensor([label]))
        return frames, segments, labels

    model = make(num_frames=32, num_labels=2, encoder={"drop_path_rate": 0.0}).train()
    groups = parameter_groups(model, learning_rate=1e-3, weight_decay=0.05, backbone_rate=2)
    optimizer = torch.optim.AdamW(groups)
    before = {name: value.clone() for name, value in model.adatad.state_dict().items()}
    for _ in range(250):
        frames, segments, labels = batch(8)
        model(frames, segments=segments, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    for name, value in model.adatad.state_dict().items():
        assert torch.equal(value, before[name]) == ("adapter" not in name), name
    frames, segments, labels = batch(32)
    found = model.eval().find_segments(model(frames))
    hits = 0
    for one, (truth,), label in zip(found, segments, labels, strict=True):
        best = one.segments[0]
        overlap = (torch.minimum(best[1], truth[1]) - torch.maximum(best[0], truth[0])).clamp_min(0)
        union = torch.maximum(best[1], truth[1]) - torch.minimum(best[0], truth[0])
        hits += bool(overlap / union > 0.5 and one.labels[0] == label)
    assert hits >= 28


class TestLayers(LayerContract):
    """Adapters of others, quantised and offloaded layers count; all is trained, so that every layer has gradients."""

    unreached = (
        r"offset_head|\.key$"  # a ReLU may stop offsets of random weights; a key's bias drops out of the softmax
    )

    @pytest.fixture
    def layered(self):
        return None

    @pytest.fixture
    def shaped(self):
        return None

    def model(self, head):
        return randomised(make(freeze_encoder=False))

    def inputs(self, head):
        return {"pixel_values": windows(1)}

    def loss(self, model, inputs):
        return model(**inputs).logits.square().sum() + model(**inputs).offsets.square().sum()
