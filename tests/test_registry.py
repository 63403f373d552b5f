"""What `import hf_video` does to the Auto classes, and what HF_VIDEO_OVERRIDE=0 leaves alone."""

from __future__ import annotations

import forked
import pytest
import transformers

import hf_video
from hf_video.errors import CheckpointError
from hf_video.registry import MODELS, entry


def run(code: str, **environment: str) -> list[str]:
    done = forked.run(code, TOKENIZERS_PARALLELISM="false", **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


WHOSE = """
import hf_video, transformers
for name in ("videomae", "timesformer"):
    config = transformers.AutoConfig.for_model(name)
    print(type(config).__module__)
    for auto in hf_video.MODELS[name].auto:
        print(getattr(transformers, auto).from_config(
            type(config)(hidden_size=16, num_attention_heads=2, num_hidden_layers=1, intermediate_size=16)
        ).__class__.__module__)
"""


def test_classes_resolve_to_ours_in_every_auto_class():
    for model_type, model in MODELS.items():
        config = transformers.AutoConfig.for_model(model_type)
        assert type(config) is model.load(model.config)
        for auto, name in model.auto.items():
            assert getattr(transformers, auto)._model_mapping[type(config)] is model.load(name)


def test_every_auto_class_that_stock_was_in_is_covered():
    from transformers.models.auto import modeling_auto

    mappings = {n: m for n, m in vars(modeling_auto).items() if n.startswith("MODEL_") and n.endswith("_NAMES")}
    for model_type, model in MODELS.items():
        stock = {n for n, m in mappings.items() if model_type in m}
        ours = {n for n, m in mappings.items() if set(model.auto.values()) & set(_flat(m))}
        assert stock <= ours, stock - ours


def _flat(mapping):
    for value in mapping.values():
        yield from (value,) if isinstance(value, str) else value


def test_processors_resolve_to_ours():
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

    for model in MODELS.values():
        found = IMAGE_PROCESSOR_MAPPING[model.load(model.config)]
        found = set(found.values()) if isinstance(found, dict) else {found}
        assert found == {model.load(model.image_processor)}


def test_override_off_leaves_stock_alone():
    assert set(run(WHOSE, HF_VIDEO_OVERRIDE="0")) == {
        f"transformers.models.{name}.{kind}_{name}"
        for name in ("videomae", "timesformer")
        for kind in ("configuration", "modeling")
    }


def test_override_off_has_ours_by_name_and_on_demand():
    code = """
import hf_video, transformers
print(hf_video.VideoMAEModel.__module__)
hf_video.register_auto_classes(override=True)
print(type(transformers.AutoConfig.for_model("videomae")).__module__)
"""
    assert run(code, HF_VIDEO_OVERRIDE="0") == [
        "hf_video.models.videomae.modeling_videomae",
        "hf_video.models.videomae.configuration_videomae",
    ]


def test_order_of_imports_does_not_matter():
    code = "from transformers import VideoMAEForVideoClassification, AutoModelForVideoClassification\n" + WHOSE
    assert all(name.startswith("hf_video.") for name in run(code))


def test_registering_twice_changes_nothing():
    hf_video.register_auto_classes()
    test_classes_resolve_to_ours_in_every_auto_class()


def test_public_names():
    for model in MODELS.values():
        for name in model.class_names:
            assert getattr(hf_video, name).__name__ == name
            assert name in dir(hf_video)
    with pytest.raises(AttributeError, match="NoSuchModel"):
        hf_video.NoSuchModel  # noqa: B018


def test_unknown_model_type():
    with pytest.raises(CheckpointError, match=r"Known: .*timesformer.*videomae"):
        entry("resnet")


def test_rows_name_what_exists():
    for model_type, model in MODELS.items():
        config = model.load(model.config)
        assert config.model_type == model_type
        for name in model.auto.values():
            assert model.load(name).config_class is config
