"""Events from features: seconds of the grid, the classes of an outside classifier, refused features."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_video.errors import DataError, MetricError
from hf_video.features.events import find_events
from hf_video.features.sequences import FeatureSequence
from hf_video.layers.temporal_nms import fuse_class_scores
from hf_video.models.actionformer.configuration_actionformer import ActionFormerConfig
from hf_video.models.actionformer.modeling_actionformer import ActionFormerForTemporalActionDetection

GOLDEN = Path(__file__).parents[3] / "shared" / "golden_detection" / "score_fusion.json"
SMALL = {
    **{"input_size": 6, "hidden_size": 8, "neck_size": 8, "head_size": 8, "branch_layers": 2, "window_size": 3},
    **{"num_attention_heads": 2, "max_length": 32, "num_labels": 3, "feature_stride": 4, "feature_frames": 16},
}


def detector(**changes):
    torch.manual_seed(0)
    model = ActionFormerForTemporalActionDetection(ActionFormerConfig(**{**SMALL, **changes})).eval()
    torch.nn.init.normal_(model.class_head.output.weight, std=1.0)
    torch.nn.init.constant_(model.class_head.output.bias, 0.0)
    torch.nn.init.constant_(model.offset_head.output.bias, 1.0)
    return model


def sequence(steps=24):
    vectors = np.random.default_rng(0).normal(size=(steps, 6)).astype(np.float32)
    return FeatureSequence.from_array(vectors, "16/4", 30.0, 5.0)


def test_events_are_the_models_segments_in_seconds():
    model, features = detector(), sequence()
    with torch.inference_mode():
        (found,) = model.find_segments(model(torch.from_numpy(features.vectors)[None]))
    events = find_events(model, features)
    assert len(events) == len(found.scores) > 3
    seconds = ((found.segments.double() * 4 + 8) / 30).clamp(0, 5)
    np.testing.assert_allclose([(e.start, e.end) for e in events], seconds, atol=1e-9)
    assert [e.label for e in events] == [f"LABEL_{label}" for label in found.labels.tolist()]


def test_columns_of_any_scale_are_standardized():
    """A thousand times larger features with another zero give the same events: the detector keeps both numbers."""
    model, plain, features = detector(standardize_features=True), detector(), sequence()
    model.load_state_dict(plain.state_dict(), strict=False)
    model.actionformer.embeddings.feature_mean.fill_(500.0)
    model.actionformer.embeddings.feature_std.fill_(1000.0)
    scaled = replace(features, vectors=features.vectors * 1000 + 500)
    for one, other in zip(find_events(model, scaled), find_events(plain, features), strict=True):
        assert one.label == other.label
        np.testing.assert_allclose((one.start, one.end, one.score), (other.start, other.end, other.score), atol=1e-4)


def test_a_classifier_of_the_video_names_the_events():
    model, features = detector(num_labels=1), sequence()
    alone = find_events(model, features)
    fused = find_events(model, features, class_scores={"run": 0.09, "jump": 0.81, "swim": 0.0})
    assert len(fused) == 2 * len(alone)
    assert {e.label for e in fused} == {"run", "jump"}
    assert fused == sorted(fused, key=lambda e: -e.score)
    jumps = [e for e in fused if e.label == "jump"]
    np.testing.assert_allclose([e.score for e in jumps], [0.9 * e.score**0.5 for e in alone], rtol=1e-6)
    assert [(e.start, e.end) for e in jumps] == [(e.start, e.end) for e in alone]
    with pytest.raises(MetricError, match="0 or more"):
        find_events(model, features, class_scores={"run": float("nan")})


@pytest.mark.skipif(not GOLDEN.exists(), reason="no official numbers here")
def test_fusion_is_the_official_one():
    for case in json.loads(GOLDEN.read_text())["cases"]:
        given, expected = case["detections"], case["expected"]
        found = {name: [] for name in expected}
        for video in sorted(set(given["video-id"])):
            mine = [i for i, name in enumerate(given["video-id"]) if name == video]
            scores, classes = np.array(given["score"])[mine], case["class_scores"][video]
            options = {"top_classes": case["topk"], "max_segments": case["num_pred"]}
            for number, label, score in zip(*fuse_class_scores(scores, classes, **options), strict=True):
                found["video-id"].append(video)
                found["t-start"].append(given["t-start"][mine[number]])
                found["t-end"].append(given["t-end"][mine[number]])
                found["label"].append(int(label))
                found["score"].append(float(score))
        for name in ("video-id", "label"):
            assert found[name] == expected[name]
        for name in ("t-start", "t-end", "score"):
            np.testing.assert_allclose(found[name], expected[name], atol=1e-9)


def test_features_of_another_encoder_grid_or_width_are_refused():
    features = sequence()
    model = detector(encoder={"name": "mine", "digest": "aa"})
    with pytest.raises(DataError, match="another encoder"):
        find_events(model, replace(features, encoder="bb"))
    with pytest.raises(DataError, match="grid"):
        find_events(model, features.every(2))
    with pytest.raises(DataError, match="columns"):
        find_events(model, replace(features, vectors=features.vectors[:, :5]))
