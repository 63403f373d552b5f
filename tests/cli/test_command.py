"""The installed command, each time in a process of its own: every verb, for every type of model.

By default only `classify` starts Python anew, as users do; what the other verbs import is found the same in a fork."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import forked
import pytest
import tiny
import torch
from evaluation_models import CONFIGS, LABELS, make
from safetensors.torch import load_file
from tiny_video_text import save_videoclip, save_violet

import hf_video
from hf_video import cli
from hf_video.cli import VERBS

COMMAND = shutil.which("hf-video", path=os.path.dirname(sys.executable))
SHORT = "--set training.max_steps=2 --set training.warmup_steps=0 --set training.report_to=none"
# What a verb is called with: {model}, {pickled}: the same in a pickle, {data}: labelled videos, {clip}, {out}, {index}.
CALLS = {
    "annotate": "annotate {clip} --model {model} --output {out}.mp4",
    "classify": "classify {clip} --model {model}",
    "watch": "watch {clip} --realtime --model {model} --windows 1s --seconds 3",
    "explain": "explain {clip} --model {model} --output {out}.png",
    "detect": "detect {clip} --model {model} --output {out}.json",
    "anomalies": "anomalies {data} {clip} --model {model} --detector {out} --output {out}.csv",
    "count": "count {clip} --model {model}",
    "evaluate": "evaluate {data} --model {model} --split all --output {out}",
    "embed": "embed {data} --model {model} --output {out}",
    "probe": "probe {data} --model {model}",
    "index": "index {data} --model {model} --output {out}",
    "search": "search {index} --video {clip}",
    "train": f"train {{data}} --model {{model}} --output {{out}} {SHORT}",
    "convert": "convert {pickled} --output {out}",
}
OF_TEXT = ("index", "search")
WITHOUT_MODEL = {
    "check": "check {data} --quick",
    "info": "info {clip}",
    "models": "models {type}",
    "preview": "preview {data} --output {out}.png",
}


def run(*arguments: object, fork: bool = True, **environment: str) -> subprocess.CompletedProcess:
    assert COMMAND, "the command is not installed: pip install -e ."
    environment = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", **environment}
    if fork:
        return forked.run(forked.COMMAND, COMMAND, *arguments, **environment)
    words, environment = [COMMAND, *map(str, arguments)], {**os.environ, **environment}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)


class Library:
    """Labelled videos, and for each model type a saved model, its pickled twin and an index of the videos by it."""

    def __init__(self, root: Path):
        self.root, self.data = root, root / "videos"
        for seed, name in enumerate(f"{label}/{i}" for label in LABELS[:2] for i in range(4)):
            (self.data / name).parent.mkdir(parents=True, exist_ok=True)
            tiny.write_clip(self.data / f"{name}.mp4", seed=seed)

    def model(self, name: str) -> Path:
        folder = self.root / name
        if folder.exists():
            return folder
        if name == "videoclip":
            return save_videoclip(folder)
        if name == "violet":
            return save_violet(folder)
        if name == "s3d":
            hf_video.S3DModel(hf_video.S3DConfig(image_size=32, num_frames=16)).save_pretrained(folder)
            sizes = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
            hf_video.S3DImageProcessor(**sizes).save_pretrained(folder)
            return folder
        model, processor = make(name)
        model.float().save_pretrained(folder)
        processor.save_pretrained(folder)
        return folder

    def pickled(self, name: str) -> Path:
        folder = self.root / f"{name}_pickled"
        shutil.copytree(self.model(name), folder)
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        return folder

    def index(self, name: str) -> Path:
        folder = self.root / f"{name}.index"
        if not folder.exists():
            done = run("index", self.data, "--model", self.model(name), "--output", folder)
            assert done.returncode == cli.DONE, done.stderr
        return folder

    def call(self, template: str, name: str, out: Path, fork=True, **environment: str) -> subprocess.CompletedProcess:
        given = {"data": self.data, "clip": self.data / "archery/0.mp4", "out": out, "type": name}
        for place in ("model", "pickled", "index"):
            if f"{{{place}}}" in template:
                given[place] = getattr(self, place)(name)
        words = template.format(**given).split()
        return run(words[0], "--debug", *words[1:], fork=fork, **environment)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return Library(tmp_path_factory.mktemp("library"))


def loads_ours(done: subprocess.CompletedProcess, model_type: str) -> None:
    assert done.returncode == cli.DONE, done.stderr
    assert f"is loaded as {hf_video.MODELS[model_type].package}." in done.stderr


@pytest.mark.parametrize("verb", CALLS)
def test_verbs_load_our_class(library, tmp_path, verb):
    loads_ours(library.call(CALLS[verb], "x3d", tmp_path / "out", fork=verb != "classify"), "x3d")


def test_pretraining_goes_on_with_our_class(library, tmp_path):
    call = f"pretrain {{data}} --model {{model}} --output {{out}} --held-out 0 {SHORT}"
    done = library.call(call, "videomae", tmp_path / "out")
    loads_ours(done, "videomae")


@pytest.mark.parametrize("verb", WITHOUT_MODEL)
def test_verbs_without_a_model(library, tmp_path, verb):
    done = library.call(WITHOUT_MODEL[verb], "x3d", tmp_path / "out")
    assert done.returncode == cli.DONE, done.stderr


def test_push_says_what_is_missing(library):
    done = run("push", library.data, "me/x3d")
    assert done.returncode == cli.WRONG
    assert "is not complete" in done.stderr


def test_no_verb_is_left_out():
    assert {
        *CALLS,
        *WITHOUT_MODEL,
        "ask",
        "caption",
        "compare",
        "export",
        "federated",
        "map",
        "pretrain",
        "push",
        "serve",
    } == set(VERBS)


@pytest.mark.slow
@pytest.mark.parametrize("verb", CALLS)
@pytest.mark.parametrize("name", [*CONFIGS, "s3d", "videoclip", "violet"])
def test_every_type_of_model(library, tmp_path, verb, name):
    if name in ("s3d", "videoclip", "violet") and verb not in OF_TEXT:
        pytest.skip("no classifier")
    template = CALLS[verb]
    if verb == "search" and name in ("videoclip", "violet"):
        template = "search {index} moving"
    loads_ours(library.call(template, name, tmp_path / "out", fork=False), name.partition("-")[0])


def test_override_off_loads_stock_and_says_so(library, tmp_path):
    done = library.call(CALLS["classify"], "videomae", tmp_path / "out", HF_VIDEO_OVERRIDE="0")
    assert done.returncode == cli.DONE, done.stderr
    assert "is loaded as" not in done.stderr


@pytest.mark.parametrize("name", ["hf-video", "hf-video.py", "hf_video_command.py"])
def test_scripts_of_any_name_get_our_classes(tmp_path, name):
    """Also one that is called as the command is, and whatever is imported first."""
    code = "import {}\nimport {}\nprint(transformers.AutoConfig.for_model('videomae').__class__.__module__)\n"
    first, second = ("transformers", "hf_video") if name == "hf-video.py" else ("hf_video", "transformers")
    done = forked.run(code.format(first, second), tmp_path / name)
    assert done.stdout.strip() == "hf_video.models.videomae.configuration_videomae"


HELP = """
import sys, time
before = time.process_time()
import hf_video_command
for verb in sys.argv[1:]:
    sys.argv = ["hf-video", *verb.split(), "--help"]
    assert hf_video_command.main() == 0
    heavy = {"torch", "transformers", "av", "numpy", "flwr", "ray", "opacus", "tenseal"} & set(sys.modules)
    print(verb, time.process_time() - before, sorted(heavy))
"""


def test_help_answers_at_once():
    """As the script of an installation begins: no torch for any verb, and half a second is plenty."""
    (entry,) = entry_points(group="console_scripts", name="hf-video")
    assert entry.value == "hf_video_command:main"
    words = [sys.executable, "-c", HELP, "", *VERBS]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].startswith("usage: hf-video")
    last = [line for line in lines if line.endswith("[]")]
    assert len(last) == 1 + len(VERBS)
    assert float(last[0].split()[0]) < 0.5


def test_as_a_module_too(library):
    words = [sys.executable, "-m", "hf_video.cli", "--help"]
    named = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(words, env=named, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: hf-video")
    assert not re.search(r"\| +(torch|transformers)$", done.stderr, re.MULTILINE)
    code = "import runpy; runpy.run_module('hf_video.cli', run_name='__main__', alter_sys=True)"
    words = ("hf_video.cli", "classify", "--debug", library.data / "archery/0.mp4", "--model", library.model("x3d"))
    loads_ours(forked.run(code, *words), "x3d")
