"""One word for one fault of a video at every entrance: reading, checking, training, evaluating, embedding, indexing."""

from __future__ import annotations

import errno
import json
import tarfile

import evaluation_models
import numpy as np
import pytest
import tiny

from hf_video import errors
from hf_video.cli.verbs import info
from hf_video.clips.request import parse_windows
from hf_video.data import VideoDataset, VideoStream, load_videos
from hf_video.data.check.transcoding import transcode_videos
from hf_video.data.check.videos import check_videos
from hf_video.data.rows import ListedVideo, Skipped, VideoRow, VideoRows
from hf_video.data.sources.inspection import inspect_video
from hf_video.errors import HFVideoError, fault_kind
from hf_video.evaluation.classification import evaluate_videos
from hf_video.features.extraction import extract_features
from hf_video.pipelines.video_classification import VideoClassificationPipeline
from hf_video.retrieval import file_embedding
from hf_video.retrieval.encoders import ModelEncoder
from hf_video.retrieval.file_embedding import embed_file
from hf_video.video import VideoReader, sample_video


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    """A file for each word."""
    folder = tmp_path_factory.mktemp("bad")
    tiny.write_clip(folder / "good.mp4")
    (folder / "empty").write_bytes(b"")
    (folder / "not a video").write_text("only words\n" * 99)
    data = (folder / "good.mp4").read_bytes()
    tiny.write_clip(folder / "good.mp4", 40)
    (folder / "short").write_bytes(data)
    begin = data.index(b"mdat") + 4
    (folder / "damaged").write_bytes(data[:begin] + bytes(len(data) - begin))
    return folder


@pytest.fixture(scope="module")
def strict():
    """A tiny model and its processor, which takes no video of fewer frames than a clip spans."""
    model, processor = evaluation_models.make("videomae")
    processor.num_frames = 4
    processor.sampler, processor.sampler_options = "center", {"stride": 8, "short": "error"}
    return model.float().eval(), processor


def _kind_of(skipped):
    (one,) = skipped
    return one.kind


def _read(path, strict):
    processor = strict[1]
    try:
        with VideoReader(path) as reader:
            sample = sample_video(reader, 4, sampler=processor.sampler, **processor.sampler_options)
            reader.get_frames(sample.indices[0])
    except HFVideoError as error:
        return fault_kind(error)


def _rows(path):
    good = str(path.parent / "good.mp4")
    return VideoRows([VideoRow(good, 0, "good"), VideoRow(str(path), 0, path.name)], tiny.LABELS)


def _index(path, strict):
    found = embed_file(ModelEncoder(*strict), str(path), parse_windows("1s"))
    return found.kind if isinstance(found, Skipped) else found.record.kind


def _check(path, strict):
    (path.parent / "list.csv").write_text(f"video\n{path}\ngood.mp4\n")
    report, _ = check_videos(path.parent / "list.csv", num_frames=4 * 8, content=False)
    return _kind_of(report.faults)


def _train(path, strict):
    data = VideoDataset(_rows(path), strict[1], max_errors=1.0)
    data[1]
    return _kind_of(data.skipped())


def _classify(path, strict):
    pipeline = VideoClassificationPipeline(model=strict[0], image_processor=strict[1])
    return pipeline([str(path)], bad_files="report")[0]["kind"]


ENTRANCES = {
    "reader": _read,
    "inspect": lambda path, strict: inspect_video(str(path)).kind,
    "check": _check,
    "embed": lambda path, strict: _kind_of(extract_features(*strict, _rows(path)).skipped),
    "evaluate": lambda path, strict: _kind_of(evaluate_videos(*strict, _rows(path)).skipped),
    "classify": _classify,
    "index": _index,
    "train": _train,
    "transcode": lambda path, strict: _kind_of(transcode_videos([ListedVideo(str(path), "x")], path.parent / "t")[2]),
}


@pytest.mark.parametrize("kind", ["empty", "not a video", "damaged", "missing", "short"])
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_every_entrance_has_one_word_for_a_fault(bad_files, strict, entrance, kind):
    if kind == "short" and entrance in ("inspect", "transcode"):
        pytest.skip("takes videos of any length")
    assert ENTRANCES[entrance](bad_files / kind, strict) == kind


@pytest.mark.parametrize("kind", ["empty", "not a video", "damaged", "missing"])
def test_info_has_the_same_words(bad_files, capsys, kind):
    info.describe_files([str(bad_files / kind)], as_json=True)
    (found,) = json.loads(capsys.readouterr().out)
    assert found.get("kind", "damaged") == kind  # what describes a file does not decode all of it


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError])
def test_what_the_system_does_not_open_is_missing(monkeypatch, tmp_path, strict, error):
    """As a reader says it, which turns these errors into its own."""
    tiny.write_clip(tmp_path / "a.mp4")
    assert fault_kind(error("no")) == "missing"

    def refuse(path):
        raise error(errno.EACCES, "no", path)

    monkeypatch.setattr(file_embedding, "file_record", refuse)
    assert _index(tmp_path / "a.mp4", strict) == "missing"


def test_a_shard_that_is_gone_is_missing_and_a_cut_one_damaged(tmp_path, strict):
    for name in ("gone.tar", "cut.tar"):
        with tarfile.open(tmp_path / name, "w") as tar:
            tar.add(tiny.write_clip(tmp_path / "a.mp4"), "a.mp4")
    stream = VideoStream([str(tmp_path / "gone.tar"), str(tmp_path / "cut.tar")], strict[1])
    (tmp_path / "gone.tar").unlink()
    (tmp_path / "cut.tar").write_bytes((tmp_path / "cut.tar").read_bytes()[:900])
    assert not list(stream)
    assert [one.kind for one in stream.skipped()] == ["missing", "damaged"]


def test_arrays_that_are_no_video():
    with pytest.raises(errors.VideoArrayError) as caught:
        VideoReader(np.zeros((3, 4), np.uint8)).metadata  # noqa: B018
    assert fault_kind(caught.value) == "not a video"


def test_a_missing_file_of_a_list_is_missing(tmp_path):
    tiny.write_clip(tmp_path / "a.mp4")
    (tmp_path / "list.csv").write_text("path,label\na.mp4,x\ngone.mp4,y\n")
    splits = load_videos(tmp_path / "list.csv", test_size=0.0, inspect=None)
    assert {one.kind for rows in splits.values() for one in rows.skipped} == {"missing"}
