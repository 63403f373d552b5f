"""Options of all verbs: one name for one meaning, near matches of mistyped ones, what may come, where to write."""

from __future__ import annotations

import argparse
import contextlib
import re
from pathlib import Path

import pytest

from hf_video import cli
from hf_video.cli import VERBS
from hf_video.cli.arguments import FORMER_NAMES, SHARED_OPTIONS, SHORT_NAMES

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "model_cards/*.md", "examples/*.py", "hf_video/**/*.py")
OLD_NAMES = sorted(old for names in FORMER_NAMES.values() for old in names)


def actions(verb):
    """The options of a verb, and of the commands below it."""
    below = next(a for a in cli._parser()._actions if a.dest == "verb").choices[verb]
    commands = [one for a in below._actions if a.dest == "command" for one in a.choices.values()]
    return [a for one in (below, *commands) for a in one._actions if a.option_strings and a.dest != "help"]


def run(capsys, *arguments):
    code = cli.main([str(a) for a in arguments])
    return code, capsys.readouterr().err


# -- names -------------------------------------------------------------------------------------------------------------


def test_one_meaning_has_one_name():
    """Names that differ by a plural, `num-` or a hyphen would be two names of one thing, as would equal help."""
    stems, words = {}, {}
    for verb in VERBS:
        for action in actions(verb):
            name = action.option_strings[0]
            stems.setdefault(re.sub(r"^--(num-)?|s$|-", "", name), set()).add(name)
            if name not in ("--no-private", "--debug"):
                words.setdefault(action.help.partition("(")[0].strip(), set()).add(name)
            if name in SHORT_NAMES:
                assert action.option_strings[1:2] == [SHORT_NAMES[name]]
    two_meanings = {
        "video": {"--video", "--videos"},  # the example to search by; the folder of a list's videos
        "host": {"--host", "--hosts"},  # the address to listen on; those in a certificate
        "key": {"--key", "--keys"},  # a site's own; the folder of the server's
        "name": {"--name", "--names"},  # of this site; of all of them
    }
    assert {stem: names for stem, names in stems.items() if len(names) > 1} == two_meanings
    assert {help_: names for help_, names in words.items() if len(names) > 1} == {}


def test_what_verbs_share_is_taken_from_one_place():
    for name, shared in SHARED_OPTIONS.items():
        found = {verb: a for verb in VERBS for a in actions(verb) if a.option_strings[0] == name}
        assert len(found) > 1, f"{name} is shared by nobody"
        for verb, action in found.items():
            if "type" in shared and not (name == "--output" and verb in ("preview", *EVENTS, *VIDEOS, *TABLES, *PAGES)):
                assert action.type is shared["type"], (verb, name)


@pytest.mark.parametrize(("new", "old"), [(new, old) for new, names in FORMER_NAMES.items() for old in names])
def test_old_names_are_accepted_and_not_shown(new, old):
    parser = cli._parser()
    given = {"--windows": "3s", "--processes": "3"}[new]
    words = ["index", "videos", "--output", "new.index"]
    assert vars(parser.parse_args([*words, old, given])) == vars(parser.parse_args([*words, new, given]))
    below = next(a for a in parser._actions if a.dest == "verb").choices["index"]
    assert not re.search(rf"{old}\b(?!s)", below.format_help())


def test_the_format_of_shards_is_taken_under_its_old_name():
    words = ["embed", "videos", "--model", "m", "--output", "new"]
    for name in ("--shard-format", "--format"):
        assert cli._parser().parse_args([*words, name, "parquet"]).shard_format == "parquet"
    assert cli._parser().parse_args(words).shard_format == "safetensors"


@pytest.mark.parametrize("verb", VERBS)
def test_defaults_are_what_may_be_typed(verb):
    for action in actions(verb):
        if action.choices and action.default is not None:
            assert action.default in action.choices
        if isinstance(action.default, str) and action.type:
            assert action.type(action.default) == action.default


# By the build of the site, of texts that lie elsewhere.
MADE = {("docs", name) for name in ("_build", "models", "project", "reference")}


@pytest.mark.parametrize("page", PAGES)
def test_pages_write_options_as_help_does(page):
    for file in ROOT.glob(page):
        if file.relative_to(ROOT).parts[:2] in MADE:
            continue
        for line in re.findall(r"hf-video [a-z]+ .*", file.read_text()):
            typed = re.findall(r"(?<![\w-])--[\w-]+", line.partition("  ")[0])
            verb = line.split()[1]
            if verb in VERBS:
                known = {name for a in actions(verb) for name in a.option_strings} | {"--help"}
                assert set(typed) <= known, f"{file}: {line}"


# -- mistyped ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("clasify a.mp4 --model m", "Did you mean 'classify'?"),
        ("classify a.mp4 --modle m", "there is no option --modle. Did you mean '--model'?"),
        ("classify a.mp4 --model m --window-s 2s", "Did you mean '--windows'?"),
        ("embed a --model m --output {tmp}/o --num-worker-s 2", "Did you mean '--num-workers'?"),
        ("classify a.mp4 --model m --backend pyva", "Did you mean 'pyav'?"),
        ("classify a.mp4 --model m --dtype bf61", "Did you mean 'bf16'?"),
        ("models x3dd", "Did you mean 'x3d'?"),
        ("convert {file} --model-type videomea --output {tmp}/o", "Did you mean 'videomae'?"),
        ("preview {tmp} --output {tmp}/a.png --recipe smal_data", "Did you mean 'small_data'?"),
    ],
)
def test_what_was_meant_is_said(capsys, tmp_path, line, hint):
    (tmp_path / "file.pth").touch()
    code, err = run(capsys, *line.format(tmp=tmp_path, file=tmp_path / "file.pth").split())
    assert code == cli.WRONG
    assert hint in err


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["0", "-3", "nan", "inf", "2.5", "1e3", "", "9" * 30, "two"])
@pytest.mark.parametrize("option", ["--num-frames", "--stride", "--batch-size"])
def test_counts(capsys, option, number):
    code, err = run(capsys, "classify", "a.mp4", "--model", "m", f"{option}={number}")
    assert code == cli.WRONG
    assert f"argument {option}: {number!r} came, and it must be a whole number from 1 to" in err


@pytest.mark.parametrize("number", ["1", "-0.1", "nan", "inf", "a fifth"])
@pytest.mark.parametrize("line", ["train --test-size", "evaluate --test-size", "pretrain --held-out"])
def test_fractions(capsys, line, number):
    verb, option = line.split()
    code, err = run(capsys, verb, "videos", "--model", "m", f"{option}={number}")
    assert code == cli.WRONG
    assert f"{number!r} came, and it must be a fraction" in err


@pytest.mark.parametrize("verb", VERBS)
def test_no_number_is_nan(verb):
    """Nothing reaches a threshold that is nan, which would look as if nothing was found."""
    for action in actions(verb):
        if action.type is not None:
            with contextlib.suppress(argparse.ArgumentTypeError, ValueError):
                assert not isinstance(action.type("nan"), float), action.option_strings


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("gpu", "There is no device 'gpu'"),
        ("cpu:x", "There is no device"),
        ("meta", "can't be used"),
        ("", "no device"),
    ],
)
def test_devices(capsys, device, reason):
    code, err = run(capsys, "classify", "a.mp4", "--model", "m", "--device", device)
    assert code == cli.WRONG
    assert reason in err


def test_cuda_on_a_cpu_build(capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    for verb in ("classify", "evaluate", "probe", "embed"):
        output = ["--output", "new"] if verb == "embed" else []
        code, err = run(capsys, verb, "videos", "--model", "m", "--device", "cuda:1", *output)
        assert code == cli.WRONG
        assert "is a CPU build" in err


# -- where to write ----------------------------------------------------------------------------------------------------

FOLDERS = {
    "evaluate": "evaluate videos --model m --output {}",
    "compare": "compare m n --data videos --output {}",
    "embed": "embed videos --model m --output {}",
    "probe": "probe videos --model m --output {}",
    "index": "index videos --model m --output {}",
    "train": "train videos --model m --output {}",
    "pretrain": "pretrain videos --model m --output {}",
    "convert": "convert m.pth --output {}",
    "export": "export m --to onnx --output {}",
    "check": "check videos --reencode {}",
    "anomalies": "anomalies normal a.mp4 --detector {}",
    "federated": "federated server federation.yaml --keys sites/server --output {}",
}
EVENTS = {
    "anomalies": "anomalies normal a.mp4 --output {}",
    "caption": "caption a.mp4 --model m --output {}",
    "detect": "detect a.mp4 --model m --output {}",
}
VIDEOS = {
    "annotate": "annotate a.mp4 --model m --output {}",
    "explain": "explain a.mp4 --model m --output {}",
}
PAGES = {"map": "map features --output {}"}
TABLES = {"classify": "classify a.mp4 --model m --output {}"}
FILES = {"preview": "preview videos --output {}", "search": "search library.index text --sheet {}"}


def test_no_output_is_left_out():
    """Every option that names a place to write is in one of the tables."""
    writing = {verb for verb in VERBS for a in actions(verb) if a.type in (SHARED_OPTIONS["--output"]["type"],)}
    assert writing == set(FOLDERS)
    assert {verb for verb in VERBS if any(a.dest in ("output", "sheet", "reencode") for a in actions(verb))} == {
        *FOLDERS,
        *FILES,
        *EVENTS,
        *VIDEOS,
        *TABLES,
        *PAGES,
    }


@pytest.mark.parametrize("verb", FOLDERS)
def test_folders_that_cannot_be_written_are_refused_before_the_work(capsys, tmp_path, verb):
    file = tmp_path / "a file"
    file.write_text("kept")
    cases = {
        str(file): "is a file, and a folder is needed",
        str(file / "below"): "can't be made",
        str(file / "far/below"): "can't be made",
        "/proc/nothing": "can't be written",
        "": "the name is empty",
    }
    for output, reason in cases.items():
        code = cli.main([word.format(output) for word in FOLDERS[verb].split()])
        err = capsys.readouterr().err
        assert code == cli.WRONG
        assert reason in err
    assert file.read_text() == "kept"
    assert [one.name for one in tmp_path.iterdir()] == ["a file"]


@pytest.mark.parametrize("verb", [*FILES, *EVENTS, *VIDEOS, *TABLES, *PAGES])
def test_files_that_cannot_be_written_are_refused_before_the_work(capsys, tmp_path, verb):
    kinds = {
        ".png": (FILES, ".jpg or .jpeg"),
        ".csv": (EVENTS, ".vtt or .srt"),
        ".mp4": (VIDEOS, ".ts or .gif"),
        ".parquet": (TABLES, ".json or .parquet"),
        ".html": (PAGES, ".htm"),
    }
    end, ends = next((end, ends) for end, (verbs, ends) in kinds.items() if verb in verbs)
    (tmp_path / f"folder{end}").mkdir()
    (tmp_path / "file").write_text("kept")
    cases = {
        f"folder{end}": "is a folder, and a file is needed",
        f"none/sheet{end}": "There is no folder",
        f"file/sheet{end}": "it is a file",
        "sheet.txt": ends,
        "sheet": "must end in",
        "": "the name is empty",
    }
    for name, reason in cases.items():
        output = str(tmp_path / name) if name else ""
        code = cli.main([word.format(output) for word in (FILES | EVENTS | VIDEOS | TABLES | PAGES)[verb].split()])
        err = capsys.readouterr().err
        assert code == cli.WRONG
        assert reason in err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", f"folder{end}"]
