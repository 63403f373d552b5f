"""Numbers and layouts for a processor."""

from __future__ import annotations

from types import SimpleNamespace

import evaluation_models
import pytest
import torch
import transformers
from tiny import save_tiny, write_clip
from transformers import TorchAoConfig

import hf_video
from hf_video.base import fast_numbers
from hf_video.cli import main

SUPPORT = ("get_capabilities", "_is_amx_tile_supported", "_is_avx512_bf16_supported")


@pytest.fixture(params=["amx", "avx512_bf16", "none", "older torch"])
def processor(request, monkeypatch):
    """What torch says of a processor, and whether bfloat16 is fast there."""
    kind = request.param
    told = {"amx_bf16": kind == "amx", "avx512_bf16": kind == "avx512_bf16", "avx512_f": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    if kind == "older torch":
        monkeypatch.delattr(torch.cpu, "get_capabilities")
    for name in SUPPORT[1:]:
        there = kind == "older torch" or name.removeprefix("_is_").startswith(kind)
        monkeypatch.setattr(torch.cpu, name, lambda there=there: there, raising=False)
    fast_numbers.has_bf16.cache_clear()
    yield kind != "none"
    fast_numbers.has_bf16.cache_clear()


def test_command_takes_what_is_fast(processor, tmp_path, monkeypatch, capfd):
    saved, clip = save_tiny(tmp_path / "model"), write_clip(tmp_path / "clip.mkv")
    seen = []
    forward = hf_video.VideoMAEForVideoClassification.forward

    def watched(self, pixel_values, **options):
        seen.append(pixel_values.dtype)
        return forward(self, pixel_values, **options)

    monkeypatch.setattr(hf_video.VideoMAEForVideoClassification, "forward", watched)
    for dtype in ("saved", "auto", "bf16"):
        assert main(["classify", str(clip), "--model", str(saved), "--device", "cpu", "--dtype", dtype]) == 0
    fast = torch.bfloat16 if processor else torch.float32
    assert seen == [torch.float32, fast, torch.bfloat16]
    assert ("half as fast as float32 on this processor" in capfd.readouterr().err) != processor
    assert hf_video.fast_dtype() == fast


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_numbers_that_are_slow_here_are_warned_of(dtype, processor, tmp_path, monkeypatch):
    """Also where they are the checkpoint's own; they are kept."""
    told = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    x86 = {**told, "architecture": "x86_64"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: x86, raising=False)
    fast_numbers.lacks_fp16.cache_clear()
    lines = []
    monkeypatch.setattr("hf_video.pipelines.base.logger.warning_once", lines.append)
    saved = save_tiny(tmp_path / "model")
    pipe = transformers.pipeline("video-classification", model=str(saved), device="cpu", dtype=dtype)
    fast_numbers.lacks_fp16.cache_clear()
    assert pipe.dtype == dtype
    slow = {torch.bfloat16: not processor and "half", torch.float16: "a quarter"}.get(dtype)
    assert [line for line in lines if f"{slow} as fast as float32" in line] == (lines if slow else [])
    assert bool(lines) == bool(slow)
    x86["avx512_fp16"] = True
    assert not fast_numbers.lacks_fp16()
    fast_numbers.lacks_fp16.cache_clear()


@pytest.mark.parametrize(("major", "dtype"), [(7, torch.float32), (8, torch.bfloat16)])
def test_a_gpu_that_emulates_bfloat16_takes_float32(major, dtype, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=major))
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    assert hf_video.fast_dtype("cuda") == dtype


def test_a_quantised_model_stays_as_it_is(tmp_path, monkeypatch):
    torchao = pytest.importorskip("torchao.quantization")
    monkeypatch.setattr(fast_numbers, "has_bf16", lambda: True)
    quantised = TorchAoConfig(torchao.Int8WeightOnlyConfig())
    kind = hf_video.VideoMAEForVideoClassification
    model = kind.from_pretrained(save_tiny(tmp_path), quantization_config=quantised)
    expected = model(clip := torch.randn(1, 4, 3, 32, 32)).logits
    assert hf_video.for_processor(model) is model
    assert torch.equal(model(clip).logits, expected)


@pytest.mark.parametrize("name", ["x3d", "two_stream", "videomae"])
def test_a_model_in_the_layout_of_the_processor_says_the_same(name, monkeypatch):
    monkeypatch.setattr(fast_numbers, "has_bf16", lambda: False)
    model, _ = evaluation_models.make(name)
    model = model.float()
    inputs = {"pixel_values": torch.randn(2, model.config.num_frames, 3, 32, 32)}
    if name == "two_stream":
        inputs["flow_values"] = torch.randn(2, 3, 6, 32, 32)
    with torch.no_grad():
        expected = model(**inputs).logits
        assert hf_video.for_processor(model) is model
        torch.testing.assert_close(model(**inputs).logits, expected, atol=1e-5, rtol=0)
    kernels = [m.weight for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Conv3d)) and m.groups == 1]
    kernels = [one for one in kernels if min(one.shape[1:]) > 1]
    assert all(one.is_contiguous() == (name == "videomae") for one in kernels)
