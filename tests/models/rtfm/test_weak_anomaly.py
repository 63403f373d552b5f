"""RTFM and deep MIL ranking: official losses, the authors' layers, batches, files, learning, and what is refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import hf_video
from hf_video.errors import ConfigError, ModelInputError
from hf_video.layers.bag_losses import pool_segments, ranking_loss, smoothness

SMALL = {"input_size": 12, "hidden_size": 8}
KINDS = {
    "rtfm": lambda **more: hf_video.RTFMConfig(**SMALL, classifier_sizes=(8, 6), **more),
    "mil_ranking": lambda **more: hf_video.MILRankingConfig(**SMALL, bottleneck_size=6, **more),
}
CLASSES = {"rtfm": hf_video.RTFMForAnomalyDetection, "mil_ranking": hf_video.MILRankingForAnomalyDetection}


def head(kind, **more):
    torch.manual_seed(0)
    model = CLASSES[kind](KINDS[kind](**more)).eval()
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.is_floating_point():
                value.add_(
                    0.2 * torch.randn_like(value).abs() if name.endswith("var") else 0.2 * torch.randn_like(value)
                )
    return model


@pytest.fixture(params=KINDS)
def model(request):
    return head(request.param)


def test_ranking_is_over_all_pairs():
    """Written out as in the authors' code: for each normal video the sum over abnormal ones, and of these the mean."""
    scores = torch.rand(5, 32, dtype=torch.float64)
    normal, abnormal = scores[:2], scores[2:]
    sums = [sum(max(1 - a.max() + n.max(), 0) for a in abnormal) for n in normal]
    torch.testing.assert_close(ranking_loss(normal, abnormal), torch.stack(sums).mean())


def test_loss_of_sultani_with_its_constants():
    model = head("mil_ranking")
    features = torch.randn(5, 32, 12)
    labels = torch.tensor([1, 0, 1, 0, 1])
    output = model(features, labels=labels)
    scores = output.scores.double()
    abnormal = scores[labels == 1]
    expected = ranking_loss(scores[labels == 0], abnormal) + 8e-5 * abnormal.sum()
    expected += 8e-5 * sum(((one[1:] - one[:-1]) ** 2).sum() for one in abnormal)
    torch.testing.assert_close(output.loss.double(), expected, atol=1e-6, rtol=1e-6)


def test_loss_of_rtfm_in_the_words_of_its_code():
    """Selection by magnitude, crops one after another, normal and abnormal videos in pairs."""
    model = head("rtfm", smooth_across_videos=True)
    features = torch.randn(4, 2, 32, 12)
    labels = torch.tensor([0, 0, 1, 1])
    output = model(features, labels=labels)
    x = model.aggregation(features.flatten(0, 1), torch.ones(8, 32, dtype=torch.bool))
    magnitudes = x.norm(dim=2).view(4, 2, 32).mean(1)
    torch.testing.assert_close(output.magnitudes, magnitudes)
    chosen = magnitudes.topk(3, dim=1).indices
    bags = torch.stack([output.scores[i, chosen[i]].mean() for i in range(4)])
    loss = nn.functional.binary_cross_entropy(bags, labels.float())
    selected = [torch.cat([x.view(4, 2, 32, 12)[i : i + 2, crop].gather(
        1, chosen[i : i + 2, :, None].expand(-1, -1, 12)) for crop in range(2)]) for i in (0, 2)]  # fmt: skip
    long, short = selected[1].mean(1).norm(dim=1), selected[0].mean(1).norm(dim=1)
    loss = loss + 1e-4 * ((100 - long).abs() + short).square().mean()
    flat = output.scores[2:].flatten()
    loss = loss + 8e-3 * flat.norm() + 8e-4 * (flat[1:] - flat[:-1]).square().sum()
    torch.testing.assert_close(output.loss, loss)


def test_layers_of_rtfm_are_the_authors():
    """Their network, written with their layers one after another, on the same weights."""
    model = head("rtfm")
    ours, x = model.aggregation, torch.randn(2, 12, 20)
    parts = [ours.branch_norms[i](ours.branches[i](x).relu()) for i in range(3)]
    assert [branch.dilation[0] for branch in ours.branches] == [1, 2, 4]
    y = ours.reduction(x).relu()
    theta, phi, g = ours.query(y).transpose(1, 2), ours.key(y), ours.value(y).transpose(1, 2)
    z = ours.mixing_norm(ours.mixing(((theta @ phi) / 20 @ g).transpose(1, 2))) + y
    out = ours.fusion_norm(ours.fusion(torch.cat([*parts, z], dim=1)).relu()) + x
    out = out.transpose(1, 2)
    torch.testing.assert_close(ours(x.transpose(1, 2), torch.ones(2, 20, dtype=torch.bool)), out)
    scores = model.classifier(model.layers[1](model.layers[0](out).relu()).relu()).sigmoid()[..., 0]
    torch.testing.assert_close(model(x.transpose(1, 2)).scores, scores)


def test_smoothness_within_and_across_videos():
    scores = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    everywhere = torch.ones(2, 2, dtype=torch.bool)
    assert smoothness(scores, everywhere) == 1.0
    assert smoothness(scores, everywhere, across_videos=True) == 1.25
    assert smoothness(torch.tensor([[1.0, 0.0]]), torch.tensor([[True, False]])) == 0.0


@pytest.mark.parametrize("length", [1, 5, 31, 32, 33, 100])
def test_segments(length):
    features = torch.randn(length, 3)
    edges = np.linspace(0, length, 33, dtype=int)
    expected = [features[a:b].mean(0) if a != b else features[a] for a, b in pairwise(edges)]
    torch.testing.assert_close(pool_segments(features, 32), torch.stack(expected))


@torch.no_grad()
def test_a_batch_is_one_by_one(model):
    short, long = torch.randn(7, 12), torch.randn(30, 12)
    features = torch.nn.utils.rnn.pad_sequence([short, long], batch_first=True)
    features[0, 7:] = 100.0  # what stands where no video is does not matter
    mask = torch.arange(30) < torch.tensor([[7], [30]])
    together = model(features, mask).scores
    torch.testing.assert_close(together[0, :7], model(short[None]).scores[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(together[1], model(long[None]).scores[0], atol=1e-6, rtol=1e-5)
    assert not together[0, 7:].any()


@torch.no_grad()
def test_crops_are_averaged(model):
    features = torch.randn(2, 3, 20, 12)
    one_by_one = torch.stack([model(features[:, crop]).scores for crop in range(3)])
    torch.testing.assert_close(model(features).scores, one_by_one.mean(0) if model.config.model_type == "rtfm" else (
        torch.logit(one_by_one).mean(0).sigmoid()), atol=1e-6, rtol=1e-4)  # fmt: skip


def test_files(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    features = torch.randn(1, 30, 12)
    assert torch.equal(loaded(features).scores, model(features).scores)
    assert {**loaded.config.to_dict(), "_name_or_path": ""} == model.config.to_dict()


def test_tuples_are_the_outputs_in_order(model):
    features, labels = torch.randn(2, 20, 12), torch.tensor([0, 1])
    named = model(features, labels=labels)
    assert list(named)[:2] == ["loss", "scores"]
    assert all(value is named[name] for name, value in zip(named, named.to_tuple(), strict=True))
    model.config.return_dict = False
    assert isinstance(model(features), tuple)


@pytest.mark.parametrize("more", [{}, {"objective": "cross_entropy"}])
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_which_segments_are_abnormal(kind, more):
    """From labels of videos alone: in abnormal ones 4 of 32 segments differ."""
    if kind == "rtfm" and more:
        pytest.skip("an option of the other model")
    torch.manual_seed(0)
    options = {"margin": 10, "magnitude_weight": 1e-3} if kind == "rtfm" else {}
    config = KINDS[kind](dropout=0.1, **options, **more)
    config.hidden_size = 32
    model = CLASSES[kind](config).train()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3 if kind == "rtfm" else 2e-2)

    def draw(count):
        features, truth = torch.randn(count, 32, 12), torch.zeros(count, 32, dtype=torch.bool)
        for video in range(1, count, 2):
            first = int(torch.randint(0, 29, ()))
            truth[video, first : first + 4] = True
            features[video, first : first + 4, :3] += 4
        return features, truth, torch.arange(count) % 2

    for _ in range(40 if kind == "rtfm" else 120):
        features, _, labels = draw(16)
        model(features, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    features, truth, _ = draw(64)
    with torch.no_grad():
        scores = model.eval()(features).scores
    from hf_video.evaluation.detection.anomaly import roc_auc

    assert roc_auc(scores.flatten().numpy(), truth.flatten().numpy()) > 0.95


def test_what_makes_no_head(model):
    with pytest.raises(ModelInputError, match="time, 12"):
        model(torch.randn(1, 20, 13))
    with pytest.raises(ModelInputError, match="mask has shape"):
        model(torch.randn(1, 20, 12), torch.ones(1, 19))
    with pytest.raises(ModelInputError, match="3 of 3 videos are abnormal"):
        model(torch.randn(3, 20, 12), labels=torch.ones(3))
    with pytest.raises(ModelInputError, match="2 labels came"):
        model(torch.randn(3, 20, 12), labels=torch.ones(2))
    with pytest.raises(ConfigError, match="margin"):
        KINDS["rtfm"](margin=0)
    with pytest.raises(ConfigError, match="'cross_entropy'"):
        KINDS["mil_ranking"](objective="hinge")
    with pytest.raises(ModelInputError, match="fewer than top_segments"):
        head("rtfm")(torch.randn(2, 2, 12), labels=torch.tensor([0, 1]))
