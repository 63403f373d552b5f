"""ViViT's models 2 to 4 against slow references: the paper's formulas with one product for each frame, place and head.
Plain transformers has model 1 only (see tests/parity/test_stock_vivit.py)."""

from __future__ import annotations

import math

import pytest
import torch
from contract import assert_close, randomise
from test_vivit import TINY
from torch.nn import functional as F

import hf_video

CLASSES = 5


class Reference:
    """Reads a state dict by name; sizes come from its tensors."""

    def __init__(self, model):
        self.w = {name.removeprefix("vivit."): value for name, value in model.state_dict().items()}
        self.heads = model.config.num_attention_heads

    def linear(self, name, x):
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, name, x):
        mean, var = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        return (x - mean) / (var + 1e-6).sqrt() * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def tubelets(self, video):
        """(T, C, H, W) -> list over times of (places, D), each tubelet multiplied out on its own."""
        weight, bias = (self.w[f"embeddings.patch_embeddings.projection.{n}"] for n in ("weight", "bias"))
        _, _, t, p, q = weight.shape
        times, rows, columns = (n // size for n, size in zip((len(video), *video.shape[2:]), (t, p, q), strict=True))
        grid = []
        for i in range(times):
            places = []
            for j in range(rows):
                for k in range(columns):
                    cut = video[i * t : (i + 1) * t, :, j * p : (j + 1) * p, k * q : (k + 1) * q]
                    places.append(torch.einsum("dctpq,tcpq->d", weight, cut) + bias)
            grid.append(torch.stack(places))
        return grid

    def attend(self, name, x, heads=None):
        """(tokens, D) -> the heads' answers (tokens, len(heads) · head_dim), one head after the other."""
        q, k, v = (self.linear(f"{name}.attention.{n}", x) for n in ("query", "key", "value"))
        size = q.shape[1] // self.heads
        answers = []
        for head in range(self.heads) if heads is None else heads:
            cut = slice(head * size, (head + 1) * size)
            probs = (q[:, cut] @ k[:, cut].T / math.sqrt(size)).softmax(-1)
            answers.append(probs @ v[:, cut])
        return torch.cat(answers, dim=1)

    def attention(self, name, x):
        return self.linear(f"{name}.output.dense", self.attend(name, x))

    def mlp(self, block, x):
        hidden = F.gelu(
            self.linear(f"{block}.intermediate.dense", self.norm(f"{block}.layernorm_after", x)), approximate="tanh"
        )
        return x + self.linear(f"{block}.output.dense", hidden)

    def transformer(self, prefix, tokens):
        """Class token, positions, plain blocks, norm: (tokens, D) -> (1 + tokens, D)."""
        x = torch.cat([self.w[f"{prefix}embeddings.cls_token"][0], tokens])
        x = x + self.w[f"{prefix}embeddings.position_embeddings"][0]
        for i in range(2):
            block = f"{prefix}encoder.layer.{i}"
            x = x + self.attention(f"{block}.attention", self.norm(f"{block}.layernorm_before", x))
            x = self.mlp(block, x)
        return self.norm(f"{prefix}layernorm", x)

    def factorized_encoder(self, video):
        frames = [self.transformer("", places)[0] for places in self.tubelets(video)]
        return self.transformer("temporal_", torch.stack(frames))

    def on_grid(self, video, block):
        """Tokens with positions as (times, places, D), through both blocks, to (tokens, D)."""
        x = torch.stack(self.tubelets(video))
        x = x + self.w["embeddings.position_embeddings"].view(x.shape)
        for i in range(2):
            x = block(f"encoder.layer.{i}", x)
        return self.norm("layernorm", x).flatten(0, 1)

    def factorized_self_attention_block(self, video):
        def block(name, x):
            normed = self.norm(f"{name}.temporal_layernorm", x)
            x = x + torch.stack(
                [self.attention(f"{name}.temporal_attention", normed[:, n]) for n in range(x.shape[1])], dim=1
            )
            normed = self.norm(f"{name}.layernorm_before", x)
            x = x + torch.stack([self.attention(f"{name}.attention", normed[t]) for t in range(x.shape[0])])
            return self.mlp(name, x)

        return self.on_grid(video, block)

    def factorized_dot_product_attention(self, video):
        def block(name, x):
            first, second = range(self.heads // 2), range(self.heads // 2, self.heads)
            normed = self.norm(f"{name}.layernorm_before", x)
            core = f"{name}.attention"
            in_time = torch.stack([self.attend(core, normed[:, n], first) for n in range(x.shape[1])], dim=1)
            in_space = torch.stack([self.attend(core, normed[t], second) for t in range(x.shape[0])])
            x = x + self.linear(f"{core}.output.dense", torch.cat([in_time, in_space], dim=-1))
            return self.mlp(name, x)

        return self.on_grid(video, block)


def model(attention_type, **changes):
    config = {**TINY, "attention_type": attention_type, "num_temporal_layers": 2, "num_labels": CLASSES, **changes}
    return randomise(hf_video.VivitForVideoClassification(hf_video.VivitConfig(**config)))


FACTORIZED = ["factorized_encoder", "factorized_self_attention_block", "factorized_dot_product_attention"]


@pytest.mark.parametrize("attention_type", FACTORIZED)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_slow_reference(attention_type, attention):
    ours = model(attention_type)
    ours.set_attn_implementation(attention)
    reference = Reference(ours)
    video = torch.randn(2, 6, 3, 32, 48)
    tokens = torch.stack([getattr(reference, attention_type)(clip) for clip in video])
    assert_close(ours.vivit(video).last_hidden_state, tokens)
    pooled = tokens[:, 0] if attention_type == "factorized_encoder" else tokens.mean(1)
    assert_close(ours(video).logits, reference.linear("classifier", pooled))
    assert ours(video).logits.std() > 0.1


@pytest.mark.parametrize("attention_type", FACTORIZED)
@torch.no_grad()
def test_the_reference_can_fail(attention_type):
    """Time and space mixed up, or positions left out, are far from it."""
    ours = model(attention_type)
    reference = Reference(ours)
    video = torch.randn(1, 6, 3, 32, 48)
    tokens = getattr(reference, attention_type)(video[0])
    for changed in (video.flip(1), video.transpose(3, 4).reshape(video.shape)):
        assert (ours.vivit(changed).last_hidden_state[0] - tokens).abs().max() > 0.05


@torch.no_grad()
def test_attention_maps_are_over_places_and_over_times():
    video = torch.randn(2, 6, 3, 32, 48)
    shapes = {
        "factorized_encoder": ((2 * 3, 4, 7, 7), (2, 4, 4, 4)),
        "factorized_self_attention_block": ((2 * 3, 4, 6, 6), (2 * 6, 4, 3, 3)),
        "factorized_dot_product_attention": ((2 * 3, 2, 6, 6), (2 * 6, 2, 3, 3)),
    }
    for attention_type, (spatial, temporal) in shapes.items():
        output = model(attention_type)(video, output_attentions=True)
        assert output.attentions[0].shape == spatial
        assert output.temporal_attentions[0].shape == temporal


@torch.no_grad()
def test_a_second_transformer_of_another_depth():
    ours = model("factorized_encoder", num_hidden_layers=3, num_temporal_layers=1)
    output = ours(torch.randn(1, 6, 3, 32, 48), output_attentions=True, output_hidden_states=True)
    assert (len(output.attentions), len(output.temporal_attentions), len(output.hidden_states)) == (3, 1, 4)
    groups = ours.layer_groups()
    assert len(groups) == 3 + 1 + 2
    assert all("temporal_encoder.layer.0." in n or "embeddings" in n or "layernorm" in n for n in groups[4])
    assert {n.split(".")[1] for n in groups[-1]} == {"temporal_layernorm", "weight", "bias"}
