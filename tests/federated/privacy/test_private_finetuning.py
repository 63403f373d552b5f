"""`hf-video train --privacy`: one site's fine-tuning, from files to a card that states the guarantee."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from tiny import LABELS, save_tiny, write_clip

from hf_video.cli import main
from hf_video.errors import FederatedError
from hf_video.federated.privacy.ledger import LEDGER_FILE
from hf_video.federated.privacy.tasks import finetune_privately


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for n in range(8):
        path = folder / LABELS[n % 2] / f"{n}.mkv"
        path.parent.mkdir(exist_ok=True)
        write_clip(path, 6, seed=n, height=40, width=40)
    return folder


def test_training_with_privacy(videos, tmp_path, capsys, white_figures):
    model, output = save_tiny(tmp_path / "model"), tmp_path / "run"
    settings = ["training.per_device_train_batch_size=6", "training.max_steps=2", "training.use_cpu=true",
                "training.dataloader_num_workers=0", "training.save_strategy=no"]  # fmt: skip
    options = [part for setting in settings for part in ("--set", setting)]
    words = "video:eps=8,delta=1e-3,clip=0.5"
    assert main(["train", str(videos), "-m", str(model), "-o", str(output), "--privacy", words, "-y", *options]) == 0
    summary = json.loads((output / "training_summary.json").read_text())["privacy"]
    assert 7.9 < summary["epsilon_prv"] <= 8
    assert (summary["unit"], summary["steps"], summary["sample_rates"], summary["clip"]) == ("video", 2, [1.0], 0.5)
    card = (output / "README.md").read_text()
    assert "## Privacy" in card
    assert re.search(r"\*\*\(ε, δ\) = \((7\.9\d|8), 0\.001\)\*\*", card)
    assert json.loads((output / LEDGER_FILE).read_text())["steps"] == 2
    assert "of one video, ε = " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("privacy", "options", "reason"),
    [
        ("client:eps=8", {}, "video:…"),
        ("video:eps=8", {"self_test": True}, "by heart"),
        ("video:eps=8,delta=0.5", {}, "below 1 / "),
        ("video:eps=8,delta=1e-3", {"settings": ["training.max_grad_norm=1.0"]}, "max_grad_norm=1.0"),
        ("video:eps=8,delta=1e-3", {"settings": ["data.repeats=2"]}, "repeats=2"),
    ],
)
def test_what_is_refused(privacy, options, reason, videos, tmp_path):
    model = save_tiny(tmp_path / "model")
    with pytest.raises(FederatedError, match=reason):
        finetune_privately(videos, model, privacy=privacy, output=tmp_path / "run", yes=True, **options)


@pytest.mark.slow
def test_training_without_privacy_imports_none_of_it():
    code = "import sys, hf_video.training.runs.classification; print([m for m in sys.modules if 'federated' in m])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
