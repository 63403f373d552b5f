"""`hf-video evaluate`, its example, and Kinetics' top-1, end to end on generated clips."""

from __future__ import annotations

import csv
import importlib.util
import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import tiny
from transformers import pipeline

from hf_video.cli import main
from hf_video.errors import DataError
from hf_video.evaluation.detection.moments import moment_metrics
from hf_video.evaluation.rows import kinetics_rows, recorded_division, split_rows

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """<split>/<label>/<clip>, a damaged file in each split."""
    folder = tmp_path_factory.mktemp("videos")
    for split in ("train", "test"):
        for i, label in enumerate(tiny.LABELS[:3]):
            (folder / split / label).mkdir(parents=True)
            for n in range(2):
                tiny.write_clip(folder / split / label / f"{n}.mp4", seed=10 * i + n + 5 * (split == "test"))
        (folder / split / "archery" / "empty.mp4").write_bytes(b"")
    return folder


def run(capsys, *words):
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def test_a_folder(capsys, folder, model, tmp_path):
    words = ("evaluate", folder, "--model", model, "--protocol", "paper", "--output", tmp_path / "out", "--quiet")
    code, out, err = run(capsys, *words)
    assert code == 1  # one file could not be read
    assert "found 6 of 7 videos" in out
    assert "test/archery/empty.mp4" in out
    assert "train" not in out
    assert "report in" in err
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved["protocol"]["name"] == "paper:kinetics"
    assert saved["classes_seen"] == 3
    code, out, _ = run(capsys, *words, "--json")
    again = json.loads(out)
    assert again["resumed"] == 6
    assert again["top1"] == saved["top1"]


def test_the_report_is_what_the_pipeline_answers(capsys, folder, model):
    _, out, _ = run(capsys, "evaluate", folder, "--model", model, "--json", "--quiet")
    report = json.loads(out)
    files = sorted((folder / "test").rglob("[01].mp4"))
    _, out, _ = run(capsys, "classify", *files, "--model", model, "--json")
    right = [Path(r["file"]).parent.name == r["predictions"][0]["label"] for r in json.loads(out)]
    assert report["top1"] == sum(right) / len(right)


def test_splits(folder, tmp_path):
    assert len(split_rows(folder, "test")) == 7  # files are opened when they are scored
    assert len(split_rows(folder, "all")) == 14
    with pytest.raises(DataError, match=r"no split 'validation'; it has train, test"):
        split_rows(folder, "validation")
    plain = folder / "train"
    assert len(split_rows(plain, "all")) == 7
    held_out = split_rows(plain, "test")
    assert 0 < len(held_out) < 7
    assert {row.name for row in held_out} <= {row.name for row in split_rows(plain, "all")}


def test_divided_as_in_training(capsys, folder, model, tmp_path):
    trained = shutil.copytree(model, tmp_path / "trained")
    told = {"source": "train", "division": {"test_size": 0.0, "group_pattern": None}}  # nothing was held out
    (trained / "training_summary.json").write_text(json.dumps({"data": told}))
    code, _, err = run(capsys, "evaluate", folder / "train", "--model", trained)
    assert (code, "no split 'test'" in err) == (2, True)
    words = ("--model", trained, "--json", "--quiet", "--test_size", "0.2")  # what is asked for comes first
    assert json.loads(run(capsys, "evaluate", folder / "train", *words)[1])["found"] == 3
    assert recorded_division(trained, folder / "test") == {}  # other videos


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--protocol", "9x9"), "no protocol"),
        (("--split", "dev"), "has no split"),
        (("--protocol", "paper:ucf999"), "paper:kinetics"),
    ],
)
def test_wrong_usage(capsys, folder, model, words, message):
    code, _, err = run(capsys, "evaluate", folder, "--model", model, *words)
    assert code == 2
    assert message in err


def test_labels_of_another_data_set(capsys, folder, model, tmp_path):
    (tmp_path / "juggling").mkdir()
    tiny.write_clip(tmp_path / "juggling" / "a.mp4")
    code, _, err = run(capsys, "evaluate", tmp_path, "--model", model, "--split", "all")
    assert code == 2
    assert "'juggling'" in err


# -- Kinetics ----------------------------------------------------------------------------------------------------------


def load_example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory):
    """A folder of clips under Kinetics' names, and a list that has two more, one of them never downloaded."""
    folder = tmp_path_factory.mktemp("kinetics")
    listed = [
        ("Archery", "abc-_DEF012", 3, 13, "val/archery/abc-_DEF012_000003_000013.mp4"),
        ("bowling", "-startsdash", 120, 130, "-startsdash_000120_000130.mkv"),
        ("cricket!", "twice000000", 5, 15, "deep/er/twice000000_000005_000015.mp4"),
        ("diving", "twice000000", 50, 60, "twice000000_000050_000060.mp4"),
        ("(eating)", "onlyanid000", 7, 17, "onlyanid000.mp4"),
        ("fencing", "gone0000000", 0, 10, None),
        ("fencing", "broken00000", 1, 11, "broken00000_000001_000011.mp4"),
    ]
    for seed, (*_, file) in enumerate(listed):
        if file:
            (folder / "videos" / file).parent.mkdir(parents=True, exist_ok=True)
            tiny.write_clip(folder / "videos" / file, seed=seed)
    (folder / "videos" / "broken00000_000001_000011.mp4").write_bytes(b"x" * 500)
    (folder / "videos" / "notlisted00_000001_000011.mp4").write_bytes(b"")
    with open(folder / "val.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "youtube_id", "time_start", "time_end", "split", "is_cc"])
        writer.writerows([label, name, start, end, "validate", 0] for label, name, start, end, _ in listed)
    return folder


def test_kinetics_list(kinetics):
    rows = kinetics_rows(kinetics / "videos", kinetics / "val.csv")
    assert [rows.labels[row.label] for row in rows] == [
        *("Archery", "bowling", "cricket!", "diving", "(eating)", "fencing")
    ]
    assert [entry.name for entry in rows.skipped] == ["gone0000000_000000_000010"]
    assert rows[2].name == "deep/er/twice000000_000005_000015.mp4"


def test_kinetics_top1(kinetics, model, tmp_path, capsys):
    """The whole example: 5 of 7 found, top-1 as counted from its own predictions, and a second start that goes on."""
    example = load_example("kinetics_top1")
    words = [str(kinetics / "videos"), "--annotations", str(kinetics / "val.csv"), "--model", str(model), "--quiet"]
    words += ["--output", str(tmp_path / "out")]
    code = example.main(words)
    out = capsys.readouterr().out
    assert "found 5 of 7 videos" in out
    assert "5 clips of 4 frames (frames 4 apart" in out
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    top1 = sum(row["label"] == row["predicted"] for row in rows) / len(rows)
    assert {row["label"] for row in rows} == set(tiny.LABELS[:5])
    assert f"top-1 {top1:.2%} of those found: {'above' if top1 > 0.7 else 'NOT above'} 70%" in out
    assert f"counted as wrong it is {top1 * 5 / 7:.2%}" in out
    assert code == (0 if top1 > 0.7 else 1)
    assert example.main(words) == code
    capsys.readouterr()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["resumed"] == 5


def test_kinetics_above_the_target(kinetics, model, tmp_path, capsys):
    """A list that says what the model answers, spelled in its own way."""
    pipe = pipeline("video-classification", model=str(model))
    files = [
        ("abc-_DEF012", 3, 13, "val/archery/abc-_DEF012_000003_000013.mp4"),
        ("onlyanid000", 7, 17, "onlyanid000.mp4"),
    ]
    answers = [pipe(kinetics / "videos" / file, views="5x3", frame_sampling_rate=4)[0]["label"] for *_, file in files]
    with open(tmp_path / "list.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "youtube_id", "time_start", "time_end"])
        writer.writerows((f"({label.title()})", *clip[:3]) for label, clip in zip(answers, files, strict=True))
    words = [str(kinetics / "videos"), "--annotations", str(tmp_path / "list.csv"), "--model", str(model), "--quiet"]
    assert load_example("kinetics_top1").main([*words, "--output", str(tmp_path / "out")]) == 0
    assert "found 2 of 2 videos; top-1 100.00% of those found: above 70%." in capsys.readouterr().out


def test_kinetics_folder_of_labels(kinetics, model, folder, tmp_path, capsys):
    example = load_example("kinetics_top1")
    output = ["--output", str(tmp_path), "--quiet", "--protocol", "1x1"]
    example.main([str(folder / "test"), "--model", str(model), *output])
    assert "found 6 of 7 videos" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,youtube_id\na,b\n", "there is no 'time_start'; the list has label"),
        ("label,youtube_id,time_start,time_end\n", "names no video"),
        ("label,youtube_id,time_start,time_end\n,b,1,2\n", "line 2"),
        ("label,youtube_id,time_start,time_end\na,b,one,2\n", "line 2"),
        ("label,youtube_id,time_start,time_end\na,nowhere,1,2\n", "None of the 1 videos"),
    ],
)
def test_lists_that_are_none(kinetics, model, tmp_path, text, message, capsys):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        kinetics_rows(kinetics / "videos", tmp_path / "list.csv")
    words = [str(kinetics / "videos"), "--annotations", str(tmp_path / "list.csv"), "--model", str(model)]
    assert load_example("kinetics_top1").main(words) == 2
    assert message.split(",")[0] in capsys.readouterr().err


def test_the_example_is_the_verb(capsys, folder, model, monkeypatch):
    words = [str(folder), "--model", str(model), "--json", "--quiet"]
    _, expected, _ = run(capsys, "evaluate", *words)
    monkeypatch.setattr(sys, "argv", ["evaluate_protocol.py", *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / "evaluate_protocol.py"), run_name="__main__")
    assert end.value.code == 1
    assert json.loads(capsys.readouterr().out)["per_class"] == json.loads(expected)["per_class"]


def test_moments(capsys, tmp_path):
    """Files of moments, without a model: the metrics of the function, printed, as JSON and in a folder."""
    truth = [{"qid": 1, "query": "a jump", "relevant_windows": [[0, 4]]}, {"qid": 2, "relevant_windows": [[20, 44]]}]
    found = [{"qid": 2, "pred_relevant_windows": [[20, 40, 0.9]]}, {"qid": 1, "pred_relevant_windows": [[6, 8, 0.5]]}]
    for name, queries in (("truth", truth), ("found", found)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, queries)) + "\n\n")
    files = ("--predictions", tmp_path / "found.jsonl", "--annotations", tmp_path / "truth.jsonl")
    code, out, _ = run(capsys, "evaluate", "--task", "moments", *files)
    assert code == 0
    assert "MR-full-R1@0.5            50.00" in out
    code, out, _ = run(capsys, "evaluate", "--task", "moments", *files, "--json", "--output", tmp_path)
    assert json.loads(out) == moment_metrics(found, truth) == json.loads((tmp_path / "report.json").read_text())


@pytest.mark.parametrize(
    ("line", "words", "says"),
    [
        (None, ["--task", "moments"], "needs --predictions"),
        (None, ["--task", "moment"], "moments"),
        (None, ["clips", "--task", "moments"], "no use for DATA"),
        (None, ["--model", "m"], "needs DATA"),
        ("", [], "holds no query"),
        ("{", [], "line 1 is no JSON"),
        ("[1]", [], "one object"),
        ('{"qid": 1}', [], "no 'relevant_windows'"),
        ('{"qid": [1], "relevant_windows": []}', [], "whole number"),
        ('{"qid": 1, "relevant_windows": [[4, 2]]}', [], "line 1"),
        ('{"qid": 1, "relevant_windows": [[1, NaN]]}', [], "line 1"),
        ('{"qid": 1, "relevant_windows": []}\n{"qid": 1, "relevant_windows": []}', [], "line 1 too"),
    ],
)
def test_files_of_moments_that_are_none(capsys, tmp_path, line, words, says):
    if line is not None:
        (tmp_path / "found.jsonl").write_text('{"qid": 1}')
        (tmp_path / "truth.jsonl").write_text(line)
        files = ["--predictions", tmp_path / "found.jsonl", "--annotations", tmp_path / "truth.jsonl"]
        words = ["--task", "moments", *files]
    code, _, err = run(capsys, "evaluate", *words)
    assert code == 2
    assert says in err
    assert "Traceback" not in err
