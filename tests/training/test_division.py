"""One division of data for train, evaluate, probe and resume; and what training says of files that stand twice."""

from __future__ import annotations

import json
import shutil

import pytest

from hf_video.cli import main
from hf_video.data import load_videos
from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.data.sources.division import Division, double_files
from hf_video.errors import CheckpointError
from hf_video.evaluation.rows import evaluation_splits, split_rows
from hf_video.training.runs.classification import finetune
from hf_video.training.runs.probe import probe_model

TINY = {
    "model_type": "videomae", "image_size": 32, "patch_size": 16, "num_frames": 4, "hidden_size": 16,
    "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip
FAST = (
    "training.min_train_steps=0", "training.num_train_epochs=1", "training.per_device_train_batch_size=8",
    "training.dataloader_num_workers=0", "training.report_to=none", "training.use_cpu=true",
)  # fmt: skip


def names(rows):
    return {row.name for row in rows}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder without splits of 24 clips, one of them damaged and one twice under two labels, and a model of it."""
    root = tmp_path_factory.mktemp("division")
    write_moving_glyphs(root / "videos", 24, size=32, speed=4)
    (root / "videos" / "left" / "damaged.mp4").write_bytes(b"no video at all")
    shutil.copy(root / "videos" / "left" / "00000.mp4", root / "videos" / "right" / "again.mp4")
    (root / "tiny.json").write_text(json.dumps(TINY))
    finetune(root / "videos", root / "tiny.json", output=root / "model", settings=FAST, test_size=0.3)
    return root


def test_train_says_what_stands_twice(run, capsys):
    finetune(run / "videos", run / "tiny.json", output=run / "other", settings=FAST, self_test=True)
    splits = load_videos(run / "videos", test_size=0.3)
    (one,) = double_files(splits)
    assert "under different labels" in one
    assert "left/00000.mp4" in one
    assert "right/again.mp4" in one
    summary = json.loads((run / "model" / "training_summary.json").read_text())
    assert summary["data"]["splits"]["train"]["videos"] == len(splits["train"])


def test_double_files(run, tmp_path):
    for name in ("train/a/1", "train/a/2", "train/b/3", "test/a/1", "test/b/4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    clips = sorted((run / "videos" / "up").iterdir())
    for name, clip in (("train/a/1", 0), ("train/a/2", 0), ("train/b/3", 1), ("test/a/1", 2), ("test/b/4", 1)):
        shutil.copy(clips[clip], tmp_path / f"{name}.mp4")
    said = double_files(load_videos(tmp_path))
    assert ["twice in one split" in said[0], "in more than one split" in said[1], len(said)] == [True, True, 2]
    assert "train/b/3.mp4 (train), test/b/4.mp4 (test)" in said[1]


def test_the_plan_has_it(run, tmp_path, capsys):
    finetune(run / "videos", run / "tiny.json", output=tmp_path / "model", settings=FAST)
    assert "note: the same file stands under different labels" in capsys.readouterr().out


def test_evaluate_and_probe_divide_as_training_did(run):
    trained = load_videos(run / "videos", test_size=0.3)
    found = evaluation_splits(run / "videos", run / "model")
    assert {name: names(rows) for name, rows in found.items()} == {name: names(rows) for name, rows in trained.items()}
    assert names(split_rows(run / "videos", "test", run / "model")) == names(trained["test"])
    assert names(evaluation_splits(run / "videos")["test"]) != names(trained["test"])  # that is: the file decides
    report = probe_model(run / "videos", str(run / "model"), output=run / "probe")
    assert (report["train_found"], report["test_found"]) == (len(trained["train"]), len(trained["test"]))
    assert names(evaluation_splits(run / "videos", run / "probe")["test"]) == names(trained["test"])


def test_what_was_typed_wins_and_is_warned_of(run, caplog):
    with caplog.at_level("WARNING"), pytest.MonkeyPatch.context() as patch:
        from hf_video.evaluation import rows as evaluation_rows

        said = []
        patch.setattr(evaluation_rows.logger, "warning", said.append)
        found = evaluation_splits(run / "videos", run / "model", seed=5)
    trained = load_videos(run / "videos", test_size=0.3)["train"]
    overlap = names(found["test"]) & names(trained)
    assert overlap
    assert said[0].startswith(f"{len(overlap)} of the {len(found['test'])} videos")
    assert names(found["test"]) == names(load_videos(run / "videos", seed=5)["test"])


def test_new_videos_are_tested_and_other_data_are_left_alone(run, tmp_path):
    shutil.copytree(run / "videos", tmp_path / "videos")
    write_moving_glyphs(tmp_path / "new", 1, seed=9, size=32, speed=4)
    new = next((tmp_path / "new").rglob("*.mp4"))
    shutil.copy(new, tmp_path / "videos" / "up" / "new.mp4")
    found = evaluation_splits(tmp_path / "videos", run / "model")
    assert names(found["test"]) == {*names(evaluation_splits(run / "videos", run / "model")["test"]), "up/new.mp4"}
    (tmp_path / "videos").rename(tmp_path / "others")
    assert Division.read(run / "model", tmp_path / "others") is None


def test_the_file(run, tmp_path):
    text = (run / "model" / "split.json").read_text()
    assert str(run) not in text
    assert "left" not in text
    content = json.loads(text)
    assert (content["version"], content["data"], content["options"]["test_size"]) == (1, "videos", 0.3)
    (tmp_path / "split.json").write_text(text[:-20])
    with pytest.raises(CheckpointError, match="is damaged"):
        Division.read(tmp_path, run / "videos")


def test_resume_divides_as_before(run, tmp_path, capsys):
    shutil.copytree(run / "model", tmp_path / "model")
    words = ["train", str(run / "videos"), "--model", str(run / "tiny.json"), "--output", str(tmp_path / "model")]
    words += [part for one in FAST for part in ("--set", one)] + ["--test-size", "0.3", "--resume"]
    assert main(words) == 0
    assert "resuming from" in capsys.readouterr().out


def test_formats_by_the_command_line(run, tmp_path, capsys):
    for number, split in ((0, "train"), (1, "test")):
        lines = [f"{path.parent.name}/{path.name}" for path in sorted((run / "videos" / "up").iterdir())[number::2]]
        lines += [f"{path.parent.name}/{path.name}" for path in sorted((run / "videos" / "down").iterdir())[number::2]]
        (tmp_path / f"{split}list01.txt").write_text("\n".join(lines) + "\n")
    words = ["check", str(tmp_path), "--format", "ucf101", "--videos", str(run / "videos"), "--json", "--quick"]
    main(words)
    assert json.loads(capsys.readouterr().out)["classes"] == {
        "test": {"up": 3, "down": 3},
        "train": {"up": 3, "down": 3},
    }
    assert main(["check", str(tmp_path), "--format", "ucf"]) == 2
    assert "ucf101" in capsys.readouterr().err
