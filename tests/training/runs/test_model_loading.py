"""Models and processors of a run, from a configuration alone."""

from __future__ import annotations

import json

import pytest
from evaluation_models import CONFIGS

from hf_video.errors import ConfigError
from hf_video.training.runs.model_loading import find_source, load_model


@pytest.mark.parametrize("name", [name for name in CONFIGS if not name.startswith("two_stream")])
def test_every_type_from_its_configuration(tmp_path, name):
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"model_type": name.partition("-")[0], **CONFIGS[name]}))
    loaded = load_model(find_source(path), labels=["a", "b"])
    size = CONFIGS[name]["image_size"]
    if name == "videoprism_vision_model":  # which squashes frames, and cuts nothing
        assert loaded.processor.size == {"height": size, "width": size}
        return
    crop = loaded.processor.crop_size
    assert (crop["height"], crop["width"]) == (size, size)
    # The short side is the family's own where it cuts its crops out of larger frames.
    assert loaded.processor.size["shortest_edge"] == {"x3d": 36, "vjepa2": 36}.get(name, size)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("vjepa2", "ForSpatioTemporalActionDetection"),
        ("videoprism_vision_model", "ForSpatioTemporalActionDetection"),
        ("videoprism_vision_model", "AutoModelForPreTraining"),
    ],
)
def test_trainings_that_a_model_has_no_head_for_are_refused_before_it_is_made(name, task):
    def made(*_):
        raise AssertionError("its class was looked for")

    with pytest.raises(ConfigError, match=f"{name} has no {task}; it has .*AutoModelForVideoClassification"):
        load_model(find_source(name), task=task, before=made)
