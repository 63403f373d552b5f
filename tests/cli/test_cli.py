"""`hf-video`: what is printed where, and with which exit code."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForVideoClassification, pipeline

from hf_video import cli
from hf_video.cli.files import expand_paths


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return str(tiny.save_tiny(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """clips/: clip10.mp4, clip2.mp4, below/clip3.mkv, notes.txt and a hidden file."""
    clips = tmp_path_factory.mktemp("clips")
    (clips / "below").mkdir()
    for seed, name in enumerate(("clip10.mp4", "clip2.mp4", "below/clip3.mkv")):
        tiny.write_clip(clips / name, seed=seed)
    (clips / "notes.txt").write_text("not a video")
    (clips / ".hidden.mp4").write_text("not one either")
    return clips


def run(capsys, *arguments):
    code = cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


# --- classify --------------------------------------------------------------------------------------------------------


def test_json_holds_what_the_pipeline_returns(capsys, model, folder):
    code, out, _ = run(capsys, "classify", folder, "--model", model, "--json", "--views", "2x3", "--top-k", 2)
    assert code == cli.DONE
    rows = json.loads(out)
    assert [os.path.relpath(row["file"], folder) for row in rows] == ["below/clip3.mkv", "clip2.mp4", "clip10.mp4"]
    classify = pipeline("video-classification", model=model, device="cpu")
    for row in rows:
        expected = classify(row["file"], views="2x3", top_k=2)
        assert [p["label"] for p in row["predictions"]] == [p["label"] for p in expected]
        np.testing.assert_allclose([p["score"] for p in row["predictions"]], [p["score"] for p in expected], atol=1e-5)
        assert row["seconds"] == pytest.approx(expected.seconds)


def test_windows_and_lines(capsys, model, folder):
    code, out, _ = run(capsys, "classify", folder, "-m", model, "--jsonl", "--windows", "2s/1s", "--top-k", 0)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == cli.DONE
    assert len(rows) == 3
    assert [w["seconds"] for w in rows[0]["windows"]] == [pytest.approx((0, 2)), pytest.approx((1, 3))]
    assert len(rows[0]["windows"][0]["predictions"]) == len(tiny.LABELS)


def test_tables_are_for_people(capsys, model, folder):
    code, out, err = run(capsys, "classify", folder / "clip2.mp4", "-m", model, "--top-k", 3, "--dtype", "bf16")
    lines = out.splitlines()
    assert code == cli.DONE
    assert lines[0].startswith(str(folder / "clip2.mp4"))
    assert "0.38-2.75 s" in lines[0]
    assert len(lines) == 4
    assert all(line.split()[1] in tiny.LABELS for line in lines[1:])
    assert err == ""
    _, out, _ = run(capsys, "classify", folder / "clip2.mp4", "-m", model, "--windows", "1s", "--top-k", 1)
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["0.00-1.00", "1.00-2.00", "2.00-3.00"]


def test_bad_files_are_named_and_the_others_go_on(capsys, model, folder):
    files = [folder / "notes.txt", folder / "clip2.mp4", folder / "missing.mp4"]
    code, out, err = run(capsys, "classify", *files, "-m", model, "--jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == cli.SOME_FAILED
    assert ["error" in row for row in rows] == [True, False, True]
    assert rows[2]["error"] == "VideoSourceError"
    assert "notes.txt" in err
    assert "missing.mp4" in err
    assert "2 of 3 files" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--model", "/no/such/folder"], "no folder"),
        (["--model", "{folder}"], "no config.json"),
        (["--model", "{model}", "--views", "5x5"], "clips x crops"),
        (["--model", "{model}", "--windows", "x"], "windows"),
        (["--model", "{model}", "--sampler", "unifrom"], "Did you mean 'uniform'"),
        (["--model", "{model}", "--num-frames", "0"], "--num-frames"),
        ([], "--model"),
        (["--model", "{model}", "--json", "--jsonl"], "not allowed"),
    ],
)
def test_wrong_usage_is_2(capsys, model, folder, arguments, hint):
    arguments = [a.format(model=model, folder=folder) for a in arguments]
    code, out, err = run(capsys, "classify", folder / "clip2.mp4", *arguments)
    assert code == cli.WRONG
    assert hint in err
    assert out == ""
    assert "Traceback" not in err


def test_a_broken_model_folder_is_2(capsys, model, folder, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "videomae", "num_frames": 4}')
    code, _, err = run(capsys, "classify", folder / "clip2.mp4", "-m", tmp_path)
    assert code == cli.WRONG
    assert str(tmp_path) in err
    assert "no file named" in err
    assert "Traceback" not in err


def test_interrupts_bugs_and_debug(capsys, monkeypatch, model):
    from hf_video.cli.verbs import info

    def interrupted(options):
        raise KeyboardInterrupt

    def bug(options):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(info, "run", interrupted)
    assert run(capsys, "info")[0] == cli.INTERRUPTED
    monkeypatch.setattr(info, "run", bug)
    code, _, err = run(capsys, "info")
    assert code == cli.BUG
    assert "ZeroDivisionError: oops" in err
    assert "Traceback" not in err
    code, _, err = run(capsys, "info", "--debug")
    assert code == cli.BUG
    assert "Traceback" in err


def test_folders_stand_for_their_videos(folder, tmp_path):
    assert [os.path.basename(f) for f in expand_paths([str(folder)])] == ["clip3.mkv", "clip2.mp4", "clip10.mp4"]
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    assert expand_paths([str(tmp_path), "http://example.org/a.mp4"]) == [str(tmp_path), "http://example.org/a.mp4"]


# --- info ------------------------------------------------------------------------------------------------------------


def test_info_says_versions_and_why_backends_are_off(capsys, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.14.1+cu130")  # a build that the package's own version doesn't name
    code, out, _ = run(capsys, "info", "--json")
    found = json.loads(out)
    assert code == cli.DONE
    assert found["packages"]["torch"] == torch.__version__
    assert "libavcodec" in found["ffmpeg"]
    assert found["backends"]["pyav"]["works"] is True
    assert all(b["works"] or b["why"] for b in found["backends"].values())
    assert found["models"]["videomae"]
    _, out, _ = run(capsys, "info")
    assert all(name in out for name in ("torchcodec", "openvino", "onnxruntime"))
    assert torch.__version__ in out


def test_info_of_a_backend_that_is_there_and_does_not_work(tmp_path, monkeypatch):
    from hf_video.cli.verbs import info

    (tmp_path / "torchcodec").mkdir()
    (tmp_path / "torchcodec" / "__init__.py").write_text("raise RuntimeError('no FFmpeg here\\nlong story')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchcodec"]:
        monkeypatch.delitem(sys.modules, name)
    assert info._try("torchcodec.decoders", "") == {"works": False, "why": "RuntimeError: no FFmpeg here"}


def test_info_of_files(capsys, folder):
    code, out, err = run(capsys, "info", folder / "clip2.mp4", folder / "notes.txt", "--json")
    good, bad = json.loads(out)
    assert code == cli.SOME_FAILED
    assert (good["num_frames"], good["height"], good["width"], good["codec"]) == (24, 48, 80, "h264")
    assert bad["error"] == "NotAVideoError"
    assert "notes.txt" in err
    code, out, _ = run(capsys, "info", folder / "clip2.mp4")
    assert code == cli.DONE
    assert "24 frames, 8.000 fps, 3.000 s, 80x48, h264" in out


# --- convert ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def official(tmp_path_factory):
    """An official VideoMAE checkpoint of 64 channels, as its authors save it."""
    torch.manual_seed(0)
    width, hidden = 64, 128
    state = {
        "patch_embed.proj.weight": torch.randn(width, 3, 2, 16, 16),
        "patch_embed.proj.bias": torch.randn(width),
        "fc_norm.weight": torch.randn(width),
        "fc_norm.bias": torch.randn(width),
        "head.weight": torch.randn(3, width),
        "head.bias": torch.randn(3),
    }
    for name, shape in {
        "norm1.weight": (width,), "norm1.bias": (width,), "norm2.weight": (width,), "norm2.bias": (width,),
        "attn.q_bias": (width,), "attn.v_bias": (width,), "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width), "attn.proj.bias": (width,), "mlp.fc1.weight": (hidden, width),
        "mlp.fc1.bias": (hidden,), "mlp.fc2.weight": (width, hidden), "mlp.fc2.bias": (width,),
    }.items():  # fmt: skip
        state[f"blocks.0.{name}"] = torch.randn(shape)
    path = tmp_path_factory.mktemp("official") / "checkpoint.pth"
    torch.save({"module": state}, path)
    return path


def test_convert_writes_a_folder_that_loads(capsys, official, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("running\nsitting\nwaving\n")
    output = tmp_path / "converted"
    arguments = ["convert", official, "--model-type", "videomae", "--output", output, "--labels", labels]
    arguments += ["--set", "image_size=32", "--set", "num_frames=4", "--processor", "image_mean=[0.5,0.5,0.5]"]
    code, out, err = run(capsys, *arguments)
    assert code == cli.DONE, err
    assert out.strip() == str(output)
    model = AutoModelForVideoClassification.from_pretrained(output)
    assert model.config.id2label == {0: "running", 1: "sitting", 2: "waving"}
    assert model.config.num_frames == 4
    assert list(AutoImageProcessor.from_pretrained(output).image_mean) == [0.5, 0.5, 0.5]
    assert any(file.suffix == ".safetensors" for file in output.iterdir())

    code, _, err = run(capsys, *arguments)
    assert (code, "not empty" in err) == (cli.WRONG, True)
    assert run(capsys, *arguments, "--overwrite")[0] == cli.DONE


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["nope.pth", "--model-type", "videomae"], "No file"),
        (["{official}", "--model-type", "videomea"], "Known: actionformer"),
        (["{official}", "--model-type", "videomae", "--set", "image_size"], "FIELD=VALUE"),
        (["{official}", "--model-type", "videomae", "--labels", "nope.txt"], "can't be read"),
        (["{official}", "--model-type", "timesformer"], "hf-video: error"),
    ],
)
def test_convert_says_what_is_wrong(capsys, official, tmp_path, arguments, hint):
    arguments = [a.format(official=official) for a in arguments]
    code, _, err = run(capsys, "convert", *arguments, "--output", tmp_path / "out")
    assert code == cli.WRONG
    assert hint in err
    assert "Traceback" not in err
