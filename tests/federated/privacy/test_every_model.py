"""Every model of the registry: exact gradients of each video and a bounded influence of each, or a refusal."""

from __future__ import annotations

import evaluation_models
import pytest
import torch
from tiny import LABELS

from hf_video import MODELS
from hf_video.errors import FederatedError
from hf_video.federated.privacy.samples import clipped_sum, per_video_gradients
from hf_video.registry import DETECTORS

# Pairs of video and text, or of normal and abnormal videos, counts over the batch: no video has a loss of its own.
JOINED = ("VideoCLIPModel", "VioletForPreTraining", "VioletForVideoTextRetrieval", "RTFMForAnomalyDetection",
          "MILRankingForAnomalyDetection", "ActionFormerForTemporalActionDetection",
          "TriDetForTemporalActionDetection")  # fmt: skip
CLASSIFIERS = [name for name in evaluation_models.CONFIGS if name != "mvit-large"]


def inputs_of(model, videos=3):
    """Clips, the flow that goes with them, and labels."""
    generator, config = torch.Generator().manual_seed(0), model.config
    inputs = {model.main_input_name: torch.randn(videos, config.num_frames, 3, 32, 32, generator=generator)}
    if config.model_type == "two_stream" and config.temporal_config is not None:
        shape = (videos, config.num_frames, 2 * config.flow_length, 32, 32)
        inputs["flow_values"] = torch.randn(shape, generator=generator)
    return {**inputs, "labels": torch.arange(videos) % len(LABELS)}


def assert_exact(model, inputs):
    """Each video's gradient is that of a backward pass for it alone, to 1e-5 of the largest number; and a video less
    moves the clipped sum by the clip at most."""
    found = per_video_gradients(model, inputs)
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    assert set(found) == set(trained)
    for row in range(len(inputs["labels"] if "labels" in inputs else next(iter(inputs.values())))):
        loss = model(**{name: one[row : row + 1] for name, one in inputs.items()}).loss
        alone = torch.autograd.grad(loss, list(trained.values()), allow_unused=True, materialize_grads=True)
        size = max(float(one.abs().max()) for one in alone)
        assert size > 0
        for name, one in zip(trained, alone, strict=True):
            assert float((found[name][row] - one).abs().max()) <= 1e-5 * size, name
    clip = 0.1
    whole, norms = clipped_sum(found, clip)
    assert float(norms.min()) > clip
    rest, _ = clipped_sum({name: one[1:] for name, one in found.items()}, clip)
    moved = torch.stack([(whole[name] - rest[name]).norm() for name in whole]).norm()
    assert float(moved) == pytest.approx(clip, rel=1e-4)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name):
    model, _ = evaluation_models.make(name)
    assert_exact(model.float(), inputs_of(model))


def test_masked_pretraining():
    entry = MODELS["videomae"]
    config = entry.load(entry.config)(**evaluation_models.CONFIGS["videomae"], decoder_hidden_size=24,
                                      decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
                                      decoder_intermediate_size=32)  # fmt: skip
    torch.manual_seed(0)
    model = entry.load("VideoMAEForPreTraining")(config).eval()
    mask = torch.zeros(3, 8, dtype=torch.bool)
    mask[:, [1, 2, 4, 6, 7]] = True
    inputs = {model.main_input_name: torch.randn(3, 4, 3, 32, 32), "bool_masked_pos": mask}
    assert_exact(model, inputs)


def lora(name):
    peft = pytest.importorskip("peft")
    model, _ = evaluation_models.make(name)
    torch.manual_seed(0)
    model = peft.get_peft_model(model.float(), peft.LoraConfig(r=2, target_modules="all-linear"))
    for key, one in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(one, std=0.3)
    return model.eval()


@pytest.mark.parametrize("name", ["timesformer", "videomae", "vivit", "mvit", "video_swin"])
def test_adapters(name):
    model = lora(name)
    inputs = inputs_of(model)
    assert_exact(model, inputs)
    assert all("lora_" in key for key in per_video_gradients(model, {k: one[:1] for k, one in inputs.items()}))


def test_every_model_with_a_loss_is_here_or_refused():
    heads = ("ForPreTraining", "ForVideoClassification", "Retrieval", "Detection")
    found = {
        (kind, name)
        for kind, entry in {**MODELS, **DETECTORS}.items()
        for name in entry.class_names
        if name.endswith(heads) or kind == "videoclip"
    }
    known = {name.partition("-")[0] for name in CLASSIFIERS}
    for kind, name in found:
        if name.endswith("ForVideoClassification"):
            assert kind in known, name
    for kind, entry in {**MODELS, **DETECTORS}.items():
        for name in set(JOINED) & set(entry.class_names):
            assert entry.load(name).loss_joins_samples, (kind, name)


def test_losses_over_pairs_are_refused():
    class Pairs(torch.nn.Linear):
        loss_joins_samples = True

    with pytest.raises(FederatedError, match="The loss of Pairs joins the samples"):
        per_video_gradients(Pairs(2, 2), {"x": torch.ones(2, 2)}, loss=lambda model, inputs: model(inputs["x"]).sum())


@pytest.mark.parametrize("inputs", [{"boxes": [[1, 2]]}, {"x": torch.ones(2, 1), "y": torch.ones(3, 1)}])
def test_inputs_that_are_not_of_single_videos_are_refused(inputs):
    with pytest.raises(FederatedError, match=r"rows|a list"):
        per_video_gradients(torch.nn.Linear(1, 1), inputs)


def test_attention_of_several_samples_is_one_call():
    """Fused under vmap: the numbers of plain products, the gradients too, whichever inputs the samples share."""
    from torch.nn import functional as F

    from hf_video.federated.privacy.attention import FoldedAttention

    q, k, v = torch.randn(3, 4, 1, 2, 6, 8, dtype=torch.float64)

    def value(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, scale=0.3).pow(2).sum()

    for dims in ((0, 0, 0), (0, None, 0)):
        given = (q, k if dims[1] == 0 else k[0], v)
        gradients = torch.func.vmap(torch.func.grad(value, (0, 1, 2)), dims)
        with FoldedAttention():
            found = gradients(*given)
        rows = [torch.func.grad(value, (0, 1, 2))(q[i], k[i] if dims[1] == 0 else k[0], v[i]) for i in range(4)]
        for one, parts in zip(found, zip(*rows, strict=True), strict=True):
            torch.testing.assert_close(one, torch.stack(parts))
