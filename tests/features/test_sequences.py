"""Feature sequences: seconds and positions, what is kept on disk, and that every vector is the encoder's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_video.clips.grid import FeatureGrid
from hf_video.data.rows import VideoRow, VideoRows
from hf_video.errors import CheckpointError, DataError, VideoError, VideoOptionError
from hf_video.features.sequence_encoder import (
    SequenceEncoder,
    extract_sequences,
    featured_rows,
    load_encoder,
    save_encoder,
)
from hf_video.features.sequences import FeatureSequence, check_sequence, grid_of
from hf_video.models.actionformer.configuration_actionformer import ActionFormerConfig
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig
from hf_video.models.videomae.image_processing_videomae import VideoMAEImageProcessor
from hf_video.models.videomae.modeling_videomae import VideoMAEModel
from hf_video.video.frames.types import VideoFrames
from hf_video.video.writer import write_video

TINY = {"image_size": 16, "patch_size": 8, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved encoder and two videos."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sequences")
    model = VideoMAEModel(VideoMAEConfig(**TINY, num_attention_heads=2, intermediate_size=16))
    model.save_pretrained(folder / "encoder")
    processor = VideoMAEImageProcessor(num_frames=4, size={"height": 16, "width": 16}, do_center_crop=False)
    processor.save_pretrained(folder / "encoder")
    for number, count in enumerate((40, 25)):
        frames = np.random.default_rng(number).integers(0, 255, (count, 16, 16, 3), dtype=np.uint8)
        write_video(folder / f"{number}.mp4", frames, fps=10)
    return folder


def encoder(folder, **options):
    return SequenceEncoder(folder / "encoder", **{"grid": "8/4", **options})


def test_positions_and_seconds_as_the_official_code_has_them():
    """Seconds · fps / stride - offset and back (ActionFormer, libs/datasets/thumos14.py), clamped to the video."""
    sequence = FeatureSequence.from_array(np.zeros((50, 3)), "16/4", fps=30.0, duration=7.0)
    steps = np.array([-1.5, 0, 0.25, 17.3, 40])
    assert sequence.to_seconds(steps) == pytest.approx(np.clip((steps * 4 + 8) / 30, 0, 7), abs=1e-12)
    seconds = np.array([0, 0.1, 3.3, 7.0, 9.0])
    assert sequence.to_steps(seconds) == pytest.approx(seconds * 30 / 4 - 2, abs=1e-12)
    assert sequence.seconds[-1] == pytest.approx([49 * 4 / 30, min((49 * 4 + 16) / 30, 7)])
    assert FeatureSequence.from_array(np.zeros((2, 3)), "16/4", fps=30.0).to_seconds(1e5) == pytest.approx(400008 / 30)


def test_uneven_times_go_there_and_back():
    times = np.cumsum([0.5, *([0.1] * 10), *([0.4] * 10)])
    line = np.stack([np.arange(22), [*times, times[-1] + 0.4]], axis=1)
    sequence = FeatureSequence(np.zeros((4, 2), np.float32), FeatureGrid(4, 8), line)
    assert sequence.to_seconds(2.0) == pytest.approx(times[12])
    steps = np.array([-0.7, 0.2, 1.9, 3.1])
    assert sequence.to_steps(sequence.to_seconds(steps)) == pytest.approx(steps)
    assert sequence.bounds == pytest.approx((0.5, 5.9))


def test_resized_is_the_official_stretch():
    rows = np.random.default_rng(0).normal(size=(21, 5)).astype(np.float32)
    sequence = FeatureSequence.from_array(rows, "16/16", fps=15.0, duration=30.0).resized(48)
    expected = torch.nn.functional.interpolate(torch.from_numpy(rows.T[None].copy()), size=48, mode="linear")[0].T
    assert torch.equal(torch.from_numpy(sequence.vectors), expected)
    stride = (20 * 16 + 16) / 48
    assert sequence.to_seconds(10.0) == pytest.approx((10 * stride + 0.5 * stride) / 15)
    assert len(sequence.every(3)) == 16
    assert sequence.every(3).grid.stride == pytest.approx(3 * stride)


def test_vectors_are_the_encoder_s_own(folder):
    """Vector i is that of frames 4 i … 4 i + 7 alone, of which the model takes 4, and batches change nothing."""
    from hf_video.video.reader import VideoReader

    one = encoder(folder, batch_size=1)(folder / "0.mp4")
    many = encoder(folder, batch_size=7)(str(folder / "0.mp4"))
    assert len(one) == len(many) == 9
    np.testing.assert_allclose(one.vectors, many.vectors, atol=1e-6)
    with VideoReader(folder / "0.mp4") as reader:
        frames = reader.get_frames(range(8, 16))
    alone = encoder(folder)(VideoFrames(data=frames.data, indices=np.arange(8), seconds=np.arange(8) / 10))
    np.testing.assert_allclose(alone.vectors[0], one.vectors[2], atol=1e-6)
    assert one.seconds[2] == pytest.approx([0.8, 1.6])


def test_default_grid_is_the_clip_of_the_model(folder):
    processor = VideoMAEImageProcessor(num_frames=4, sampler="dense", sampler_options={"stride": 4})
    model = SequenceEncoder(folder / "encoder").model
    assert SequenceEncoder(model, processor).grid == FeatureGrid(4, 16)
    assert SequenceEncoder(folder / "encoder").grid == FeatureGrid(1, 4)


def test_a_cache_is_used_and_knows_what_changed(folder, tmp_path, monkeypatch):
    made = encoder(folder, cache=tmp_path)(folder / "0.mp4")
    again = encoder(folder, cache=tmp_path)
    path = again.cached_path(folder / "0.mp4")
    assert path.exists()
    assert again.cached_path(made.vectors) is None
    other = (encoder(folder, cache=tmp_path, grid="8/2"), encoder(folder, cache=tmp_path, num_frames=2))
    assert len({path, *(one.cached_path(folder / "0.mp4") for one in other), again.cached_path(folder / "1.mp4")}) == 4
    monkeypatch.setattr("hf_video.features.sequence_encoder.read_events", lambda *_: pytest.fail("made anew"))
    kept = again(folder / "0.mp4")
    assert np.array_equal(kept.vectors, made.vectors)
    assert np.array_equal(kept.timeline, made.timeline)
    assert (kept.grid, kept.encoder) == (made.grid, made.encoder)
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:-9])
    assert np.array_equal(again(folder / "0.mp4").vectors, made.vectors)
    assert np.array_equal(FeatureSequence.load(path).vectors, made.vectors)


def test_other_weights_have_another_digest(folder):
    one = encoder(folder)
    changed = encoder(folder)
    with torch.no_grad():
        next(changed.model.parameters()).add_(1)
    assert one.digest == encoder(folder).digest != changed.digest


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_several_videos_in_order_with_their_faults(folder, tmp_path, processes):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    sources = [folder / "1.mp4", tmp_path / "bad.mp4", folder / "0.mp4"]
    found = list(extract_sequences(encoder(folder), sources, processes=processes, on_error="return"))
    assert [len(found[0]), isinstance(found[1], VideoError), len(found[2])] == [5, True, 9]
    with pytest.raises(VideoError):
        list(extract_sequences(encoder(folder), sources, processes=processes))


def test_a_loaded_model_stays_in_this_process(folder):
    loaded = SequenceEncoder(encoder(folder).model, encoder(folder).processor)
    with pytest.raises(VideoOptionError, match="processes=1"):
        next(extract_sequences(loaded, [folder / "0.mp4"], processes=2))
    with pytest.raises(VideoOptionError, match="needs its processor"):
        SequenceEncoder(loaded.model)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"input_size": 24}, "16 columns and the detector takes 24"),
        ({"feature_stride": 2}, "lie on the grid 8/4 and the detector was trained on 8/2"),
        ({"feature_fps": 30}, "trained on 8/4@30"),
        ({"encoder": {"name": "other", "digest": "0" * 16}}, "another encoder"),
    ],
)
def test_features_of_another_encoder_or_grid_are_refused(folder, changed, words):
    sequence = encoder(folder)(folder / "1.mp4")
    fitting = {"input_size": 16, "feature_stride": 4, "feature_frames": 8, "encoder": {"digest": sequence.encoder}}
    config = ActionFormerConfig(**fitting)
    assert grid_of(config) == sequence.grid
    check_sequence(sequence, config)
    with pytest.raises(DataError, match=words):
        check_sequence(sequence, ActionFormerConfig(**{**fitting, **changed}))


@pytest.mark.parametrize("rows", [np.zeros(3), np.zeros((0, 4)), np.full((2, 2), np.nan)])
def test_what_are_no_features(rows, tmp_path):
    with pytest.raises(DataError, match="Features of a video"):
        FeatureSequence.from_array(rows, "16/4", fps=25.0)
    np.save(tmp_path / "rows.npy", rows)
    with pytest.raises(DataError, match="holds no features"):
        FeatureSequence.load(tmp_path / "rows.npy")


@pytest.mark.parametrize("options", [{}, {"num_frames": 2, "sampler": "dense", "sampler_options": {"stride": 3}}])
def test_a_detector_s_folder_holds_its_encoder(folder, tmp_path, options):
    made = encoder(folder, **options)
    about = save_encoder(made, tmp_path / "detector")
    config = ActionFormerConfig(input_size=16, feature_stride=4, feature_frames=8, encoder=about)
    found = load_encoder(tmp_path / "detector", config)
    assert (found.grid, found.digest) == (made.grid, made.digest)
    assert np.array_equal(found(folder / "1.mp4").vectors, made(folder / "1.mp4").vectors)
    by_name = ActionFormerConfig(input_size=16, encoder={**about, "name": str(folder / "encoder")})
    assert load_encoder(tmp_path, by_name).digest == made.digest


def test_a_detector_without_its_encoder_says_so(folder, tmp_path):
    with pytest.raises(CheckpointError, match="names no encoder"):
        load_encoder(tmp_path, ActionFormerConfig(input_size=16))
    other = ActionFormerConfig(input_size=16, encoder={"name": str(folder / "encoder"), "digest": "0" * 16})
    with pytest.raises(CheckpointError, match="not the one"):
        load_encoder(tmp_path, other)


def test_rows_of_one_video_share_its_features_and_faults_are_named(folder, tmp_path):
    """What training reads: no path of this machine stands in the reasons, which reports repeat."""
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    named = [(folder, "1.mp4"), (tmp_path, "bad.mp4"), (folder, "0.mp4"), (folder, "1.mp4"), (tmp_path, "gone.mp4")]
    rows = VideoRows(VideoRow(str(place / name), None, name) for place, name in named)
    kept, made, remarks = featured_rows(encoder(folder), rows, len)
    assert ([row.name for row in kept], made) == (["1.mp4", "0.mp4", "1.mp4"], [5, 9, 5])
    assert [(one.name, one.kind) for one in kept.skipped] == [("bad.mp4", "not a video"), ("gone.mp4", "missing")]
    assert [line.partition(" is left out: ")[0] for line in remarks] == ["bad.mp4", "gone.mp4"]
    assert not any(str(tmp_path) in line for line in remarks)
