"""The test mixins of the installed transformers release: fetched from its source distribution, as the wheel has none.

suite = fetch(folder)                   # modules of the release's `tests/` folder, or a pytest skip
failures(model_tests(suite, ...))       # names of the tests that fail, with their last line
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import subprocess
import sys
import tarfile
import types
import unittest
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers

PACKAGE = "transformers_release_tests"
# What the mixins import and the source distribution leaves out. Generation and export are of no use for video encoders
# (ours have tests of both); the values are those of common fields that are no defaults.
ABSENT = {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "utils.test_configuration_utils": {
        "config_common_kwargs": {
            "return_dict": False,
            "output_hidden_states": True,
            "output_attentions": True,
            "dtype": "float16",
            "chunk_size_feed_forward": 5,
            "architectures": ["BertModel"],
            "id2label": {0: "label"},
            "label2id": {"label": "0"},
            "problem_type": "regression",
        }
    },
}


def fetch(folder: Path) -> SimpleNamespace:
    """The release's test modules, unpacked below `folder`. Skips where they can't be had."""
    pytest.importorskip("parameterized", reason="transformers' test mixins need it: pip install parameterized")
    release = f"transformers=={transformers.__version__}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", release]
    done = subprocess.run([*command, "-d", str(folder)], capture_output=True, text=True, check=False)
    archives = list(folder.glob("transformers-*.tar.gz"))
    if done.returncode or not archives:
        pytest.skip(f"pip can't download the sources of {release}: {done.stderr.strip()[-200:]}")
    with tarfile.open(archives[0]) as archive:
        members = [m for m in archive if re.fullmatch(r"[^/]+/tests/\w+\.py", m.name)]
        archive.extractall(folder, members=members, filter="data")
    root = folder / PACKAGE
    (folder / archives[0].name.removesuffix(".tar.gz") / "tests").rename(root)
    (root / "__init__.py").touch()
    for name, content in ABSENT.items():
        module, parent = types.ModuleType(f"{PACKAGE}.{name}"), types.ModuleType(f"{PACKAGE}.{name.split('.')[0]}")
        parent.__path__ = []
        vars(module).update(content)
        sys.modules |= {parent.__name__: parent, module.__name__: module}
    sys.modules["fetch_hub_objects_for_ci"] = types.ModuleType("fetch_hub_objects_for_ci")
    sys.modules["fetch_hub_objects_for_ci"].url_to_local_path = lambda url: url
    sys.path.insert(0, str(folder))
    names = ("configuration", "modeling", "image_processing", "video_processing")
    return SimpleNamespace(**{name: importlib.import_module(f"{PACKAGE}.test_{name}_common") for name in names})


def failures(case: type[unittest.TestCase]) -> dict[str, str]:
    """Runs a test class: the tests that failed, and the last line of what they said. Asserts that some ran."""
    result = unittest.TestResult()
    with contextlib.redirect_stdout(io.StringIO()):
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun - len(result.skipped) > 5, (result.testsRun, len(result.skipped))
    failed = [(test, text) for test, text in result.failures + result.errors]
    return {test.id().rsplit(".", 1)[-1]: text.strip().splitlines()[-1] for test, text in failed}


def model_tests(suite, classes, make_config, inputs, layers, has_attentions, tokens=25) -> type[unittest.TestCase]:
    """ModelTesterMixin over `classes`.

    `make_config()` gives a new small configuration; `inputs(batch)` a forward's inputs; `layers` the number of hidden
    states after the first; `tokens` those of a clip, where it matters (masks)."""
    # The mixin knows by these tables which classes are encoders, without a loss.
    encoders = [c.__name__ for c in classes if c.__name__.endswith("Model")]
    suite.modeling.MODEL_MAPPING_NAMES |= {f"ours {name}": name for name in encoders}

    class Tester:
        batch_size = 2
        is_training = True
        num_hidden_layers = layers
        seq_length, num_masks = tokens, tokens // 2

        def __init__(self) -> None:
            # Attributes of the configuration that mixins read here.
            for name in ("hidden_size", "num_attention_heads", "num_labels"):
                setattr(self, name, getattr(make_config(), name, None))

        def prepare_config_and_inputs_for_common(self):
            return make_config(), inputs(self.batch_size)

        def prepare_config_and_inputs(self):
            return self.prepare_config_and_inputs_for_common()

    class Case(suite.modeling.ModelTesterMixin, unittest.TestCase):
        all_model_classes = tuple(classes)
        test_resize_embeddings = False
        test_torch_exportable = False

        def setUp(self):
            self.has_attentions = has_attentions
            self.model_tester = Tester()

        def _video_features_prepare_config_and_inputs(self):
            config, given = super()._video_features_prepare_config_and_inputs()
            whole = inputs(self.model_tester.batch_size)
            return config, given | {name: whole[name] for name in whole if name == "flow_values"}

        def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
            prepared = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in inputs_dict.items()}
            if model_class.__name__ == "VideoMAEForPreTraining":
                mask = torch.arange(tokens) < tokens // 2
                prepared["bool_masked_pos"] = mask.expand(len(prepared["pixel_values"]), -1)
            if return_labels and model_class.__name__.endswith("ForVideoClassification"):
                prepared["labels"] = torch.zeros(self.model_tester.batch_size, dtype=torch.long)
            return prepared

        # The mixin's own are for texts; every video model of transformers replaces them too.
        test_attention_outputs = test_hidden_states_output = test_model_get_set_embeddings = test_inputs_embeds = None
        test_num_layers_is_small = None  # about the time that transformers' own tests take

    return Case


def config_tests(suite, config_class, values) -> type[unittest.TestCase]:
    class Case(unittest.TestCase):
        model_tester = SimpleNamespace(get_config=lambda: config_class(**values))

    for name in dir(suite.configuration.ConfigTester):
        if name.startswith(("create_and_test", "check_config")):

            def test(self, name=name):
                tester = suite.configuration.ConfigTester(
                    self, config_class=config_class, has_text_modality=False, common_properties=[], **values
                )
                getattr(tester, name)()

            setattr(Case, f"test_{name}", test)
    return Case


def image_processor_tests(suite, processor_class) -> type[unittest.TestCase]:
    """ImageProcessingTestMixin, its images replaced by videos where a call is tested."""

    class Tester(suite.image_processing.ImageProcessingTester):
        def __init__(self, **given):
            given |= {"num_frames": 5, "size": {"shortest_edge": 18}, "crop_size": {"height": 18, "width": 18}}
            super().__init__(**given, max_resolution=60)

        def _get_image_processing_classes(self):
            return {"pil": processor_class}

        def expected_output_image_shape(self, images):
            return (self.num_frames, self.num_channels, 18, 18)

        def prepare_image_inputs(self, equal_resolution=False, numpify=False, torchify=False, **_):
            return suite.image_processing.prepare_video_inputs(
                self.batch_size,
                self.num_frames,
                self.num_channels,
                self.min_resolution,
                self.max_resolution,
                equal_resolution=equal_resolution,
                numpify=numpify,
                torchify=torchify,
            )

    class Case(suite.image_processing.ImageProcessingTestMixin, unittest.TestCase):
        image_processor_tester_class = Tester
        test_cast_dtype = True
        test_new_models_require_torchvision_backend = None  # about transformers' own folders

        # The mixin's own call with images; the tests of transformers' video models replace them so.
        def check_calls(self, channels=3, options=None, **kind):
            self.image_processor_tester.num_channels = channels
            videos = self.image_processor_tester.prepare_image_inputs(**kind)
            shape = self.image_processor_tester.expected_output_image_shape(videos)
            processor = processor_class(**self.image_processor_dict)
            for given, count in ((videos[0], 1), (videos, len(videos))):
                pixels = processor(given, return_tensors="pt", **(options or {})).pixel_values
                assert tuple(pixels.shape) == (count, *shape)

        def test_call_pil(self):
            self.check_calls()

        def test_call_numpy(self):
            self.check_calls(numpify=True)

        def test_call_pytorch(self):
            self.check_calls(torchify=True)

        def test_call_numpy_4_channels(self):
            layout = {"input_data_format": "channels_first"}
            self.check_calls(4, {**layout, "image_mean": [0.0] * 4, "image_std": [1.0] * 4}, numpify=True)
            self.check_calls(4, {**layout, "image_mean": 0, "image_std": 1}, numpify=True)

    return Case


def video_processor_tests(suite, processor_class, **settings) -> type[unittest.TestCase]:
    """VideoProcessingTestMixin; `settings` are further ones of the processor."""

    class Tester:
        batch_size, num_frames, num_channels = 3, 8, 3

        def expected_output_video_shape(self, videos):
            return (self.num_frames, self.num_channels, 18, 18)

        def prepare_video_inputs(self, equal_resolution=False, return_tensors="pil"):
            return suite.video_processing.prepare_video_inputs(
                self.batch_size, self.num_frames, self.num_channels, 30, 60, equal_resolution, return_tensors
            )

    class Case(suite.video_processing.VideoProcessingTestMixin, unittest.TestCase):
        fast_video_processing_class = processor_class
        input_name = "pixel_values"
        test_cast_dtype = True

        def setUp(self):
            super().setUp()
            self.video_processor_tester = Tester()

        @property
        def video_processor_dict(self):
            return {
                "do_resize": True,
                "size": {"shortest_edge": 20},
                "do_center_crop": True,
                "crop_size": {"height": 18, "width": 18},
                "do_rescale": True,
                "rescale_factor": processor_class.rescale_factor,
                "do_normalize": True,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
                "do_convert_rgb": True,
                **settings,
            }

    return Case
