"""What needs processes of its own: being killed, several at once, plain transformers, and a whole training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training.runs.test_finetune import TINY

from hf_video.data.moving_glyphs import write_moving_glyphs

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
QUIET = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
BASE = ("training.report_to=none", "training.use_cpu=true", "training.logging_steps=1", "training.min_train_steps=0")


def command(*arguments, processes: int = 1) -> list[str]:
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--master_port=29531"]
    return [*launch, "-m", "hf_video.cli", *map(str, arguments)]


def train(folder, model, output, *settings, processes=1, extra=(), **environment):
    arguments = ["train", folder, "--model", model, "--output", output, *extra]
    for setting in (*BASE, *settings):
        arguments += ["--set", setting]
    return subprocess.Popen(
        command(*arguments, processes=processes),
        env={**os.environ, **QUIET, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finished(process) -> str:
    told = process.communicate(timeout=900)[0]
    assert process.returncode == 0, told[-3000:]
    return told


def logged(output) -> list[float]:
    states = sorted(
        Path(output).glob("checkpoint-*/trainer_state.json"), key=lambda p: int(p.parent.name.split("-")[1])
    )
    return [entry["loss"] for entry in json.loads(states[-1].read_text())["log_history"] if "loss" in entry]


def same_weights(one, other, tolerance):
    left, right = (load_file(Path(folder) / "model.safetensors") for folder in (one, other))
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_moving_glyphs(folder / "train", 44, size=32, speed=4)
    write_moving_glyphs(folder / "test", 8, seed=1, size=32, speed=4)
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    path.write_text(json.dumps(TINY))
    return path


EVERYTHING = (
    "mixing.mixup=0.8", "model.drop_path_rate=0.2", "training.ema_decay=0.9", "data.repeats=2",
    "augmentation.color_jitter=0.4", "augmentation.rand_augment=m7-n4-mstd0.5-inc1", "augmentation.erase_prob=0.25",
    "training.dataloader_num_workers=2", "training.per_device_train_batch_size=8", "training.num_train_epochs=8",
    "training.save_steps=3", "training.save_total_limit=50",
)  # fmt: skip


def test_killed_and_resumed(clips, config, tmp_path):
    """kill -9, twice, at whatever moment: the weights of a run that was left alone."""
    whole = train(clips, config, tmp_path / "whole", *EVERYTHING)
    finished(whole)
    for after in (2, 5):
        broken = train(clips, config, tmp_path / "broken", *EVERYTHING, extra=["--resume"])
        deadline = time.monotonic() + 300
        while len(list((tmp_path / "broken").glob("checkpoint-*"))) < after and time.monotonic() < deadline:
            time.sleep(0.02)
        assert broken.poll() is None, "it was done before it could be killed"
        os.kill(broken.pid, signal.SIGKILL)
        broken.communicate()
    told = finished(train(clips, config, tmp_path / "broken", *EVERYTHING, extra=["--resume"]))
    assert "resuming from" in told
    same_weights(tmp_path / "whole", tmp_path / "broken", 1e-6)


def test_eight_is_two_times_four_is_two_processes(clips, config, tmp_path):
    settings = ("training.num_train_epochs=2", "training.dataloader_num_workers=1", "training.layer_decay=0.75")
    ways = {
        "whole": (1, 8, 1),
        "accumulated": (1, 2, 4),
        "processes": (2, 4, 1),
    }
    for name, (processes, size, steps) in ways.items():
        batch = (f"training.per_device_train_batch_size={size}", f"training.gradient_accumulation_steps={steps}")
        finished(train(clips, config, tmp_path / name, *settings, *batch, processes=processes))
    for name in ("accumulated", "processes"):
        assert logged(tmp_path / name) == pytest.approx(logged(tmp_path / "whole"), abs=1e-5)
        same_weights(tmp_path / "whole", tmp_path / name, 1e-5)


def test_resumed_on_two_processes(clips, config, tmp_path):
    settings = (
        "training.num_train_epochs=4", "training.per_device_train_batch_size=4", "training.save_steps=4",
        "model.drop_path_rate=0.2", "training.save_total_limit=50", "training.ema_decay=0.9",
    )  # fmt: skip
    finished(train(clips, config, tmp_path / "whole", *settings, processes=2))
    finished(train(clips, config, tmp_path / "broken", *settings, processes=2))
    for path in (tmp_path / "broken").glob("checkpoint-*"):
        if int(path.name.split("-")[1]) > 8:  # in the second of four epochs
            for file in path.iterdir():
                file.unlink()
    finished(train(clips, config, tmp_path / "broken", *settings, processes=2, extra=["--resume"]))
    same_weights(tmp_path / "whole", tmp_path / "broken", 1e-6)


MODELS = {
    "videomae": {"intermediate_size": 256, "num_hidden_layers": 4},
    "timesformer": {"intermediate_size": 256, "num_hidden_layers": 2, "patch_size": 8},
    "vivit": {"intermediate_size": 256, "num_hidden_layers": 4, "tubelet_size": [2, 16, 16]},
}
LOAD = """
import sys, torch
sys.path.insert(0, "")
from transformers import AutoModelForVideoClassification
model = AutoModelForVideoClassification.from_pretrained(sys.argv[1]).eval()
assert "hf_video" not in sys.modules and not type(model).__module__.startswith("hf_video"), type(model).__module__
clip = torch.load(sys.argv[2])
torch.save(model(clip).logits.detach(), sys.argv[3])
"""
LABEL = """
import json, sys
import hf_video
from transformers import pipeline
classify = pipeline("video-classification", model=sys.argv[1])
print(json.dumps([answer[0]["label"] for answer in classify(sys.argv[2:], top_k=1)]))
"""


@pytest.mark.parametrize("model_type", MODELS)
def test_from_a_folder_to_a_model(model_type, tmp_path):
    """Files and a tiny configuration in; a model out that is right on 95 % of the test, in pipelines, and in plain
    transformers with equal logits."""
    import hf_video

    write_moving_glyphs(tmp_path / "videos", 400)
    settings = {
        "image_size": 64,
        "num_frames": 8,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "model_type": model_type,
    }
    (tmp_path / "tiny.json").write_text(json.dumps({**settings, **MODELS[model_type]}))
    arguments = ["train", tmp_path / "videos", "--model", tmp_path / "tiny.json", "--output", tmp_path / "model"]
    environment = {**os.environ, **QUIET}
    subprocess.run(command(*arguments, "--set", "training.report_to=none"), env=environment, check=True)
    summary = json.loads((tmp_path / "model" / "training_summary.json").read_text())
    assert summary["evaluation"]["test"]["top1"] >= 0.95

    held_out = write_moving_glyphs(tmp_path / "more", 20, seed=7)
    told = subprocess.run(
        [sys.executable, "-c", LABEL, tmp_path / "model", *held_out], env=environment, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr[-2000:]
    answers = json.loads(told.stdout.splitlines()[-1])
    assert sum(a == p.parent.name for a, p in zip(answers, held_out, strict=True)) >= 19

    clip = torch.randn(2, 8, 3, 64, 64)
    torch.save(clip, tmp_path / "clip.pt")
    plain = {**os.environ, "HF_VIDEO_OVERRIDE": "0", "OMP_NUM_THREADS": "1"}
    files = [str(tmp_path / name) for name in ("model", "clip.pt", "logits.pt")]
    subprocess.run([sys.executable, "-c", LOAD, *files], env=plain, check=True, cwd=tmp_path)
    row = hf_video.MODELS[model_type]
    ours = row.load(row.auto["AutoModelForVideoClassification"]).from_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), ours(clip).logits, rtol=0, atol=1e-5)
