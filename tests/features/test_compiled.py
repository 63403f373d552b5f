"""Compiled encoders: every road goes through them, what they cost is said, and what can't be compiled is refused."""

from __future__ import annotations

import copy
import sysconfig

import evaluation_models
import pytest
import tiny
import tiny_video_text
import torch
from torch import nn
from transformers import pipeline

import hf_video
from hf_video.errors import BackendError, CheckpointError, ModelInputError, VideoOptionError
from hf_video.features import compiled
from hf_video.features.vectors import clip_vectors

COSTLY = {name for name in evaluation_models.CONFIGS if not name.startswith("two_stream")}
NAMES = [pytest.param(name, marks=[pytest.mark.slow] * (name in COSTLY)) for name in evaluation_models.CONFIGS]


class Compiler(list):
    """A backend of `torch.compile` that only counts the graphs."""

    def __call__(self, graph, example_inputs):
        self.append(graph)
        return graph


@pytest.fixture
def compiler():
    torch._dynamo.reset()
    yield Compiler()
    torch._dynamo.reset()


@pytest.fixture
def videomae(tmp_path):
    model = hf_video.VideoMAEForVideoClassification.from_pretrained(tiny.save_tiny(tmp_path / "videomae")).eval()
    del model.videomae.encoder.layer[1:]  # a compiler takes long, block by block
    return model


def clips(count, frames=4, size=32):
    return torch.randn(count, frames, 3, size, size, generator=torch.Generator().manual_seed(count))


def inputs_of(model, count):
    name = hf_video.base.modeling.clip_name(model)
    return {name: clips(count, model.config.num_frames)}


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_labels_and_vectors_go_through_one_graph_for_a_clip_and_one_for_any_number(name, compiler):
    model = evaluation_models.make(name)[0].float().eval()
    if name.startswith("two_stream"):
        with pytest.raises(CheckpointError, match="no encoder that sees clips alone"):
            hf_video.compile_model(model, backend=compiler)
        return
    keys, lines = set(model.state_dict()), []
    for road in (lambda model, inputs: model(**inputs).logits, clip_vectors):
        expected = {count: road(model, inputs_of(model, count)) for count in (1, 2, 3)}
        compiler.clear()
        lines.clear()
        asked = copy.deepcopy(model)  # which is not compiled
        torch._dynamo.reset()
        hf_video.compile_model(asked, backend=compiler, say=lines.append)
        graphs = []
        for count, one in expected.items():
            torch.testing.assert_close(road(asked, inputs_of(model, count)), one, atol=1e-4, rtol=1e-4)
            graphs.append(len(compiler))
        assert graphs == [1, 2, 2]
        assert [line.partition(" ")[0] for line in lines] == [
            "Compiling",
            type(compiled.clip_encoder(model)).__name__,
        ] * 2
    assert set(asked.state_dict()) == keys


@torch.no_grad()
def test_the_tower_of_a_model_of_video_and_text(compiler, tmp_path):
    model = hf_video.VideoCLIPModel.from_pretrained(tiny_video_text.save_videoclip(tmp_path)).eval()
    given = {"pixel_values": clips(2, size=model.config.video_config.image_size)}
    expected = clip_vectors(model, given)
    hf_video.compile_model(model, backend=compiler, say=print)
    torch.testing.assert_close(clip_vectors(model, given), expected)
    assert compiler


@torch.no_grad()
def test_what_is_attached_later_is_seen(videomae, compiler):
    hf_video.compile_model(videomae, backend=compiler, say=print)
    plain = videomae(clips(1)).logits
    layer = videomae.videomae.encoder.layer[0]
    handle = layer.register_forward_hook(lambda module, given, output: (output[0].sin(), *output[1:]))
    changed = videomae(clips(1)).logits
    handle.remove()
    assert not torch.allclose(changed, plain)
    torch.testing.assert_close(videomae(clips(1)).logits, plain)
    layer.layernorm_before = nn.Identity()  # as an adapter exchanges layers
    exchanged = videomae(clips(1)).logits
    videomae.videomae._compiled_call_impl = None
    torch.testing.assert_close(exchanged, videomae(clips(1)).logits)
    assert not torch.allclose(exchanged, plain)


@pytest.mark.slow
def test_training_and_changed_weights(videomae, compiler):
    hf_video.compile_model(videomae, backend=compiler, say=print)
    videomae(clips(2), labels=torch.tensor([0, 1])).loss.backward()
    assert not compiler
    assert all(p.grad is not None for p in videomae.videomae.encoder.parameters())
    with torch.no_grad():
        before = videomae(clips(2)).logits
        videomae.videomae.encoder.layer[0].attention.output.dense.weight.mul_(2)
        after = videomae(clips(2)).logits
    assert compiler
    assert not torch.allclose(before, after)


@pytest.mark.slow
@torch.no_grad()
def test_clips_of_many_sizes(videomae, compiler):
    lines = []
    hf_video.compile_model(videomae, backend=compiler, say=lines.append)
    for frames in range(2, 14, 2):
        assert videomae(clips(1, frames)).logits.shape == (1, 6)
    assert len(compiler) == compiled.MOST_SIZES
    assert [line for line in lines if "Clips of more than 4 sizes came" in line] == lines[-1:]
    count = len(lines)
    videomae(clips(1, 2))
    assert len(lines) == count
    with pytest.raises(ModelInputError, match="expected five dimensions"):
        videomae(clips(1)[0])


@pytest.mark.parametrize(
    ("wrong", "told"), [(lambda x: x * 1.1, "off by 1.0e-01"), (lambda x: x * torch.nan, "off by")]
)
@torch.no_grad()
def test_a_compiler_that_errs_is_found_out(videomae, wrong, told):
    torch._dynamo.reset()

    def backend(graph, example_inputs):
        return lambda *inputs: [wrong(one) for one in graph(*inputs)]

    hf_video.compile_model(videomae, backend=backend, say=print)
    with pytest.raises(CheckpointError, match=told):
        videomae(clips(1))


@torch.no_grad()
def test_a_compiler_that_fails(videomae):
    torch._dynamo.reset()

    def backend(graph, example_inputs):
        raise RuntimeError("no such register")

    hf_video.compile_model(videomae, backend=backend, say=print)
    with pytest.raises(CheckpointError, match=r"can't compile VideoMAEModel: .*no such register"):
        videomae(clips(1))


def test_what_cannot_be_compiled(videomae, monkeypatch, tmp_path):
    hooked = copy.deepcopy(videomae)
    hooked.videomae.encoder.layer[0].register_forward_hook(print)
    dropping = copy.deepcopy(videomae)
    dropping.config.static_patches = "drop"
    export = copy.deepcopy(videomae)
    export.graphs, export.folder = {}, tmp_path
    events = hf_video.ActionFormerForTemporalActionDetection(hf_video.ActionFormerConfig(hidden_size=16, neck_size=16))
    for model, told in (
        (hooked, "hooks are attached"),
        (dropping, "size of its own"),
        (export, "is an export"),
        (events, "no encoder that sees clips alone"),
    ):
        with pytest.raises(CheckpointError, match=told):
            hf_video.compile_model(model, backend="eager")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(BackendError, match=r"no .*Python\.h"):
        hf_video.compile_model(videomae)

    def missing():
        raise RuntimeError("No working C++ compiler found: g++")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", missing)
    with pytest.raises(BackendError, match=r"needs a C\+\+ compiler.*g\+\+.*apt install"):
        hf_video.compile_model(videomae)


@pytest.mark.slow
@torch.inference_mode()
def test_torchs_own_compiler(videomae):
    torch._dynamo.reset()
    expected, lines = videomae(clips(2)).logits, []
    torch.testing.assert_close(hf_video.compile_model(videomae, say=lines.append)(clips(2)).logits, expected)
    assert "was compiled in" in lines[1]


# -- where it is asked for ---------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch, compiler):
    """`Module.compile` with a compiler that takes no time, and without asking for one of C++."""
    monkeypatch.setattr(compiled, "check_compiler", lambda device: None)
    plain = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **given: plain(self, **{**given, "backend": compiler}))
    return compiler


def test_pipeline(tmp_path, counted, monkeypatch):
    saved, clip = tiny.save_tiny(tmp_path / "model"), tiny.write_clip(tmp_path / "clip.mkv")
    expected = pipeline("video-classification", model=saved, device="cpu")([str(clip)] * 3, batch_size=2)
    lines = []
    monkeypatch.setattr(compiled.logger, "warning", lines.append)
    classify = pipeline("video-classification", model=saved, device="cpu", compile=True)
    found = classify([str(clip)] * 3, batch_size=2, num_workers=1)
    for one, other in zip(found, expected, strict=True):
        assert [row["label"] for row in one] == [row["label"] for row in other]
        assert [row["score"] for row in one] == pytest.approx([row["score"] for row in other], abs=1e-5)
    assert len(counted) == 2  # for a batch, and for the one clip that was left
    assert "Compiling VideoMAEModel for clips (2, 4, 3, 32, 32)" in lines[0]
    assert "was compiled in" in lines[1]
    with pytest.raises(VideoOptionError, match="of the pipeline, not of a call"):
        classify(str(clip), compile=True)
    with pytest.raises(VideoOptionError, match="compile='yes' must be True or False"):
        pipeline("video-classification", model=saved, device="cpu", compile="yes")


@pytest.mark.parametrize(
    "verb", ["classify", "embed", "detect", "probe", pytest.param("evaluate", marks=pytest.mark.slow)]
)
def test_command(verb, tmp_path, counted, capfd):
    from hf_video.cli import main

    saved = tiny.save_tiny(tmp_path / "model")
    for label in tiny.LABELS[:2]:
        (tmp_path / "videos" / label).mkdir(parents=True)
        for seed in range(6 if verb == "probe" else 1):
            tiny.write_clip(tmp_path / "videos" / label / f"{seed}.mkv", seed=seed)
    more = {"embed": ["--output", str(tmp_path / "out")], "evaluate": ["--split", "all"]}.get(verb, [])
    given = [str(tmp_path / "videos"), "--model", str(saved), "--device", "cpu", "--compile", *more]
    assert main([verb, *given]) == 0
    told = capfd.readouterr().err
    assert "hf-video: Compiling VideoMAEModel for clips" in told
    assert "hf-video: VideoMAEModel was compiled in" in told
    assert counted
