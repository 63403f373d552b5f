"""What every model must do with its layers: call each, whatever somebody made of it, and start none from memory that
nobody filled. Shortcuts past a layer are for plain ones only (`hf_video.layers.linear`).

A part of `contract.ModelContract`; models of video and text, whose contract is their own, inherit it by itself.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable
from typing import ClassVar

import accelerate
import pytest
import torch
import transformers
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.Embedding)
HOOKS = ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook")


def layers_of(model: nn.Module, kinds: tuple[type, ...] = LAYERS) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def remove(layer: nn.Module) -> None:
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


class Negative(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return -weight


# Ways to make a layer's weight something else than its parameter, and to make a plain parameter of it again.
WEIGHTS: dict[str, tuple[Callable, Callable]] = {
    "pruned": (lambda x: prune.random_unstructured(x, "weight", 0.5), lambda x: prune.remove(x, "weight")),
    "weight_norm": (parametrizations.weight_norm, remove),
    "old_weight_norm": (nn.utils.weight_norm, nn.utils.remove_weight_norm),
    "spectral_norm": (parametrizations.spectral_norm, remove),
    "old_spectral_norm": (nn.utils.spectral_norm, nn.utils.remove_spectral_norm),
    "parametrized": (lambda x: parametrize.register_parametrization(x, "weight", Negative()), remove),
}


def torchao(name: str) -> transformers.TorchAoConfig:
    return transformers.TorchAoConfig(getattr(pytest.importorskip("torchao.quantization"), name)())


QUANTISED: dict[str, Callable] = {
    "torchao weights": lambda: torchao("Int8WeightOnlyConfig"),
    "torchao": lambda: torchao("Int8DynamicActivationInt8WeightConfig"),
    "quanto weights": lambda: pytest.importorskip("optimum.quanto") and transformers.QuantoConfig(weights="int8"),
    "bitsandbytes": lambda: pytest.importorskip("bitsandbytes") and transformers.BitsAndBytesConfig(load_in_8bit=True),
}


def of_whole_contracts(test: Callable) -> Callable:
    """Marks a test that variants of a model are spared."""
    test.of_whole_contracts = True
    return test


def is_rounded(weight) -> bool:
    return type(weight).__module__.startswith(("torchao.", "optimum.", "bitsandbytes."))


@contextlib.contextmanager
def poisoned_memory():
    """Memory that nobody filled holds NaN and the largest integers, not the zeros that it happens to hold."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert torch.empty(1).isnan()
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def answer(model: nn.Module, inputs: dict) -> torch.Tensor:
    """Logits, or the states of a model without a head."""
    model.eval()
    torch.manual_seed(0)  # what pretraining draws
    with torch.no_grad():
        output = model(**inputs)
    names = ("logits", "logits_per_video", "mvm_logits", "last_hidden_state")
    return next(output[name] for name in names if name in output).clone()


def version(output) -> int | None:
    """How often a tensor was written to."""
    return output._version if torch.is_tensor(output) else None


def assert_same(found: torch.Tensor, expected: torch.Tensor, share: float = 1e-5) -> None:
    """Equal but for rounding, a share of the largest value."""
    torch.testing.assert_close(found, expected, atol=share * float(expected.abs().max()), rtol=0)


class LayerContract:
    """The contract. A subclass makes models and inputs, as `contract.ModelContract` does."""

    uncalled: ClassVar[str] = "$^"  # pattern of layers that a call doesn't need
    unreached: ClassVar[str] = "$^"  # pattern of those that are called and don't move the answer

    def loss(self, model, inputs) -> torch.Tensor:
        raise NotImplementedError

    @pytest.mark.no_cover
    @pytest.mark.parametrize("training", [False, True])
    def test_hooks_of_every_layer_fire(self, layered, training):
        """In and out of training; and what hooks see is not changed behind their backs."""
        model, inputs = self.model(layered), self.inputs(layered)
        expected, fired, kept = answer(model, inputs), set(), []
        layers = {n: m for n, m in model.named_modules() if n and any(True for _ in m.parameters(recurse=False))}
        for name, layer in layers.items():
            for hook in HOOKS:
                getattr(layer, f"register_{hook}")(lambda *_, key=(name, hook): fired.add(key))
            layer.register_forward_hook(lambda layer, given, output: kept.append((output, version(output))))
        assert_same(answer(model, inputs), expected)
        fired.clear()
        self.loss(model.train(training), inputs).backward()
        needed = {name for name in layers if not re.search(self.uncalled, name)}
        assert {(name, hook) for name in needed for hook in HOOKS} <= fired
        assert all(version(output) == seen for output, seen in kept)

    @pytest.mark.no_cover
    def test_hooks_of_what_holds_layers_fire(self, layered):
        """Of attentions, MLPs, blocks: whatever can be called but a whole model."""
        model, inputs, fired = self.model(layered), self.inputs(layered), set()
        holders = {
            name: module
            for name, module in model.named_modules()
            if any(True for _ in module.children())
            and not isinstance(module, (nn.ModuleList, nn.ModuleDict, transformers.PreTrainedModel))
            and type(module).forward is not nn.Module.forward
            and not re.search(self.uncalled, name)
        }
        for name, module in holders.items():
            module.register_forward_hook(lambda *_, name=name: fired.add(name))
        answer(model, inputs)
        assert fired == set(holders)

    @pytest.mark.no_cover
    def test_adapters_count_on_every_layer(self, layered):
        """LoRA on each Linear, convolution and Embedding: every one moves the answer, as much as it does merged."""
        peft = pytest.importorskip("peft")
        model, inputs = self.model(layered), self.inputs(layered)
        plain, layers = answer(model, inputs), layers_of(model)
        flat = any(layer.kernel_size[:2] == (1, 1) for layer in layers_of(model, (nn.Conv3d,)).values())
        groups = {name: layer.groups for name, layer in layers.items() if getattr(layer, "groups", 1) > 1}
        config = peft.LoraConfig(
            r=2, lora_alpha=2, target_modules=list(layers), rank_pattern=groups, init_lora_weights=False
        )
        adapted = peft.get_peft_model(model, config)
        with_adapters = answer(adapted, inputs)
        assert (with_adapters - plain).abs().max() > 1e-3 * plain.abs().max()
        self.loss(adapted, inputs).backward()
        still = {n for n, p in adapted.named_parameters() if "lora_" in n and not (p.grad is not None and p.grad.any())}
        assert not {name for name in still if not re.search(f"{self.uncalled}|{self.unreached}", name)}
        if not (groups or flat):  # which PEFT can't merge
            assert_same(answer(adapted.merge_and_unload(), inputs), with_adapters, 1e-4)

    @of_whole_contracts
    @pytest.mark.no_cover
    @pytest.mark.parametrize("way", WEIGHTS)
    def test_weights_that_are_worked_out_count(self, shaped, way):
        model, inputs = self.model(shaped), self.inputs(shaped)
        plain, (change, undo) = answer(model, inputs), WEIGHTS[way]
        layers = layers_of(model, (nn.Linear, nn.Conv2d, nn.Conv3d))
        start = {name: parameter.clone() for name, parameter in model.named_parameters()}
        for layer in layers.values():
            torch.manual_seed(0)
            change(layer)
        with torch.no_grad():  # as training does, and loading: what the layer has as its weight is then out of date
            for name, parameter in model.named_parameters():
                if name.endswith(("weight_g", "weight_orig", "original0", "original")):
                    parameter *= 1.25
        changed = answer(model, inputs)
        assert (changed - plain).abs().max() > 1e-3 * plain.abs().max()
        for layer in layers.values():
            undo(layer)
        assert_same(answer(model, inputs), changed, 1e-3 if "spectral" in way else 1e-5)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(start[name])
        assert_same(answer(model, inputs), plain)

    @of_whole_contracts
    @pytest.mark.no_cover
    @pytest.mark.parametrize("scheme", QUANTISED)
    def test_quantised_is_close(self, shaped, scheme, tmp_path):
        """Int8 layers are called. Where only weights are rounded, the answer is that of a model with these weights."""
        model, inputs = self.model(shaped), self.inputs(shaped)
        expected = answer(model, inputs)
        model.save_pretrained(tmp_path)
        config = QUANTISED[scheme]()
        quantised = type(model).from_pretrained(tmp_path, quantization_config=config, device_map={"": "cpu"})
        found = answer(quantised, inputs)
        weights = {name: getattr(layer, "weight", None) for name, layer in quantised.named_modules()}
        assert any(map(is_rounded, weights.values()))
        assert (found - expected).norm() < 0.06 * expected.norm()  # so few channels hardly average anything
        if "weights" in scheme:
            with torch.no_grad():
                for name, weight in weights.items():
                    if is_rounded(weight):
                        model.get_submodule(name).weight.copy_(weight.dequantize())
            assert_same(found, answer(model, inputs), 1e-3)

    @pytest.mark.no_cover
    def test_offloaded_is_plain(self, layered, tmp_path):
        model, inputs = self.model(layered), self.inputs(layered)
        expected, cls = answer(model, inputs), type(model)
        model.save_pretrained(tmp_path / "saved")
        offloaded = [
            accelerate.cpu_offload(copy.deepcopy(model), execution_device="cpu", offload_buffers=True),
            accelerate.disk_offload(copy.deepcopy(model), tmp_path / "disk", execution_device="cpu"),
            cls.from_pretrained(tmp_path / "saved", device_map={"": "disk"}, offload_folder=str(tmp_path / "folder")),
        ]
        for other in offloaded:
            assert all(p.is_meta for p in other.parameters())
            assert_same(answer(other, inputs), expected)

    @pytest.mark.no_cover
    def test_made_without_memory_and_filled_is_loaded(self, layered, tmp_path):
        model, inputs = self.model(layered), self.inputs(layered)
        expected, state, cls = answer(model, inputs), model.state_dict(), type(model)
        model.save_pretrained(tmp_path)
        with poisoned_memory():
            for assign in (False, True):
                with torch.device("meta"):
                    empty = cls(copy.deepcopy(model.config))
                empty = empty if assign else empty.to_empty(device="cpu")
                empty.load_state_dict(state, assign=assign)
                assert_same(answer(copy.deepcopy(empty), inputs), expected)
            emptied = copy.deepcopy(model).to_empty(device="cpu")
            emptied.load_state_dict(state)
            assert_same(answer(emptied, inputs), expected)
            with accelerate.init_empty_weights():
                empty = cls(copy.deepcopy(model.config))
            file = str(tmp_path / "model.safetensors")
            dispatched = accelerate.load_checkpoint_and_dispatch(empty, file, device_map={"": "cpu"})
            assert_same(answer(dispatched, inputs), expected)

    @pytest.mark.no_cover
    def test_nothing_starts_from_what_memory_held(self, layered):
        """A checkpoint that holds nothing: every parameter and buffer is initialised, and as the class itself does."""
        config, cls = self.model(layered).config, type(self.model(layered))
        loaded = []
        with poisoned_memory():
            for make in (lambda: cls.from_pretrained(None, config=copy.deepcopy(config), state_dict={}),) * 2 + (
                lambda: cls(copy.deepcopy(config)),
            ):
                torch.manual_seed(0)
                model = make()
                loaded.append({**dict(model.named_parameters()), **dict(model.named_buffers())})
        first, second, made = loaded
        assert list(first) == list(made)
        for name, value in first.items():
            assert torch.equal(value, second[name]), name
            if value.is_floating_point():
                assert value.isfinite().all(), name
            if made[name].unique().numel() == 1 or not value.is_floating_point():
                assert torch.equal(value, made[name]), name
            else:
                spread = made[name].detach().std()
                assert spread / 3 < value.detach().std() < spread * 3, name
