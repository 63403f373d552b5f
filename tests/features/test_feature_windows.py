"""A detector over windows of features: one vector at a time or all at once, what is joined, and what is held."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hf_video
from hf_video.base.detection.modeling import Segments
from hf_video.errors import VideoOptionError
from hf_video.features.events import find_events
from hf_video.features.feature_windows import FeatureWindows, by_score
from hf_video.features.sequences import FeatureSequence

SMALL = {
    "input_size": 6, "hidden_size": 16, "neck_size": 16, "head_size": 16, "max_length": 16, "branch_layers": 2,
    "num_labels": 3, "score_threshold": 0.3, "nms_min_score": 0.2,
}  # fmt: skip


@pytest.fixture(params=["actionformer", "tridet"])
def model(request):
    torch.manual_seed(0)
    if request.param == "actionformer":
        config = hf_video.ActionFormerConfig(**SMALL, window_size=5, num_attention_heads=4)
        model = hf_video.ActionFormerForTemporalActionDetection(config)
    else:
        model = hf_video.TriDetForTemporalActionDetection(hf_video.TriDetConfig(**SMALL, num_bins=4, kernel_std=0.3))
    torch.nn.init.constant_(model.class_head.output.bias, -0.5)
    torch.nn.init.normal_(model.class_head.output.weight, std=0.5)
    torch.nn.init.constant_(model.offset_head.output.bias, 1.0)
    return model.eval()


def in_parts(windows, vectors, part):
    found = [windows.push(vectors[first : first + part]) for first in range(0, len(vectors), part)]
    return found, windows.close()


@pytest.mark.parametrize("length", [1, 5, 16, 17, 24, 25, 61])
@pytest.mark.parametrize("options", [{}, {"nms": "hard"}, {"class_agnostic_nms": True, "voting_threshold": 0.7}])
def test_one_by_one_is_all_at_once(model, length, options):
    config = type(model.config).from_dict({**model.config.to_dict(), **options})
    vectors = np.random.default_rng(length).normal(size=(length, 6)).astype(np.float32)
    (whole,), rest = in_parts(FeatureWindows(model, 16, config), vectors, length)
    expected = by_score([whole, rest])
    assert len(expected.scores)
    for part in (1, 7):
        found, rest = in_parts(FeatureWindows(model, 16, config), vectors, part)
        joined = by_score([*found, rest])
        for name in ("segments", "scores", "labels"):
            assert torch.equal(getattr(joined, name), getattr(expected, name))
    sequence = FeatureSequence.from_array(vectors, (16, 4), fps=8.0, duration=(4 * length + 12) / 8)
    events = find_events(model, sequence, config=config, window=16)
    np.testing.assert_allclose([one.score for one in events], expected.scores)
    np.testing.assert_allclose([one.start for one in events], sequence.to_seconds(expected.segments[:, 0]))


@pytest.mark.parametrize("length", [3, 16])
def test_what_fits_a_window_is_seen_whole(model, length):
    """Its events are those of the whole sequence, but for segments that reach beyond it."""
    vectors = np.random.default_rng(1).normal(size=(length, 6)).astype(np.float32)
    windows = FeatureWindows(model, 16)
    found = by_score([windows.push(vectors), windows.close()])
    with torch.no_grad():
        (all_of_them,) = model.candidates(model(torch.from_numpy(vectors)[None]), model.config)
    bounds = all_of_them.segments.clamp(-2.0, length + 1.0)  # half of a clip is two steps
    kept = bounds[:, 1] - bounds[:, 0] > model.config.min_length
    expected = model.merge(Segments(bounds[kept], all_of_them.scores[kept], all_of_them.labels[kept]), model.config)
    torch.testing.assert_close(found.segments, expected.segments.double())
    torch.testing.assert_close(found.scores, expected.scores)


class Marks(torch.nn.Module):
    """Stands for a detector that finds each event whole that lies in its window, with the score of the vector there:
    column 0 is the score, column 1 the length, at an event's first step."""

    def __init__(self, config):
        super().__init__()
        self.config, self.weight = config, torch.nn.Parameter(torch.zeros(1))

    def forward(self, features, return_dict=True):
        return features[0]

    def candidates(self, rows, config):
        first = rows[:, 0].nonzero()[:, 0]
        first = first[first + rows[first, 1] < len(rows)]
        ends = first + rows[first, 1]
        return [Segments(torch.stack((first, ends), 1).float(), rows[first, 0], torch.zeros(len(first)).long())]

    merge = hf_video.ActionFormerForTemporalActionDetection.merge
    voting = "score_iou"


def test_an_event_comes_once_and_when_no_window_can_change_it():
    """Also where two windows see it, where it lies across their edges, and where a better one beside it lowers it."""
    config = hf_video.ActionFormerConfig(**{**SMALL, "max_length": 16}, window_size=5, num_attention_heads=4)
    vectors = np.zeros((100, 6), np.float32)
    events = {2: (0.9, 4), 7: (0.8, 2), 14: (0.7, 5), 30: (0.95, 3), 31: (0.6, 3), 47: (0.5, 8), 90: (0.85, 9)}
    for first, (score, length) in events.items():
        vectors[first, :2] = score, length
    windows, found = FeatureWindows(Marks(config), 16), []
    for number, vector in enumerate(vectors):
        new = windows.push(vector[None])
        for (start, end), score in zip(new.segments.tolist(), new.scores.tolist(), strict=True):
            assert number - end <= 16 + windows.reach
            found.append((start, end, score))
    rest = windows.close()
    found += [(*span, score) for span, score in zip(rest.segments.tolist(), rest.scores.tolist(), strict=True)]
    iou = 2 / 4  # of 30-33 and 31-34
    lowered = 0.6 * float(np.exp(-(iou**2) / 0.5))
    expected = [(first, first + length, score) for first, (score, length) in events.items()]
    expected[4] = (31, 34, lowered)
    np.testing.assert_allclose(sorted(found), sorted(expected), atol=1e-4)


def test_what_is_held_does_not_grow(model):
    windows, held = FeatureWindows(model, 16), []
    rng = np.random.default_rng(0)
    for _ in range(60):
        windows.push(rng.normal(size=(16, 6)).astype(np.float32))
        held.append((len(windows._vectors), len(windows._open.scores), len(windows._given.scores)))
    assert np.max(held[30:], axis=0).tolist() <= (1.5 * np.max(held[:30], axis=0)).tolist()
    assert max(one[0] for one in held) <= 16 + 8


def test_windows_that_can_t_be(model):
    with pytest.raises(VideoOptionError, match="window"):
        FeatureWindows(model, 1)
    model.config.fixed_length = True
    with pytest.raises(VideoOptionError, match="one length"):
        FeatureWindows(model, 16)
