"""`hf-video classify --output`, `--threshold`, `--labels-of-interest`, `--alert`: tables, alerts, exit codes, and runs
that go on."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

import hf_video
from hf_video import cli
from hf_video.cli import label_files


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Six clips and a file that is none."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(6):
        tiny.write_clip(folder / f"{number}.mp4", 8, seed=number)
    (folder / "broken.mp4").write_bytes(b"no video" * 50)
    return folder


@pytest.fixture(scope="module")
def found(clips, model):
    """What the pipeline says: all labels of each good file."""
    classify = hf_video.VideoClassificationPipeline(
        hf_video.VideoMAEForVideoClassification.from_pretrained(model),
        image_processor=hf_video.VideoMAEImageProcessor.from_pretrained(model),
    )
    return {str(clips / f"{n}.mp4"): classify(str(clips / f"{n}.mp4"), top_k=None) for n in range(6)}


def run(capsys, *words):
    code = cli.main(["classify", *map(str, words), "--quiet"])
    return code, *capsys.readouterr()


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def middle_threshold(found):
    """One that some videos pass with their best label, and others don't."""
    best = sorted(scores[0]["score"] for scores in found.values())
    return (best[2] + best[3]) / 2


def test_a_table_has_what_passes(capsys, clips, model, found, tmp_path):
    threshold = middle_threshold(found)
    tables = {}
    for suffix in ("csv", "json", "parquet"):
        if suffix == "parquet":
            parquet = pytest.importorskip("pyarrow.parquet")
        path = tmp_path / f"labels.{suffix}"
        code, out, err = run(capsys, clips, "-m", model, "--output", path, "--threshold", threshold)
        assert code == cli.SOME_FAILED
        assert out == f"7 files in {path}\n"
        assert "broken.mp4" in err
        tables[suffix] = path
    rows = read_csv(tables["csv"])
    for file, scores in found.items():
        expected = [one for one in scores if one["score"] >= threshold][:5]
        mine = [row for row in rows if row["file"] == file]
        assert [row["label"] for row in mine] == [one["label"] for one in expected] or ["none"]
        if not expected:
            assert [(row["label"], row["score"]) for row in mine] == [("none", "")]
        for row, one in zip(mine, expected, strict=False):
            assert float(row["score"]) == pytest.approx(one["score"], abs=1e-5)
    assert {row["label"] for row in rows} > {"none"}
    (broken,) = [row for row in rows if row["error"]]
    assert (broken["file"], broken["label"]) == (str(clips / "broken.mp4"), "")
    as_json = json.loads(tables["json"].read_text())
    assert [len(one.get("predictions", [])) for one in as_json] == [
        sum(row["file"] == one["file"] and row["score"] != "" for row in rows) for one in as_json
    ]
    table = parquet.read_table(tables["parquet"]).to_pylist()
    assert [(row["file"], row["label"]) for row in table] == [(row["file"], row["label"] or None) for row in rows]
    assert table[-1]["score"] is None or table[-1]["score"] == pytest.approx(float(rows[-1]["score"]))


def test_a_run_that_has_nothing_left_to_do(capsys, clips, model, tmp_path):
    words = (clips / "0.mp4", clips / "1.mp4", "-m", model, "--threshold", "model", "--output", tmp_path / "a.csv")
    assert run(capsys, *words)[0] == cli.DONE
    before = (tmp_path / "a.csv").read_text()
    code, out, _ = run(capsys, *words, "--resume")
    assert (code, "2 of them from before" in out) == (cli.DONE, True)
    assert (tmp_path / "a.csv").read_text() == before


def test_windows_have_rows_of_their_own(capsys, clips, model, tmp_path):
    words = (clips / "0.mp4", "-m", model, "--windows", "0.5s", "--top-k", 1, "--output", tmp_path / "w.csv")
    assert run(capsys, *words)[0] == cli.DONE
    rows = read_csv(tmp_path / "w.csv")
    assert [(row["start"], row["end"]) for row in rows] == [("0.0", "0.5"), ("0.5", "1.0")]


def test_none_is_said_as_text(capsys, clips, model):
    code, out, _ = run(capsys, clips / "0.mp4", clips / "1.mp4", "-m", model, "--threshold", "1.5")
    assert code == cli.DONE
    assert [line.strip() for line in out.splitlines()[1::2]] == ["none", "none"]
    _, out, _ = run(capsys, clips / "0.mp4", "-m", model, "--threshold", "1.5", "--windows", "0.5s")
    assert out.splitlines()[1:] == ["  0.00-0.50 s  none", "  0.50-1.00 s  none"]


def test_labels_of_interest(capsys, clips, model, found, tmp_path):
    """Exit code 4, marked rows wherever they rank, and a line in the alert file for each."""
    last = {file: scores[-1] for file, scores in found.items()}  # the least likely label counts too
    label = last[str(clips / "0.mp4")]["label"]
    threshold = last[str(clips / "0.mp4")]["score"] * 0.999
    passing = {
        file: one["score"]
        for file, scores in found.items()
        for one in scores
        if one["label"] == label and one["score"] >= threshold
    }
    alert = tmp_path / "alert.tsv"
    words = ("-m", model, "--top-k", 1, "--threshold", threshold, "--labels-of-interest", label.upper())
    good = [clips / f"{n}.mp4" for n in range(6)]
    code, out, _ = run(capsys, *good, *words, "--output", tmp_path / "a.csv", "--alert", alert)
    assert code == cli.FOUND
    assert f"{len(passing)} with {label}" in out
    lines = [line.split("\t") for line in alert.read_text().splitlines()]
    assert [(line[0], line[1]) for line in lines] == [(file, label) for file in passing]
    assert [float(line[2]) for line in lines] == pytest.approx(list(passing.values()), abs=1e-3)
    rows = read_csv(tmp_path / "a.csv")
    assert [row["file"] for row in rows if row["of_interest"] == "True"] == list(passing)
    before = alert.read_text()
    code, out, _ = run(capsys, *good, clips / "broken.mp4", *words, "--alert", alert)
    assert code == cli.FOUND_AND_FAILED
    assert alert.read_text() == 2 * before  # lines of earlier runs stay, unless they are given up
    run(capsys, *good, *words, "--output", tmp_path / "a.csv", "--alert", alert, "--overwrite")
    assert alert.read_text() == before
    assert out.count(f"{label} (of interest)") == len(passing)
    code, _, _ = run(capsys, clips / "0.mp4", "-m", model, "--threshold", "1.5", "--labels-of-interest", label)
    assert code == cli.DONE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels-of-interest", "archery"], "needs --threshold"),
        (
            ["--threshold", "0.5", "--labels-of-interest", "archery,bowlin"],
            "no label 'bowlin'. Did you mean 'bowling'?",
        ),
        (["--alert", "a.tsv"], "--alert needs --labels-of-interest"),
        (["--threshold", "half"], "'half' came, and it must be a score"),
        (["--threshold", "nan"], "'nan' came, and it must be a score"),
        (["--resume"], "go with --output"),
        (["--output", "a.csv", "--resume", "--overwrite"], "give one of them"),
        (["--output", "a.xlsx"], "must end in .csv, .json or .parquet"),
        (["--output", "a.csv", "--json"], "not allowed with"),
    ],
)
def test_wrong_usage(capsys, clips, model, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, clips / "0.mp4", "-m", model, *words)
    assert code == cli.WRONG
    assert message in err
    assert not list(tmp_path.iterdir())


# -- going on ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch):
    """The files that were classified."""
    files = []
    add = label_files.LabelFile.add
    monkeypatch.setattr(
        label_files.LabelFile,
        "add",
        lambda self, file, result: (files.append(Path(file).name), add(self, file, result)),
    )
    return files


def test_a_finished_run_takes_up_what_is_new_or_changed(capsys, clips, model, tmp_path, seen):
    folder = Path(shutil.copytree(clips, tmp_path / "folder"))
    words = (folder, "-m", model, "--output", tmp_path / "a.csv", "--threshold", "0.3")
    run(capsys, *words)
    before = read_csv(tmp_path / "a.csv")
    seen.clear()
    tiny.write_clip(folder / "new.mp4", 8, seed=9)
    tiny.write_clip(folder / "1.mp4", 12, seed=8)
    code, out, _ = run(capsys, *words, "--resume")
    assert code == cli.SOME_FAILED
    assert seen == ["1.mp4", "broken.mp4", "new.mp4"]  # a file that could not be read is tried again
    assert "8 files in" in out
    assert "5 of them from before" in out
    rows = read_csv(tmp_path / "a.csv")
    kept = [row for row in before if Path(row["file"]).name not in ("1.mp4", "broken.mp4")]
    assert [row for row in rows if Path(row["file"]).name not in ("1.mp4", "broken.mp4", "new.mp4")] == kept
    code, _, err = run(capsys, *words)
    assert code == cli.WRONG
    assert "a.csv is there already: --resume goes on with it, --overwrite begins anew" in err
    code, _, err = run(capsys, *words[:-1], "0.4", "--resume")
    assert code == cli.WRONG
    assert "threshold is 0.4 and was 0.3" in err
    assert read_csv(tmp_path / "a.csv") == rows
    (tmp_path / "a.csv.progress.jsonl").unlink()
    code, _, err = run(capsys, *words, "--resume")
    assert code == cli.WRONG
    assert "can't be gone on with" in err
    assert run(capsys, *words, "--overwrite")[0] == cli.SOME_FAILED
    assert read_csv(tmp_path / "a.csv") == rows


def test_other_weights_are_refused(capsys, clips, model, tmp_path):
    words = (clips / "0.mp4", "--output", tmp_path / "a.csv")
    mine = shutil.copytree(model, tmp_path / "model")
    assert run(capsys, *words, "-m", mine)[0] == cli.DONE
    changed = hf_video.VideoMAEForVideoClassification.from_pretrained(mine)
    changed.classifier.bias.data += 1
    changed.save_pretrained(mine)
    code, _, err = run(capsys, *words, "-m", mine, "--resume")
    assert code == cli.WRONG
    assert "weights is" in err


def test_an_interrupted_run_says_how_to_go_on(capsys, clips, model, tmp_path, monkeypatch, seen):
    words = (clips, "-m", model, "--output", tmp_path / "a.csv")
    print_results, marked = label_files.Alerts.mark, iter(range(3))

    def interrupt(self, result, top_k):
        if next(marked, None) is None:
            raise KeyboardInterrupt
        return print_results(self, result, top_k)

    with monkeypatch.context() as patch:
        patch.setattr(label_files.Alerts, "mark", interrupt)
        code, _, err = run(capsys, *words)
    assert code == cli.INTERRUPTED
    assert "Go on with: hf-video classify" in err
    assert err.rstrip().endswith("--resume")
    assert not (tmp_path / "a.csv").exists()
    with open(tmp_path / "a.csv.progress.jsonl", "a") as file:
        file.write('{"file": "half a li')
    code, _, err = run(capsys, *words)
    assert (code, "progress.jsonl is there already" in err) == (cli.WRONG, True)
    seen.clear()
    run(capsys, *words, "--resume")
    assert len(seen) == 4
    assert len({row["file"] for row in read_csv(tmp_path / "a.csv")}) == 7


def test_a_killed_process_goes_on(clips, model, tmp_path):
    """In processes of their own: killed in the middle, then resumed, it has every file once, as an unbroken run has."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(60):
        os.link(clips / f"{number % 6}.mp4", folder / f"{number:02}.mp4")
    words = [sys.executable, "-m", "hf_video.cli", "classify", folder, "-m", model, "--output", tmp_path / "a.csv"]
    words = [*map(str, words), "--top-k", "1", "--threshold", "0", "--labels-of-interest", "archery,bowling"]
    words += ["--alert", str(tmp_path / "alert.tsv")]
    root = {**os.environ, "PYTHONPATH": str(Path(hf_video.__file__).parents[1])}
    process = subprocess.Popen(words, env=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    log = tmp_path / "a.csv.progress.jsonl"
    while process.poll() is None and (not log.exists() or len(log.read_bytes().splitlines()) < 4):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = len(log.read_bytes().splitlines()) - 1
    assert 3 <= kept < 60
    done = subprocess.run([*words, "--resume"], env=root, capture_output=True, text=True)
    assert done.returncode == cli.FOUND, done.stderr
    assert "of them from before" in done.stdout
    rows = read_csv(tmp_path / "a.csv")
    assert len({row["file"] for row in rows}) == 60
    assert len({(Path(row["file"]).name, row["label"]) for row in rows}) == len(rows)
    same = {}
    for row in rows:
        same.setdefault(int(Path(row["file"]).stem) % 6, set()).add((row["label"], row["score"], row["of_interest"]))
    counts = [sum(int(Path(row["file"]).stem) % 6 == n for row in rows) for n in range(6)]
    assert [len(values) * 10 for values in same.values()] == [counts[n] for n in same]
    alerts = {tuple(line.split("\t")[:2]) for line in (tmp_path / "alert.tsv").read_text().splitlines()}
    assert alerts == {(row["file"], row["label"]) for row in rows if row["of_interest"] == "True"}
