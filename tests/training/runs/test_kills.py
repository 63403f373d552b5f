"""Trainings that are killed at any time, also while they write, and go on to the weights of one that was not.

Each training is a fork of this process, which has imported all and trained nothing: a kill costs half a second.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_video.base.written_files import UNFINISHED, check_model_folder
from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.errors import CheckpointError
from hf_video.training.run_folder import ASIDE
from hf_video.training.runs.classification import finetune
from hf_video.training.runs.pretraining import pretrain

pytestmark = pytest.mark.slow
KILLS = 50  # of each verb
TINY = {
    "model_type": "videomae", "image_size": 16, "patch_size": 8, "num_frames": 2, "hidden_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16, "decoder_hidden_size": 8,
    "decoder_num_attention_heads": 1, "decoder_num_hidden_layers": 1, "decoder_intermediate_size": 16,
}  # fmt: skip
SETTINGS = (
    "training.max_steps=6", "training.save_steps=1", "training.per_device_train_batch_size=4",
    "training.dataloader_num_workers=0", "training.report_to=none", "training.use_cpu=true",
    "training.ema_decay=0.9", "model.drop_path_rate=0.2",
)  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_moving_glyphs(folder, 12, num_frames=4, size=16)
    (folder / "tiny.json").write_text(json.dumps(TINY))
    return folder


def started(train, clips: Path, output: Path, *settings: str, **how) -> int:
    """The process number of a child that trains and leaves with 0, or with 1 and a traceback in `output.txt`."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    told = os.open(output.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(told, 1)
    os.dup2(told, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    code = 1
    try:
        train(clips, clips / "tiny.json", output=output, settings=(*SETTINGS, *settings), **how)
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def ended(child: int) -> bool:
    return os.waitpid(child, os.WNOHANG)[0] != 0


@pytest.mark.parametrize("train", [finetune, pretrain])
def test_killed_anywhere_it_goes_on_to_the_same_weights(train, clips, tmp_path):
    begin = time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(started(train, clips, tmp_path / "whole"), 0)[1]) == 0
    length = time.monotonic() - begin
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    assert os.waitstatus_to_exitcode(os.waitpid(started(train, clips, tmp_path / "old", "training.seed=1"), 0)[1]) == 0
    draw, kills, runs, unfinished = random.Random(0), 0, 0, 0
    while kills < KILLS:
        output = tmp_path / f"run{runs}"
        overwrite = runs % 2 == 1  # every second run takes the place of a finished one
        if overwrite:
            shutil.copytree(tmp_path / "old", output)
        finished = False
        while not finished:
            begun = (output / ASIDE / "run.json").exists() or (output / UNFINISHED).exists()
            how = {"resume": True} if begun or not overwrite else {"overwrite": True}
            child, until = started(train, clips, output, **how), time.monotonic() + draw.uniform(0.1, 1.1) * length
            while time.monotonic() < until and not (finished := ended(child)):
                time.sleep(0.002)
            if not finished:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                kills += 1
            told = output.with_suffix(".txt").read_text()
            assert "Traceback" not in told, told
            if (output / UNFINISHED).exists():
                with pytest.raises(CheckpointError, match="not finished"):
                    check_model_folder(output)
                unfinished += 1
            elif output.exists():
                check_model_folder(output)
        found = load_file(output / "model.safetensors")
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        check_model_folder(output)
        shutil.rmtree(output)
        runs += 1
    assert unfinished
