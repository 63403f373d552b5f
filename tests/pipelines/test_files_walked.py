"""How many files of the package one call walks through: what a reader opens to understand it."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from transformers import AutoImageProcessor

import hf_video

ROOT = str(Path(hf_video.__file__).parent)


def files_walked(call) -> set[str]:
    """The files of the package whose functions run in a call."""
    found = set()

    def note(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(ROOT):
            found.add(frame.f_code.co_filename[len(ROOT) + 1 :])

    before = sys.getprofile(), threading.getprofile()
    sys.setprofile(note)
    threading.setprofile(note)  # of threads that begin in the call
    try:
        call()
    finally:
        sys.setprofile(before[0])
        threading.setprofile(before[1])
    return found


# Layers, VideoMAE and the base of models are 7 of the first.
@pytest.mark.parametrize(("entrance", "most"), [("pipeline", 26), ("processor", 14)])
def test_files_walked(entrance, most, classify, videomae, clips):
    processor = AutoImageProcessor.from_pretrained(videomae)
    calls = {"pipeline": lambda: classify(clips[0]), "processor": lambda: processor(clips[0], return_tensors="pt")}
    calls[entrance]()  # what is done once only
    found = files_walked(calls[entrance])
    assert {"base/processing.py", "video/reader.py"} <= found
    assert len(found) <= most, sorted(found)
