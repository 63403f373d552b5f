"""Detectors of features on a stream: the events of the pipeline with the same window, in time, from flat memory."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from transformers import pipeline

import hf_video
from hf_video.errors import VideoOptionError
from hf_video.features.sequence_encoder import SequenceEncoder, save_encoder
from hf_video.pipelines.live_detection import LiveDetector
from hf_video.video.frames.types import VideoFrames

WIDTHS = {
    "hidden_size": 16, "neck_size": 16, "head_size": 16, "max_length": 16, "branch_layers": 2, "num_labels": 3,
    "score_threshold": 0.2,
}  # fmt: skip


GRIDS = ["8/4", "1s/0.5s"]


@pytest.fixture(scope="module", params=GRIDS)
def detect(request, videomae, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    encoder = SequenceEncoder(str(videomae), grid=request.param, device="cpu")
    grid = {"feature_stride": encoder.grid.stride, "feature_frames": encoder.grid.num_frames}
    config = hf_video.ActionFormerConfig(
        **WIDTHS, **grid, feature_fps=encoder.grid.fps, input_size=32, window_size=5, num_attention_heads=4
    )
    model = hf_video.ActionFormerForTemporalActionDetection(config)
    model.class_head.output.bias.data.zero_()
    model.offset_head.output.bias.data.fill_(1.0)
    model.config.encoder = save_encoder(encoder, folder)
    model.save_pretrained(folder)
    return pipeline("temporal-action-detection", model=str(folder), device="cpu")


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("count", [30, 64, 200])
def test_live_is_the_pipeline_with_the_same_window(detect, count, uneven):
    frames = np.concatenate([tiny.moving_frames(8, seed=seed) for seed in range(25)])[:count]
    times = 3 + (np.cumsum(np.random.default_rng(0).uniform(0.05, 0.2, count)) if uneven else np.arange(count) / 8)
    options = {"window": 16, "threshold": 0.3, "nms_min_score": 0.1}
    expected = detect(VideoFrames(frames, np.arange(count), times), **options)
    live, found, waits = LiveDetector(detect, **options), [], []
    for frame, time in zip(frames, times, strict=True):
        new = live.push(frame[None], [time])
        found += new
        waits += [time - one.end for one in new]
    # A grid of the stream's own frames knows the mean rate alone.
    assert max(waits, default=0) <= live.latency * (1.5 if uneven else 1) + 1e-6
    found += live.close()
    assert len(found) == len(expected) > 0
    assert bool(waits) == (count == 200)

    def rows(events):
        found = [(one.start, one.end, int(one.label[-1]), one.score) for one in events]
        return np.array(sorted(found, key=lambda row: np.round(row, 4).tolist()))

    np.testing.assert_allclose(rows(found), rows(expected), atol=2e-6)


@pytest.mark.parametrize("detect", [GRIDS[0], pytest.param(GRIDS[1], marks=pytest.mark.slow)], indirect=True)
def test_half_an_hour_in_flat_memory(detect):
    live, held = LiveDetector(detect, threshold=0.3, fps=2.0), []
    frames = tiny.moving_frames(60)
    for _ in range(60):  # half an hour at two frames a second
        live.push(frames)
        merged, windows = live._merged, live._merged.windows
        held.append([len(live._frames), len(merged._times), len(windows._vectors), len(windows._open.scores)])
    assert (np.max(held[30:], axis=0) <= 1.3 * np.max(held[:30], axis=0) + 4).all()


def test_windows_are_for_detectors_of_features(detect, videomae):
    with pytest.raises(VideoOptionError, match="window"):
        detect(np.zeros((30, 32, 32, 3), np.uint8), window=1)
    classify = pipeline("temporal-action-detection", model=str(videomae), device="cpu")
    with pytest.raises(VideoOptionError, match="window=8 is for a detector"):
        classify(np.zeros((30, 32, 32, 3), np.uint8), window=8)
