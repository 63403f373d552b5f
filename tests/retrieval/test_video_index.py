"""An index follows its folder: new, changed, renamed and removed files; other models and bad input leave it alone."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil

import numpy as np
import pytest
import tiny
from library import save_videoclip, write_library
from PIL import Image

import hf_video
from hf_video.base.written_files import read_json, write_json
from hf_video.data.rows import VideoRow
from hf_video.errors import CheckpointError, DataError, VideoIndexError, VideoOptionError, VideoSourceError
from hf_video.features.embed import ModelLoader
from hf_video.features.extraction import extract_features
from hf_video.retrieval import Moment, VideoIndex, writing
from hf_video.retrieval.encoders import FingerprintEncoder
from hf_video.retrieval.moments import merge_overlapping
from hf_video.video.reader import VideoReader

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_library(tmp_path_factory.mktemp("clips"), 5)


@pytest.fixture
def library(clips, tmp_path):
    return shutil.copytree(clips, tmp_path / "library")


@pytest.fixture(scope="module")
def videoclip(tmp_path_factory):
    return save_videoclip(tmp_path_factory.mktemp("videoclip"))


@pytest.fixture
def index(library, tmp_path):
    found = VideoIndex.create(tmp_path / "index")
    found.update(library, "fingerprint")
    return found


def contents(index: VideoIndex) -> tuple[list, np.ndarray]:
    moments, vectors = index.vectors()
    return [(os.path.basename(m.path), m.start, m.end) for m in moments], vectors


def same(first: VideoIndex, second: VideoIndex) -> None:
    (names, vectors), (others, more) = contents(first), contents(second)
    assert names == others
    np.testing.assert_array_equal(vectors, more)


def snapshot(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Counting(FingerprintEncoder):
    def __init__(self):
        self.seen: list[str] = []

    def embed(self, source, windows):
        self.seen.append(os.path.basename(source))
        return super().embed(source, windows)


# --- following the folder ------------------------------------------------------------------------------------------


def test_a_second_run_embeds_nothing(library, tmp_path):
    encoder = Counting()
    index = VideoIndex.create(tmp_path / "index")
    report = index.update(library, encoder)
    assert (report.videos, report.embedded, report.moments) == (5, 5, 10)
    assert sorted(encoder.seen) == [f"clip{i}.mkv" for i in range(5)]
    before = snapshot(tmp_path / "index")
    encoder.seen.clear()
    report = VideoIndex.open(tmp_path / "index").update(library, encoder)
    assert (report.embedded, report.unchanged, report.moments) == (0, 5, 10)
    assert encoder.seen == []
    assert snapshot(tmp_path / "index") == before


def test_new_replaced_renamed_touched_and_removed_files(index, library, tmp_path):
    (library / "clip0.mkv").unlink()
    (library / "clip1.mkv").rename(library / "renamed.mkv")
    tiny.write_clip(library / "clip2.mkv", 32, height=48, width=48, seed=77)
    os.utime(library / "clip3.mkv", ns=(1, 1))
    (library / "below").mkdir()
    tiny.write_clip(library / "below" / "new.mkv", 16, height=48, width=48, seed=78)
    encoder = Counting()
    report = index.update(library, encoder)
    assert sorted(encoder.seen) == ["clip2.mkv", "new.mkv"]
    assert (report.embedded, report.copied, report.unchanged, report.removed) == (2, 2, 1, 2)
    fresh = VideoIndex.create(tmp_path / "fresh")
    fresh.update(library, "fingerprint")
    same(index, fresh)
    same(VideoIndex.open(tmp_path / "index"), fresh)
    assert index.update(library).unchanged == 5


def test_a_file_replaced_with_its_old_date_and_size_is_seen(index, library):
    status = (library / "clip0.mkv").stat()
    data = bytearray((library / "clip1.mkv").read_bytes())
    (library / "clip0.mkv").write_bytes((data + bytes(status.st_size))[: status.st_size])
    os.utime(library / "clip0.mkv", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert index.update(library).embedded == 1


def test_folders_in_one_index_are_apart(index, library, tmp_path):
    other = write_library(tmp_path / "library2", 2, frames=16)
    assert index.update(other).removed == 0
    assert len(index.files) == 7
    (other / "clip0.mkv").unlink()
    assert index.update(other).removed == 1
    assert len(index.files) == 6


def test_unreadable_files_are_named_each_time_and_read_once(index, library):
    (library / "bad.mp4").write_text("no video")
    (library / "notes.txt").write_text("no video by its name")
    encoder = Counting()
    for embedded in (1, 0):
        report = index.update(library, encoder)
        assert report.embedded == embedded
        assert [(os.path.basename(s.name), s.kind) for s in report.skipped] == [("bad.mp4", "not a video")]
    assert encoder.seen == ["bad.mp4"]


def test_many_small_segments_are_joined(library, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "FLUSH_SECONDS", -1.0)
    monkeypatch.setattr(writing, "MANY", 3)
    index = VideoIndex.create(tmp_path / "index")
    index.update(library, "fingerprint")
    assert len(os.listdir(tmp_path / "index" / "segments")) == 1
    fresh = VideoIndex.create(tmp_path / "fresh")
    fresh.update(library, "fingerprint")
    same(index, fresh)


def test_a_reader_goes_on_while_another_writes(index, library, tmp_path):
    reader = VideoIndex.open(tmp_path / "index")
    before = reader.search(video=library / "clip4.mkv", top_k=3)
    for i in range(4):
        (library / f"clip{i}.mkv").unlink()
    index.update(library)
    assert reader.search(video=library / "clip4.mkv", top_k=3) == before
    assert {os.path.basename(m.path) for m in index.search(video=library / "clip4.mkv")} == {"clip4.mkv"}


@pytest.mark.slow
def test_several_processes_make_the_same_index(index, library, videoclip, tmp_path):
    other = VideoIndex.create(tmp_path / "other")
    assert other.update(library, "fingerprint", workers=2).embedded == 5
    same(index, other)


def test_names_of_any_bytes(library, tmp_path):
    name = os.fsencode(library) + b"/caf\xe9.mkv"
    try:
        os.rename(os.fsencode(library / "clip0.mkv"), name)
    except OSError:
        pytest.skip("this file system takes no such name")
    index = VideoIndex.create(tmp_path / "index")
    index.update(library, "fingerprint")
    found = VideoIndex.open(tmp_path / "index").search(video=os.fsdecode(name), top_k=1)
    assert os.fsencode(found[0].path) == name


# --- searching -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def described(clips, videoclip, tmp_path_factory):
    index = VideoIndex.create(tmp_path_factory.mktemp("described") / "index")
    index.update(clips, str(videoclip), window="1s/0.5s")
    return index


def test_vectors_are_those_of_the_model(described, clips, videoclip):
    moments, vectors = described.vectors()
    model, processor = ModelLoader(str(videoclip), device="cpu")(0)
    rows = [VideoRow(str(path), None, str(path)) for path in sorted(clips.iterdir())]
    features = extract_features(model, processor, rows, windows="1s/0.5s")
    assert [m.path for m in moments] == features.names
    np.testing.assert_allclose([m.seconds for m in moments], features.seconds)
    unit = features.embeddings / np.linalg.norm(features.embeddings, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, unit, atol=1e-5)


def test_exact_search_is_brute_force(described):
    moments, vectors = described.vectors()
    query = np.random.default_rng(0).standard_normal(vectors.shape[1]).astype(np.float32)
    scores = vectors @ (query / np.linalg.norm(query))
    order = np.argsort(-scores, kind="stable")[:7]
    found = described.search(vector=query, top_k=7, merge=False)
    assert [(m.path, m.seconds) for m in found] == [(moments[i].path, moments[i].seconds) for i in order]
    np.testing.assert_allclose([m.score for m in found], scores[order], atol=1e-6)
    assert described.search(query, top_k=7, merge=False) == found
    assert len(described.search(vector=query, top_k=1000, merge=False)) == len(moments)


def test_sentences_and_examples(described, clips, videoclip, tmp_path):
    import torch

    opened = VideoIndex.open(described._store.folder)
    found = opened.search("a ring moving left", top_k=3)
    model, _ = ModelLoader(str(videoclip), device="cpu")(0)
    tokens = hf_video.VideoCLIPProcessor.from_pretrained(videoclip)(text="a ring moving left")
    with torch.inference_mode():
        vector = model.get_text_features(**tokens).embedding[0]
    assert found == described.search(vector=vector.numpy(), top_k=3)
    best = opened.search(clips / "clip3.mkv", top_k=1)[0]
    assert best.path == str(clips / "clip3.mkv")
    assert best.score == pytest.approx(1, abs=1e-5)
    frames = tiny.moving_frames(24, height=48, width=48, seed=2)
    assert opened.search(video=frames, top_k=1)[0].path in {str(p) for p in clips.iterdir()}


def test_any_clip_of_images_and_texts(clips, tmp_path):
    """Frames averaged, by hand, are what the index holds, and the text tower is stock's."""
    import torch
    from tiny_text import tiny_clip_text, tiny_clip_vision, tiny_tokenizer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    towers = {"text_config": tiny_clip_text().to_dict(), "vision_config": tiny_clip_vision().to_dict()}
    stock = CLIPModel(CLIPConfig(**towers, projection_dim=64)).eval()
    stock.save_pretrained(tmp_path / "clip")
    tiny_tokenizer().save_pretrained(tmp_path / "clip")
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = CLIPImageProcessor(**sizes)
    processor.save_pretrained(tmp_path / "clip")
    index = VideoIndex.create(tmp_path / "index")
    index.update(clips, str(tmp_path / "clip"))
    vectors = index.vectors()[1]
    assert vectors.shape == (10, 64)
    found = VideoIndex.open(tmp_path / "index").search("a ring moving left", top_k=3)
    tokens = tiny_tokenizer()("a ring moving left", return_tensors="pt")
    with torch.inference_mode():
        text = stock.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output[0]
    assert [m.path for m in found] == [m.path for m in index.search(vector=text.numpy(), top_k=3)]
    np.testing.assert_allclose(
        [m.score for m in found], [m.score for m in index.search(vector=text, top_k=3)], atol=1e-5
    )
    whole, num_frames = index.files[0].path, index.encoder.processor.image_processor.num_frames
    from hf_video.clips.read import cut
    from hf_video.clips.request import Windows
    from hf_video.video.reader import VideoReader
    from hf_video.video.sampling.samplers import sample_video

    with VideoReader(whole) as reader:
        segment = cut(reader, Windows(2.0, 1.0))[0]
        frames = reader.get_frames(segment.in_video(sample_video(segment, num_frames)).indices.ravel()).data
    with torch.inference_mode():
        pixels = processor(list(frames), return_tensors="pt").pixel_values
        images = torch.nn.functional.normalize(stock.get_image_features(pixels).pooler_output, dim=-1)
    mean = torch.nn.functional.normalize(images.mean(0), dim=0).numpy()
    np.testing.assert_allclose(vectors[0], mean, atol=2e-3)  # resizing rounds to whole levels


def test_models_without_vectors_are_refused(clips, tmp_path):
    import torch
    from tiny_text import tiny_clip_text, tiny_clip_vision

    config = hf_video.VideoCLIPConfig(
        video_config=tiny_clip_vision(), text_config=tiny_clip_text(), projection_dim=64, temporal="tight"
    )
    torch.manual_seed(0)
    model = hf_video.VideoCLIPModel(config)
    with pytest.raises(CheckpointError, match="together"):
        VideoIndex.build(tmp_path / "index", clips, model, hf_video.VideoCLIPImageProcessor())
    assert not (tmp_path / "index").exists()


def test_merging():
    moments = [Moment("a", 0, 2, 0.5), Moment("b", 0, 2, 0.9), Moment("a", 1, 3, 0.7), Moment("a", 3, 5, 0.1)]
    assert merge_overlapping(moments) == [Moment("b", 0, 2, 0.9), Moment("a", 0, 3, 0.7), Moment("a", 3, 5, 0.1)]


def scored(tmp_path, scores: dict[str, list[float]]) -> VideoIndex:
    """Windows of 2 s every second with these scores for the query `QUERY`."""
    index = VideoIndex.create(tmp_path / "scored")
    index.add_many(
        (
            path,
            [[score, (1 - score**2) ** 0.5] for score in mine],
            [(start, start + 2) for start in range(len(mine))],
        )
        for path, mine in scores.items()
    )
    return index


QUERY = [1.0, 0.0]
SCORES = {
    "a": [0.9, 0.95, 0.94, 0.93, 0.92, 0.91, 0.1, 0.1, 0.8],
    "b": [0.5, 0.6, 0.2, 0.2, 0.55],
    "c": [0.4],
}


def places(moments) -> list[tuple[str, float, float, float]]:
    return [(m.path, m.start, m.end, round(m.score, 2)) for m in moments]


def test_places_that_merging_leaves_free_are_filled(tmp_path):
    index = scored(tmp_path, SCORES)
    plain = index.search(vector=QUERY, top_k=6, merge=False)
    assert {m.path for m in plain} == {"a"}
    wanted = [("a", 0, 7, 0.95), ("a", 8, 10, 0.8), ("b", 1, 3, 0.6), ("b", 4, 6, 0.55), ("c", 0, 2, 0.4)]
    assert places(index.search(vector=QUERY, top_k=6)) == wanted
    assert places(index.search(vector=QUERY, top_k=6, per_video=1)) == [wanted[0], wanted[2], wanted[4]]
    assert places(index.search(vector=QUERY, top_k=6, threshold=0.5)) == wanted[:4]
    assert index.search(vector=QUERY, threshold=0.99) == []
    pages = [index.search(vector=QUERY, top_k=2, offset=offset) for offset in (0, 2, 4, 6, 8)]
    assert [len(page) for page in pages] == [2, 2, 2, 1, 0]
    shown = [moment for page in pages for moment in page]
    assert [m.score for m in shown] == sorted((m.score for m in shown), reverse=True)
    for first, second in itertools.combinations(shown, 2):  # no page shows again what another one did
        assert first.path != second.path or first.end <= second.start or second.end <= first.start
    for options in ({"per_video": 0}, {"offset": -1}):
        with pytest.raises(VideoOptionError, match=next(iter(options))):
            index.search(vector=QUERY, **options)


def test_an_image_as_query(described, index, clips, tmp_path):
    for number in range(3):
        with VideoReader(clips / f"clip{number}.mkv") as reader:
            picture = Image.fromarray(reader.get_frames([12]).data[0])
        path = tmp_path / f"picture{number}.png"
        picture.save(path)
        for known in (described, index):
            found = known.search(image=path, top_k=3)
            assert found == known.search(picture, top_k=3) == known.search(image=str(path), top_k=3)
        assert os.path.basename(index.search(image=path, top_k=1)[0].path) == f"clip{number}.mkv"
    frame = np.asarray(picture)[None]
    assert described.search(image=picture) == described.search(video=frame)  # through the same tower
    with pytest.raises(VideoOptionError, match="24 frames"):
        index.search(image=clips / "clip0.mkv")
    with pytest.raises(VideoSourceError, match=r"nothing\.png"):
        index.search(image="nothing.png")


def test_ready_made_vectors(tmp_path):
    index = VideoIndex.create(tmp_path / "index")
    random = np.random.default_rng(0)
    for name in "abc":
        index.add(name, random.standard_normal((4, 8)), np.stack([np.arange(4), np.arange(4) + 2.0], 1))
    index.add("a", np.eye(8)[:2], [[0, 1], [1, 2]])
    assert len(index) == 10
    assert index.search(vector=np.eye(8)[1], top_k=1) == [Moment("a", 1.0, 2.0, 1.0)]
    with pytest.raises(VideoOptionError, match="search by vector"):
        index.search("words")
    with pytest.raises(VideoIndexError, match="Vectors of 9"):
        index.add("d", np.ones((1, 9)), [[0, 1]])
    for vectors, seconds in ((np.ones(8), [[0, 1]]), (np.ones((2, 8)), [[0, 1]]), (np.full((1, 8), np.nan), [[0, 1]])):
        with pytest.raises(VideoOptionError):
            index.add("d", vectors, seconds)
    assert len(index) == 10


# --- bad input -----------------------------------------------------------------------------------------------------


def test_another_model_is_refused_and_nothing_changes(described, library, tmp_path):
    folder = described._store.folder
    before = snapshot(folder)
    other = save_videoclip(tmp_path / "other", seed=3)
    with pytest.raises(VideoIndexError, match="weights differ"):
        described.update(library, str(other))
    with pytest.raises(VideoIndexError, match="weights differ"):
        VideoIndex.open(folder, str(other))
    with pytest.raises(VideoIndexError, match="fingerprint"):
        described.update(library, "fingerprint")
    with pytest.raises(VideoIndexError, match=r"1s/0.5s, and 2s/1s came"):
        described.update(library, window="2s/1s")
    with pytest.raises(VideoIndexError, match="vectors of two models"):
        described.add("a", np.ones((1, 64)), [[0, 1]])
    assert snapshot(folder) == before


def test_the_same_model_elsewhere_is_accepted(described, clips, videoclip, tmp_path):
    copy = shutil.copytree(videoclip, tmp_path / "moved")
    assert VideoIndex.open(described._store.folder, str(copy)).update(clips).unchanged == 5


def test_a_loaded_model_with_its_processor(clips, videoclip, described, tmp_path):
    model = hf_video.VideoCLIPModel.from_pretrained(videoclip)
    processor = hf_video.VideoCLIPProcessor.from_pretrained(videoclip)
    index = VideoIndex.create(tmp_path / "index")
    index.update(clips, model, processor, window="1s/0.5s")
    same(index, described)
    assert index.search("a ring", top_k=2) == described.search("a ring", top_k=2)
    with pytest.raises(VideoOptionError, match="processor"):
        VideoIndex.create(tmp_path / "other").update(clips, model)


def test_bad_input_leaves_the_index_as_it_was(index, library, tmp_path):
    before = snapshot(tmp_path / "index")
    (tmp_path / "empty").mkdir()
    (tmp_path / "no-model").mkdir()
    for error, message, call in (
        (DataError, "no videos", lambda: index.update(tmp_path / "empty")),
        (DataError, "no folder", lambda: index.update(tmp_path / "missing")),
        (CheckpointError, "no folder", lambda: index.update(library, str(tmp_path / "missing"))),
        (CheckpointError, r"no config\.json", lambda: index.update(library, str(tmp_path / "no-model"))),
        (VideoOptionError, "engine", lambda: index.update(library, engine="spark")),
        (VideoOptionError, "workers", lambda: index.update(library, workers=0)),
        (VideoOptionError, "can't read text", lambda: index.search("a sentence")),
        (VideoOptionError, "one query", lambda: index.search()),
        (VideoOptionError, "one query", lambda: index.search("a", text="b")),
        (VideoOptionError, "can't read text", lambda: index.search(text="")),
        (VideoOptionError, "top_k", lambda: index.search("a", top_k=0)),
        (VideoOptionError, "shape", lambda: index.search(vector=np.ones(3))),
        (VideoIndexError, "already", lambda: VideoIndex.create(tmp_path / "index")),
        (VideoIndexError, "other things", lambda: VideoIndex.create(library)),
        (VideoIndexError, "not a search index", lambda: VideoIndex.open(tmp_path / "empty")),
        (VideoIndexError, "not a search index", lambda: VideoIndex.open(tmp_path / "missing")),
    ):
        with pytest.raises(error, match=message):
            call()
    assert snapshot(tmp_path / "index") == before
    assert not (tmp_path / "missing").exists()


def test_a_new_index_needs_a_model_and_is_not_made_without(library, tmp_path):
    for error, videos, model in (
        (VideoOptionError, library, None),
        (DataError, tmp_path / "missing", "fingerprint"),
        (CheckpointError, library, str(tmp_path / "missing")),
    ):
        with pytest.raises(error):
            VideoIndex.build(tmp_path / "new", videos, model)
    assert not (tmp_path / "new").exists()
    with pytest.raises(VideoOptionError, match="needs a model"):
        VideoIndex.create(tmp_path / "new").update(library)
    with pytest.raises(VideoIndexError, match="empty"):
        VideoIndex.open(tmp_path / "new").search(vector=np.ones(3)), VideoIndex.open(tmp_path / "new").encoder


@pytest.mark.parametrize("name", ["manifest.json", "vectors.npy", "files.parquet", "moments.parquet"])
@pytest.mark.parametrize("damage", [b"", b"{}garbage"])
def test_a_damaged_index_is_named(index, library, tmp_path, name, damage):
    (path,) = (tmp_path / "index").rglob(name)
    path.write_bytes(damage)
    with pytest.raises(VideoIndexError, match="damaged"):
        VideoIndex.open(tmp_path / "index")


def test_another_format_is_named(index, tmp_path):
    path = tmp_path / "index" / "manifest.json"
    write_json(path, {**read_json(path), "format": 99})
    with pytest.raises(VideoIndexError, match="format 99"):
        VideoIndex.open(tmp_path / "index")


def test_only_one_writes(index, library):
    with index._store.writing():
        with pytest.raises(VideoIndexError, match="being written"):
            index.update(library)
    assert index.update(library).unchanged == 5


def test_one_flipped_bit_in_any_file_is_refused_by_name(index, tmp_path):
    files = [path for path in sorted((tmp_path / "index").rglob("*")) if path.is_file() and path.name != ".lock"]
    assert len(files) == 4
    random = np.random.default_rng(0)
    for path in files:
        sound = path.read_bytes()
        for place in [0, len(sound) - 1, *random.integers(0, len(sound), 30)]:
            path.write_bytes(sound[:place] + bytes([sound[place] ^ (1 << random.integers(8))]) + sound[place + 1 :])
            with pytest.raises(VideoIndexError, match=re.escape(str(path))):
                VideoIndex.open(tmp_path / "index")
        path.write_bytes(sound)
    assert len(VideoIndex.open(tmp_path / "index")) == len(index)


def test_a_file_is_there_once_however_it_is_spelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    index = VideoIndex.create(tmp_path / "index")
    names = ["a.mp4", str(tmp_path / "a.mp4"), "./a.mp4", "link.mp4", "gone/../a.mp4"]
    index.add_many([(name, np.eye(3)[[number % 3]], [(0, 1)]) for number, name in enumerate(names)])
    assert [file.path for file in index.files] == ["gone/../a.mp4"]
    assert len(index) == 1
    index.add("link.mp4", np.eye(3)[:2], [(0, 1), (1, 2)])
    assert [file.path for file in index.files] == ["link.mp4"]
    assert len(VideoIndex.open(tmp_path / "index")) == 2


def test_a_library_reached_by_another_path_is_the_same(index, library, tmp_path):
    (tmp_path / "other").symlink_to(library, target_is_directory=True)
    report = index.update(tmp_path / "other")
    assert (report.unchanged, report.embedded, report.copied, report.removed) == (5, 0, 0, 0)
    assert len(index.files) == 5
    (library / "clip0.mkv").unlink()
    (library / "twin.mkv").symlink_to("clip1.mkv")
    (library / "notes.txt").write_text("no video")
    report = index.update(tmp_path / "other")
    assert (report.videos, report.unchanged, report.removed) == (4, 4, 1)
    assert {one.name for one in report.left_out} == {"twin.mkv", "notes.txt"}


@pytest.mark.parametrize("step", ["rename", "replace", "fsync"])
def test_a_full_disk_is_told_and_what_is_there_stays(index, library, tmp_path, monkeypatch, step):
    import errno

    before = contents(index)
    tiny.write_clip(library / "more.mkv", 16, height=48, width=48, seed=9)
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(os, step, full)
        if step == "fsync":
            with contextlib.suppress(VideoIndexError):
                index.update(library)
        else:
            with pytest.raises(VideoIndexError, match="No space left"):
                index.update(library)
    if step != "fsync":
        np.testing.assert_array_equal(contents(VideoIndex.open(tmp_path / "index"))[1], before[1])
    assert index.update(library).videos == 6


def test_a_place_that_cant_be_written(library, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VideoIndexError, match="can't be written"):
        VideoIndex.build(tmp_path / "file" / "index", library, "fingerprint")
