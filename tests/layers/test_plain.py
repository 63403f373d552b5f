"""The guard that shortcuts ask, and that they are taken where it says yes."""

from __future__ import annotations

import copy

import accelerate
import pytest
import torch
from contract import assert_close, randomise
from contract_layers import HOOKS, WEIGHTS
from torch import nn

from hf_video.layers.convolution import BatchNorm, ConvNormAct
from hf_video.layers.embeddings import PatchEmbedding, Tables
from hf_video.layers.linear import chain, is_plain, side_by_side
from hf_video.layers.vit import SplitSelfAttention
from hf_video.models.vivit.configuration_vivit import VivitConfig

KINDS = {nn.Linear: (4, 4), nn.Conv2d: (4, 4, 1), nn.Conv3d: (4, 4, 1), BatchNorm: (4,)}
CLIP = torch.randn(2, 4, 3, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_as_it_was_made_is_plain(kind):
    layer = kind(*KINDS[kind])
    for same in (layer, copy.deepcopy(layer), layer.eval(), layer.requires_grad_(False), layer.bfloat16()):
        assert is_plain(same, kind)
    handle = layer.register_forward_hook(print)
    handle.remove()
    assert is_plain(layer, kind)


@pytest.mark.parametrize("hook", [*HOOKS, "state_dict_pre_hook"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_hooked_layer_is_not(kind, hook):
    layer = kind(*KINDS[kind])
    getattr(layer, f"register_{hook}")(lambda *_: None)
    assert is_plain(layer, kind) == (hook == "state_dict_pre_hook")  # which is no part of a call


@pytest.mark.parametrize("hook", HOOKS)
def test_none_is_while_all_modules_are_hooked(hook):
    layer = nn.Linear(4, 4)
    handle = getattr(nn.modules.module, f"register_module_{hook}")(lambda *_: None)
    try:
        assert not is_plain(layer, nn.Linear)
    finally:
        handle.remove()
    assert is_plain(layer, nn.Linear)


@pytest.mark.parametrize("way", WEIGHTS)
def test_a_layer_whose_weight_is_worked_out_is_not(way):
    layer, (change, undo) = nn.Linear(4, 4), WEIGHTS[way]
    change(layer)
    assert not is_plain(layer, nn.Linear)
    undo(layer)
    assert is_plain(layer, nn.Linear)


def quantised(layer: nn.Linear) -> nn.Linear:
    torchao = pytest.importorskip("torchao.quantization")
    torchao.quantize_(layer, torchao.Int8WeightOnlyConfig())
    return layer


def with_forward(layer: nn.Linear) -> nn.Linear:
    layer.forward = lambda x: x
    return layer


def with_weight(layer: nn.Linear, weight: torch.Tensor) -> nn.Linear:
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


OTHERS = {
    "a subclass": lambda x: type("Adapted", (nn.Linear,), {})(4, 4),
    "another module": lambda x: nn.Sequential(x),
    "quantised": quantised,
    "a forward of its own": with_forward,
    "offloaded": lambda x: accelerate.cpu_offload(x, execution_device="cpu"),
    "on meta": lambda x: x.to("meta"),
    "sparse": lambda x: with_weight(x, x.weight.detach().to_sparse()),
    "a tensor's subclass": lambda x: with_weight(x, x.weight.detach().as_subclass(type("Named", (torch.Tensor,), {}))),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_more_than_its_weights_is_not(other):
    assert not is_plain(OTHERS[other](nn.Linear(4, 4)), nn.Linear)


@pytest.fixture
def uncallable(monkeypatch):
    """Layers that say so when they are called."""

    def forward(self, *_):
        raise AssertionError(f"{type(self).__name__} was called")

    for kind in (nn.Linear, nn.Conv2d, nn.Conv3d, nn.BatchNorm3d):
        monkeypatch.setattr(kind, "forward", forward)


def test_shortcuts_are_taken_where_layers_are_plain(uncallable):
    x = torch.randn(2, 40, 12)
    layers = [nn.Linear(12, 12) for _ in range(3)]
    assert side_by_side(x, tuple(layers)).shape == (2, 40, 36)
    assert chain(x, *layers[:2]).shape == x.shape
    config = VivitConfig(hidden_size=12, num_attention_heads=3, attn_implementation="sdpa")
    assert SplitSelfAttention(config, 12, 3)(x)[0].shape == x.shape
    for dims, patch in ((3, (2, 4, 3)), (2, (1, 4, 3))):
        embedding = PatchEmbedding(3, 7, patch, dims=dims)
        assert embedding(CLIP).shape == (2, 32 // patch[0], 7)
        assert embedding(CLIP, torch.tensor([[0, 3], [1, 2]])).shape == (2, 2, 7)
    assert ConvNormAct(3, 5).eval()(CLIP.transpose(1, 2)).shape == (2, 5, 4, 8, 12)


@pytest.mark.parametrize("how", ["compile", "export"])
def test_shortcuts_are_taken_in_graphs(how):
    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.conv = PatchEmbedding(3, 7, (2, 4, 3)), ConvNormAct(3, 5)
            self.layers = nn.ModuleList(nn.Linear(7, 7) for _ in range(3))

        def forward(self, clip):
            return side_by_side(self.patches(clip), tuple(self.layers)), self.conv(clip.transpose(1, 2))

    model, graphs = randomise(Layers()), []
    if how == "export":
        graphs.append(torch.export.export(model, (CLIP,)).graph_module)
    else:
        torch._dynamo.reset()
        found = torch.compile(model, backend=lambda graph, _: graphs.append(graph) or graph, fullgraph=True)(CLIP)
        assert_close(found, model(CLIP), atol=0)
    (graph,) = graphs
    targets = [str(node.target) for node in graph.graph.nodes if node.op.startswith("call")]
    assert sum("conv3d" in target for target in targets) == 1
    assert not any("batch_norm" in target for target in targets)
    assert sum("linear" in target for target in targets) == 2


@pytest.mark.parametrize(("dims", "patch"), [(3, (2, 4, 3)), (2, (1, 4, 3))])
def test_a_hooked_patch_embedding_sees_clips_and_chosen_patches(dims, patch):
    """As the convolution that it is would: the whole clip; or, of an index, a clip of one patch for each."""
    embedding, seen = randomise(PatchEmbedding(3, 7, patch, dims=dims)), []
    index = torch.tensor([[0, 15, 3], [7, 8, 9]])
    expected = embedding(CLIP), embedding(CLIP, index)
    embedding.projection.register_forward_hook(lambda layer, given, output: seen.append(tuple(given[0].shape)))
    assert_close((embedding(CLIP), embedding(CLIP, index)), expected, atol=3e-6)
    whole = (2, 3, 4, 8, 12) if dims == 3 else (8, 3, 8, 12)
    assert seen == [whole, (6, 3, *patch[3 - dims :])]


@pytest.mark.parametrize("training", [False, True])
def test_maps_that_hooks_have_seen_are_not_written_to(training):
    unit, maps = randomise(ConvNormAct(3, 5)).train(training), []
    unit.norm.register_forward_hook(lambda layer, given, output: maps.append((output, output.clone())))
    assert unit(CLIP.transpose(1, 2)).min() == 0
    ((kept, copied),) = maps
    assert copied.min() < 0
    assert_close(kept, copied, atol=0)


def test_tables_go_where_the_model_goes_and_keep_their_values():
    class Counted(Tables):
        def __init__(self):
            super().__init__(numbers=torch.arange(3.0), even=torch.arange(3) % 2 == 0)

    tables, cpu, meta = Counted(), torch.device("cpu"), torch.device("meta")
    assert not list(tables.buffers())
    for moved in (tables, tables.half(), tables.to("meta").to_empty(device="cpu"), copy.deepcopy(tables).double()):
        assert_close(moved.table("numbers", cpu), torch.arange(3.0), atol=0)
        assert moved.table("even", cpu).tolist() == [True, False, True]
    assert tables.table("numbers", meta).is_meta
    assert_close(tables.table("numbers", cpu), torch.arange(3.0), atol=0)
