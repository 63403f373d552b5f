"""Near matches, counts, the word for what is wrong with a video, and where can be written."""

from __future__ import annotations

import errno
import os
import re
from fractions import Fraction

import numpy as np
import pytest
import tiny
import torch

from hf_video import errors
from hf_video.base.convert import load_official_file
from hf_video.base.written_files import check_output_file, check_output_folder
from hf_video.cli.error_messages import error_message
from hf_video.cli.verbs import info
from hf_video.clips.request import parse_views
from hf_video.data.rows import Skipped, plain_reason
from hf_video.data.sources.inspection import inspect_video
from hf_video.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    HFVideoError,
    OutputError,
    SamplingError,
    VideoOptionError,
    check_choice,
    check_count,
    check_number,
    check_switch,
    did_you_mean,
    near_path,
    nearest,
    pluralize,
    without_name,
)
from hf_video.evaluation.metrics import top_k_accuracy
from hf_video.evaluation.protocol import Protocol
from hf_video.evaluation.rows import split_rows
from hf_video.models.videomae.image_processing_videomae import VideoMAEImageProcessor
from hf_video.pipelines.base import VideoPipeline
from hf_video.training.arguments import make_arguments
from hf_video.training.runs.classification import finetune
from hf_video.training.runs.probe import probe_model
from hf_video.video.augment import Augmentation
from hf_video.video.frames.pixels import Sizing
from hf_video.video.sampling.samplers import uniform
from hf_video.video.transforms import resize


def test_nearest():
    assert nearest("Unifrom", ["uniform", "dense"]) == "uniform"
    assert did_you_mean("x", ["uniform"]) == ""
    assert did_you_mean(3, ["30", "x"]) == " Did you mean '30'?"


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_choice("mode", "unifrom", ["uniform", "dense"]), "'uniform', 'dense'. Did you mean 'uniform'?"),
        (lambda: check_choice("mode", "x", ("a", None), hint=" Why."), "mode='x' must be one of 'a', None. Why."),
        (lambda: check_count("n", 0), "n=0 must be a whole number, 1 or more."),
        (lambda: check_count("n", 2.0, unit="pixels", optional=True), "a whole number of pixels, 1 or more, or None."),
        (lambda: check_count("n", 5, least=0, most=4), "a whole number, from 0 to 4."),
        (lambda: check_count("n", None), "n=None must be"),
        (lambda: check_number("r", 1, least=0, below=1), "r=1 must be a number, at least 0 and below 1."),
        (lambda: check_number("r", 0.0, above=0, most=2), "a number, above 0 and at most 2."),
        (lambda: check_number("r", float("nan")), "r=nan must be a number."),
        (lambda: check_number("r", "1", optional=True), "r='1' must be a number, or None."),
        (lambda: check_switch("s", 1), "s=1 must be True or False."),
    ],
)
def test_checks_say_what_came_and_what_is_allowed(check, message):
    with pytest.raises(VideoOptionError, match=re.escape(message)):
        check()


def test_checks_return_python_values():
    values = [check_count("n", np.int32(3)), check_switch("s", np.bool_(True)), check_choice("c", "a", ("a",))]
    assert values == [3, True, "a"]
    assert [type(value) for value in values] == [int, bool, str]
    assert check_count("n", None, optional=True) is None
    assert check_number("r", Fraction(30000, 1001), above=0) == Fraction(30000, 1001)
    assert check_number("r", np.float32(0.5), least=0, below=1) == 0.5
    with pytest.raises(SamplingError):
        check_number("r", -1, SamplingError, least=0)


WHOLE_NUMBERS = {
    "sampler": lambda n: uniform(10, n).indices,
    "pipeline": lambda n: VideoPipeline.reading_options(None, num_frames=n),
    "processor": lambda n: VideoMAEImageProcessor(num_frames=n).num_frames,
    "reader": lambda n: Sizing((n, n)).size,
    "resize": lambda n: resize(torch.zeros(1, 4, 4, 3, dtype=torch.uint8), n),
    "augmentation": lambda n: Augmentation(size=n),
    "protocol": lambda n: Protocol("own", clips=n),
    "views": lambda n: parse_views((n, 1)),
    "metric": lambda n: top_k_accuracy([[0.1, 0.2, 0.3]], [1], n),
}


@pytest.mark.parametrize("entrance", WHOLE_NUMBERS)
def test_numpy_integers_are_whole_numbers_and_bools_are_not(entrance):
    WHOLE_NUMBERS[entrance](np.int64(2))
    for wrong in (True, np.bool_(True), 2.5):
        with pytest.raises(HFVideoError):
            WHOLE_NUMBERS[entrance](wrong)


def test_counted():
    words = [pluralize(n, "frame") for n in (0, 1, 2, 1234)] + [
        pluralize(1, "class", "classes"),
        pluralize(2, "class", "classes"),
    ]
    assert words == ["0 frames", "1 frame", "2 frames", "1,234 frames", "1 class", "2 classes"]


@pytest.mark.parametrize("kind", [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception)])
def test_our_errors_are_no_bugs(kind):
    assert error_message(kind("what came")) == "what came"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/x"),
            "/data/x can't be written: no space is left on the disk",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "here can't be written: no space is left on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "/data/x: Permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "/data/x"), "/data/x: Read-only file system"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "--batch-size"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "--num-workers"),
        (ModuleNotFoundError("No module named 'faiss'", name="faiss"), 'pip install "hf_video[retrieval]"'),
        (ImportError("the Trainer requires `accelerate>=1.1.0`"), 'pip install "hf_video[train]"'),
    ],
)
def test_ordinary_conditions_are_no_bugs(error, said):
    assert said in error_message(error, "here")


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("x"), ImportError("x", name="hf_video.x"), KeyError(1)]
)
def test_bugs_stay_bugs(error):
    assert error_message(error) is None


def test_folders_to_write(tmp_path):
    check_output_folder(tmp_path)
    check_output_folder(tmp_path / "a/b/c")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file/a/b", "/proc/nothing/below"):
        with pytest.raises(OutputError, match=r"file|can't be"):
            check_output_folder(path)


def test_files_to_write(tmp_path, monkeypatch):
    check_output_file(tmp_path / "a.PNG", suffixes=(".png", ".jpg"))
    monkeypatch.chdir(tmp_path)
    check_output_file("a.png")
    (tmp_path / "kept.png").write_text("kept")
    check_output_file("kept.png")
    assert os.listdir(tmp_path) == ["kept.png"]
    assert (tmp_path / "kept.png").read_text() == "kept"
    for path in (tmp_path, tmp_path / "kept.png/a.png", tmp_path / "none/a.png", "/proc/a.png", "a.gif"):
        with pytest.raises(OutputError):
            check_output_file(path, suffixes=(".png",))


def test_near_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos/train").mkdir(parents=True)
    (tmp_path / "vidoes.txt").touch()
    assert near_path("vidoes", folders=True) == " Is it 'videos'?"
    assert near_path("videos/trian") == " Is it 'videos/train'?"
    assert near_path("videos\\train") == " Is it 'videos/train'?"
    assert near_path("nothing/like/it") == " Nor is there 'nothing/like'."
    assert near_path("zzz") == ""


def test_the_name_of_a_file_stands_once_in_a_line(tmp_path):
    (tmp_path / "empty.mp4").touch()
    found = inspect_video(str(tmp_path / "empty.mp4"))
    line = str(Skipped("empty.mp4", plain_reason(found.reason, str(tmp_path / "empty.mp4"), "empty.mp4"), found.kind))
    assert line.count("empty.mp4") == 1
    assert line.startswith("empty.mp4: empty: is empty (0 bytes)")
    for reason in ("'a b.mp4' does not exist", "a b.mp4 does not exist", "a b.mp4: does not exist"):
        assert without_name(reason, "a b.mp4") == "does not exist"
    assert without_name("a b.mp4x is cut", "a b.mp4") == "a b.mp4x is cut"


@pytest.mark.parametrize("use", [split_rows, lambda data: probe_model(data, "no model yet")])
def test_unlabelled_videos_are_told_which_layout_is_wanted(tmp_path, use):
    tiny.write_clip(tmp_path / "a.mp4")
    tiny.write_clip(tmp_path / "b.mp4")
    (tmp_path / "INDEX.md").write_text("words")
    with pytest.raises(
        DataError, match=r"2 videos of .* without labels came.*<label>/clip.mp4.*clip.mp4,label"
    ) as caught:
        use(tmp_path)
    assert "INDEX.md" not in str(caught.value)


def test_what_a_torch_file_is_not_does_not_name_the_unsafe_way(tmp_path):
    for content in (b"", b"no checkpoint" * 99):
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match="no PyTorch file of plain tensors") as caught:
            load_official_file(tmp_path / "x.pth")
        assert "weights_only" not in str(caught.value)
    (tmp_path / "x.safetensors").write_bytes(b"\1\0\0\0\0\0\0\0{")
    with pytest.raises(CheckpointError, match="damaged"):
        load_official_file(tmp_path / "x.safetensors")


def test_info_says_the_whole_reason():
    error = RuntimeError(
        "Could not load libx. Likely causes:\n  1. FFmpeg is not properly installed\n  2. PyTorch (2.13) is "
        "not compatible\n\n[start of traceback]\nOSError: libavutil.so.60: cannot open shared object file: No\n"
    )
    said = info._reason(error)
    assert "Likely causes: 1. FFmpeg is not properly installed 2. PyTorch (2.13) is not compatible" in said
    assert "libavutil.so.60: cannot open shared object file" in said
    assert info._reason(RuntimeError("no FFmpeg here\nlong story")) == "RuntimeError: no FFmpeg here"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1])
@pytest.mark.parametrize("name", ["num_train_epochs", "learning_rate", "per_device_train_batch_size"])
def test_training_arguments_are_numbers_that_mean_something(tmp_path, name, value):
    with pytest.raises(ConfigError, match=f"{name} must be"):
        make_arguments(tmp_path, {name: value})


def test_a_protocol_is_checked_before_anything_is_loaded(tmp_path):
    for protocol in ("papr", "5x5", "0x3", ""):
        with pytest.raises(HFVideoError, match="There is no protocol"):
            finetune(tmp_path / "none", "no model yet", protocol=protocol)
