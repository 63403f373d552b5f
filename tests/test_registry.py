"""What `import hf_video` does to the Auto classes, what HF_VIDEO_OVERRIDE=0 leaves alone, and the public names."""

from __future__ import annotations

import ast
import importlib
import json
import warnings
from pathlib import Path

import forked
import pytest
import transformers

import hf_video
from hf_video.base.loading import model_entry
from hf_video.errors import CheckpointError
from hf_video.registry import DETECTORS, MODELS

AUTO_PROCESSORS = ("AutoImageProcessor", "AutoVideoProcessor", "AutoProcessor")
PACKAGE = Path(hf_video.__file__).parent
STUBS = sorted(PACKAGE.rglob("__init__.pyi"))
OLD_NAMES = Path(__file__).parent / "saved_by_0_1_0" / "public_names.json"  # of its packages, README, docs, docstrings
NO_MODEL = {
    "DETECTORS",
    "Detection",
    "Events",
    "HFVideoError",
    "compile_model",
    "fast_dtype",
    "for_processor",
    "LiveDetector",
    "LiveVideo",
    "MODELS",
    "StreamingClassifier",
    "TemporalActionDetectionPipeline",
    "VideoClassificationPipeline",
    "VideoFeatureExtractionPipeline",
    "VideoMomentRetrievalPipeline",
    "VideoFrames",
    "VideoQuestionAnsweringPipeline",
    "VideoReader",
    "VideoTextRetrievalPipeline",
    "ZeroShotVideoClassificationPipeline",
    "__version__",
    "count_repetitions",
    "event_sheet",
    "from_official",
    "register_auto_classes",
    "video_clip",
    "write_detections",
    "write_video",
}


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


@pytest.fixture
def video_file_only(tmp_path):
    """A stock folder as V-JEPA 2's on the Hub: no other processor's file than a video processor's."""
    (tmp_path / "config.json").write_text('{"model_type": "vjepa2", "crop_size": 32, "frames_per_clip": 4}')
    values = {"video_processor_type": "VJEPA2VideoProcessor", "crop_size": {"height": 32, "width": 32}}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps({**values, "size": {"shortest_edge": 36}}))
    return tmp_path


def test_a_video_processors_file_is_enough(video_file_only):
    made = {auto: getattr(transformers, auto).from_pretrained(video_file_only) for auto in AUTO_PROCESSORS}
    assert [type(one) for one in made.values()] == [
        hf_video.VJEPA2ImageProcessor,
        hf_video.VJEPA2VideoProcessor,
        hf_video.VJEPA2VideoProcessor,
    ]
    assert all((one.size["shortest_edge"], one.crop_size["height"]) == (36, 32) for one in made.values())
    (video_file_only / "video_preprocessor_config.json").unlink()
    with pytest.raises(OSError, match="image processor"):  # transformers' own error where there is no file at all
        transformers.AutoImageProcessor.from_pretrained(video_file_only)
    (video_file_only / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(OSError, match="image processor"):
        transformers.AutoImageProcessor.from_pretrained(video_file_only)


def test_override_off_has_a_video_processor_without_torchvision(video_file_only):
    """transformers' own where it can be made, ours where it can't."""
    code = f"""
import hf_video, transformers
from transformers.utils import is_torchvision_available
made = transformers.AutoVideoProcessor.from_pretrained({str(video_file_only)!r})
print(is_torchvision_available(), type(made).__module__)
"""
    installed, module = run(code, HF_VIDEO_OVERRIDE="0")
    assert module.startswith("transformers." if installed == "True" else "hf_video.")


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


def stub_names(stub: Path) -> list[str]:
    """What a stub gives away: the names after `as`."""
    imports = [node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom)]
    return [alias.asname for node in imports for alias in node.names if alias.asname]


def test_the_stub_has_the_classes_of_the_table_and_the_other_public_names():
    names = stub_names(PACKAGE / "__init__.pyi")
    assert sorted(names) == sorted(
        {*NO_MODEL, *(name for model in (MODELS | DETECTORS).values() for name in model.class_names)}
    )


@pytest.mark.parametrize("stub", STUBS, ids=lambda path: path.parent.name)
def test_every_name_of_a_stub_can_be_imported(stub):
    package = importlib.import_module(".".join(("hf_video", *stub.relative_to(PACKAGE).parent.parts)))
    names = stub_names(stub)
    assert names
    assert not [name for name in names if not hasattr(package, name)]
    assert set(names) <= set(dir(package))


def test_public_names_of_0_1_0_are_where_they_were():
    missing = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for place, names in json.loads(OLD_NAMES.read_text()).items():
            module = importlib.import_module(place)
            missing += [f"{place}.{name}" for name in names.split() if not hasattr(module, name)]
    assert not missing


def test_unknown_model_type():
    with pytest.raises(CheckpointError, match=r"Known: .*timesformer.*videomae"):
        model_entry("resnet")


def test_rows_name_what_exists():
    for model_type, model in MODELS.items():
        config = model.load(model.config)
        assert config.model_type == model_type
        for name in model.auto.values():
            assert model.load(name).config_class is config
