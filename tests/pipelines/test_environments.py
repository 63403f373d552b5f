"""The same scores whatever else is installed: with packages that transformers would rather use than ours, or that are
there and don't work, and however `pipeline` was imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
import transformers
from transformers import pipeline

import hf_video
from hf_video.auto import PIPELINES, register_auto_classes

# Enough of torchvision for transformers to take it as installed and import its torchvision code.
TORCHVISION = """
    import importlib.abc, importlib.machinery, sys, types

    class Names(type):
        def __getattr__(cls, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return name

    class Anything(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return Names(name, (), {})

    class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name, path=None, target=None):
            if name.startswith("torchvision."):
                return importlib.machinery.ModuleSpec(name, self, is_package=True)

        def create_module(self, spec):
            return Anything(spec.name)

        def exec_module(self, module):
            pass

    sys.meta_path.insert(0, Finder())
    __version__ = "0.28.0"
    __getattr__ = lambda name: __import__("importlib").import_module("torchvision." + name)
"""
BROKEN = 'raise ImportError("libtorchcodec.so: cannot open shared object file")\n'

SCRIPT = """
    import json, sys
    from transformers import pipeline
    import hf_video
    from transformers.utils.import_utils import is_torchcodec_available, is_torchvision_available
    folder, file = sys.argv[1:]
    classify = pipeline("video-classification", model=folder, device="cpu")
    print(json.dumps({
        "seen": [is_torchvision_available(), is_torchcodec_available()],
        "pipeline": type(classify).__module__,
        "model": type(classify.model).__module__,
        "one": classify(file, top_k=None),
        "views": classify(file, views="2x3", top_k=None),
    }))
"""


def run(folder, clip, **environment):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder), str(clip)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_scores_do_not_depend_on_what_is_installed(classify, videomae, clips, tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(textwrap.dedent(TORCHVISION))
    (tmp_path / "torchcodec").mkdir()
    (tmp_path / "torchcodec" / "__init__.py").write_text(BROKEN)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = run(videomae, clips[0], PYTHONPATH=path)
    assert found["seen"] == [True, True]
    assert found["pipeline"] == "hf_video.pipelines.video_classification"
    assert found["one"] == classify(clips[0], top_k=None)
    assert found["views"] == classify(clips[0], views="2x3", top_k=None)


def test_stock_processors_are_served_the_same_frames(videomae, clips, classify):
    """With transformers' own model and processor our pipeline works as well, up to their way of resizing."""
    from transformers.models.videomae import VideoMAEForVideoClassification
    from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

    stock = pipeline(
        "video-classification",
        model=VideoMAEForVideoClassification.from_pretrained(videomae),
        image_processor=VideoMAEImageProcessorPil.from_pretrained(videomae),
        device="cpu",
    )
    assert type(stock.model).__module__.startswith("transformers.")
    results = stock([clips[0], clips[1]], batch_size=2, top_k=None)
    for result, clip in zip(results, clips, strict=False):
        expected = {row["label"]: row["score"] for row in classify(clip, top_k=None)}
        assert {row["label"]: row["score"] for row in result} == pytest.approx(expected, abs=0.05)
    with pytest.raises(hf_video.HFVideoError, match="3 crops"):
        stock(clips[0], views="1x3")


def test_the_table_of_tasks_names_ours_and_can_be_left_alone(monkeypatch):
    table = transformers.pipelines.PIPELINE_REGISTRY.supported_tasks
    assert table["video-classification"]["impl"] == PIPELINES["video-classification"]
    monkeypatch.setitem(table, "video-classification", {**table["video-classification"], "impl": "stock"})
    register_auto_classes(override=False)
    assert table["video-classification"]["impl"] == "stock"
    register_auto_classes(override=True)
    assert table["video-classification"]["impl"] == PIPELINES["video-classification"]
