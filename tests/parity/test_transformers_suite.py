"""The installed transformers release's own test mixins over our classes.

Whatever fails must be named in the tables below, with its reason; what is named and passes fails the test too. The
model types that transformers has itself have no exceptions but those of processors; its own classes run beside ours.

Left out: `PipelineTesterMixin`, which needs tiny models and a table from the Hub; generation and export, which the
source distribution doesn't hold.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from tiny_text import tiny_clip_text, tiny_clip_vision
from transformers_suite import (
    config_tests,
    failures,
    fetch,
    image_processor_tests,
    model_tests,
    video_processor_tests,
)

from hf_video import MODELS
from hf_video.base.modeling import CLIP_NAMES

pytestmark = pytest.mark.slow

VIT = {"image_size": 10, "num_frames": 2, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
VIT |= {"intermediate_size": 37}
DECODER = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 4}
PRISM = {name: size for name, size in VIT.items() if name != "num_hidden_layers"}
PRISM |= {"tubelet_size": [1, 2, 2], "num_spatial_layers": 2, "num_temporal_layers": 1}
SWIN = {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": [4, 3, 3], "image_size": 32}
VGG = {"kind": "vgg", "depths": [2, 1], "widths": [6, 8], "fc_width": 8, "pool_size": 2, "dropout": [0.0, 0.0]}
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 60}

# A configuration, a clip (frames, height, width), blocks, and whether there is attention.
KINDS = {
    "videomae": ({**VIT, **DECODER, "patch_size": 2, "decoder_intermediate_size": 37}, (2, 10, 10), 2, True),
    "timesformer": ({**VIT, "patch_size": 2}, (2, 10, 10), 2, True),
    "vivit": ({**VIT, "num_frames": 4, "tubelet_size": [2, 2, 2]}, (4, 10, 10), 2, True),
    "vjepa2": (
        {"crop_size": 16, "patch_size": 8, "frames_per_clip": 2, "hidden_size": 32, "num_hidden_layers": 2}
        | {"num_attention_heads": 2, "pred_hidden_size": 32, "pred_num_attention_heads": 4, "num_pooler_layers": 1}
        | {"pred_num_hidden_layers": 2},
        (2, 16, 16),
        2,
        True,
    ),
    "videoprism": (
        {"vision_config": {**PRISM, "intermediate_size": 36, "num_auxiliary_layers": 1}}
        | {"text_config": {**BERT, "hidden_size": 32, "num_hidden_layers": 3, "max_position_embeddings": 16}},
        (2, 10, 10),
        3,
        True,
    ),
    "videoprism_vision_model": ({**PRISM, "intermediate_size": 36}, (2, 10, 10), 3, True),
    "mvit": (
        {"image_size": 32, "num_frames": 4, "embed_dim": 16, "num_hidden_layers": 3, "dim_mul": [[1, 2.0]]}
        | {"head_mul": [[1, 2.0]], "pool_q_stride": [[1, 1, 2, 2]], "pool_kv_stride_adaptive": [1, 4, 4]},
        (4, 32, 32),
        3,
        True,
    ),
    "video_swin": ({**SWIN, "num_frames": 8, "mlp_ratio": 2}, (8, 32, 32), 3, True),
    "i3d": ({"stem_channels": 8, "num_frames": 10, "image_size": 40}, (10, 40, 40), 9, False),
    "c3d": ({"stem_channels": 4, "fc_size": 24, "num_frames": 16, "image_size": 32}, (16, 32, 32), 7, False),
    "s3d": ({"stem_channels": 8, "projection_dim": 24, "num_frames": 8, "image_size": 32}, (8, 32, 32), 9, False),
    "slowfast": (
        {"stem_channels": 8, "beta_inverse": 4, "depths": [1, 2], "slow_kernels": [1, 3], "fast_kernels": [3, 3]}
        | {"num_frames": 8, "image_size": 32, "head_pool": [1, 1]},
        (8, 32, 32),
        3,
        False,
    ),
    "x3d": (
        {"stem_channels": 4, "depth_factor": 0.4, "head_size": 24, "num_frames": 4, "image_size": 32},
        (4, 32, 32),
        6,
        False,
    ),
    "two_stream": ({"spatial_config": VGG, "temporal_config": VGG, "flow_length": 2}, (4, 16, 24), 5, False),
    "videoclip": (
        {"projection_dim": 64, "temporal_layers": 1, "max_position_embeddings": 16, "num_frames": 4},
        (4, 32, 32),
        2,
        True,
    ),
    "violet": (
        {"video_config": {**SWIN, "temporal_stride": 1}, "text_config": {**BERT, "max_position_embeddings": 16}}
        | {"num_frames": 4, "max_patches": 16, "mask_token_id": 3, "special_token_ids": [0, 1, 2]},
        (4, 32, 32),
        3,  # of its Video Swin
        True,
    ),
}
STOCK = ("videomae", "timesformer", "vivit")

# The name of a test, or the beginning of several, and why it fails.
GRIDS = {
    "test_retain_grad_hidden_states_attentions": "hidden states are handed out as tokens, views of the maps that go "
    "on; a gradient is kept by what the loss goes through"
}
TEXTS = {
    "test_model_main_input_name": "forward begins with input_ids, as CLIP's; batches are counted by videos",
    "test_eager_matches_sdpa_inference_": "the test gives the main input alone, and a pair has a text too",
}
MODEL_EXCEPTIONS: dict[str, dict[str, str]] = dict.fromkeys(("c3d", "i3d", "slowfast", "video_swin", "x3d"), GRIDS)
MODEL_EXCEPTIONS |= {
    "two_stream": GRIDS,
    # The ends of names such as "test_… [VJEPA2ForVideoClassification, vjepa2.predictor.proj.weight]".
    "vjepa2": dict.fromkeys(("mask_tokens]", "weight]", "bias]"), "a classifier asks no predictor, as in stock"),
    "s3d": GRIDS
    | {"test_get_video_features_output_": "hidden_size is the length of a clip's vector, not of the last map"},
    "videoclip": TEXTS
    | {"test_retain_grad_hidden_states_attentions": "forward hands out vectors; states are get_video_features'"},
    "videoprism": {
        "test_batching_equivalence": "logits are shares of all videos or texts of the batch, as in transformers",
        "test_retain_grad_hidden_states_attentions": "forward hands out vectors; states are the towers'",
        "test_get_text_features_output_": "a class token stands behind the words",
        "test_eager_matches_sdpa_inference_": TEXTS["test_eager_matches_sdpa_inference_"],
    },
    "violet": TEXTS
    | GRIDS
    | {
        "test_can_capture_specific_layers_hidden_states [VioletModel]": "states are all or none; the test asks because "
        "BERT, which is a part of it, takes numbers of layers",
    },
}
KWARGS = {"test_valid_kwargs_set": "one set of keywords for all models, with more than transformers' own"}
IMAGE_EXCEPTIONS = KWARGS
# Of processors of models that call clips pixel_values_videos; the test asks for pixel_values.
NAME_EXCEPTIONS = dict.fromkeys(("test_call_numpy", "test_call_pil", "test_call_pytorch", "test_cast_dtype_device"), "")
FLOW_EXCEPTIONS = {"test_call_numpy_4_channels": "optical flow is defined for RGB"}
VIDEO_EXCEPTIONS = KWARGS | {
    "test_call_sample_frames": "num_frames in a call samples ready-made frames whatever the file says of "
    "do_sample_frames, as what is typed counts; frames of short clips are shown again; times are read, not passed"
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return fetch(tmp_path_factory.mktemp("transformers"))


def config_of(model_type: str):
    row = MODELS[model_type]
    values = dict(KINDS[model_type][0])
    if model_type == "videoclip":
        values |= {"video_config": tiny_clip_vision(), "text_config": tiny_clip_text()}
    return row.load(row.config)(**values)


def inputs_of(model_type: str, batch: int) -> dict[str, torch.Tensor]:
    frames, height, width = KINDS[model_type][1]
    row = MODELS[model_type]
    name = row.load(row.auto["AutoModel"]).main_input_name
    name = name if name in CLIP_NAMES else "pixel_values"
    given = {name: torch.rand(batch, frames, 3, height, width)}
    if model_type == "two_stream":
        given["flow_values"] = torch.rand(batch, frames, 4, height, width)
    if MODELS[model_type].processor:
        ids = torch.randint(4, 58, (batch, 7))
        ids[:, -1] = 59
        given |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return given


def check(failed: dict[str, str], allowed: dict[str, str]) -> None:
    unexpected = [f"{name}: {text}" for name, text in failed.items() if not name.startswith(tuple(allowed))]
    assert not unexpected, "\n".join(unexpected)
    unneeded = [start for start in allowed if not any(name.startswith(start) for name in failed)]
    assert not unneeded, f"these pass and need no exception: {unneeded}"


def cases_of(suite, model_type, classes, make_config):
    _, _, layers, attention = KINDS[model_type]
    tokens = 51 if model_type == "vivit" else 25
    return model_tests(suite, classes, make_config, lambda n: inputs_of(model_type, n), layers, attention, tokens)


@pytest.mark.parametrize("model_type", MODELS)
def test_models(suite, model_type):
    classes = [MODELS[model_type].load(name) for name in dict.fromkeys(MODELS[model_type].auto.values())]
    if model_type == "violet":
        classes = classes[:1]  # its heads take pairs, choices or masks, and hand no states out
    tests = cases_of(suite, model_type, classes, lambda: config_of(model_type))
    check(failures(tests), MODEL_EXCEPTIONS.get(model_type, {}))


@pytest.mark.parametrize("model_type", STOCK)
def test_transformers_own_classes_pass_what_is_asked_here(suite, model_type):
    """So that a test which is set up wrongly is not taken for a fault of ours, or the other way round."""
    folder = f"transformers.models.{model_type}"
    modeling = importlib.import_module(f"{folder}.modeling_{model_type}")
    config = getattr(importlib.import_module(f"{folder}.configuration_{model_type}"), MODELS[model_type].config)
    classes = [getattr(modeling, name) for name in MODELS[model_type].auto.values()]
    tests = cases_of(suite, model_type, classes, lambda: config(**KINDS[model_type][0]))
    check(failures(tests), {})


@pytest.mark.parametrize("model_type", MODELS)
def test_configurations(suite, model_type):
    row = MODELS[model_type]
    # Parts come back with all of their fields, which the test compares with what was given.
    simple = {"num_frames": 4} | (
        {"mask_token_id": 3, "special_token_ids": [0, 1, 2]} if model_type == "violet" else {}
    )
    values = {} if model_type == "videoprism" else simple if row.processor else KINDS[model_type][0]
    check(failures(config_tests(suite, row.load(row.config), values)), {})


def row_of_pixel_values(model_type: str):
    row = MODELS[model_type]
    if row.load(row.image_processor).model_input_names != ["pixel_values"]:
        pytest.skip("the release's tests of processors read pixel_values")
    return row


@pytest.mark.parametrize("model_type", MODELS)
def test_image_processors(suite, model_type):
    row = row_of_pixel_values(model_type)
    allowed = IMAGE_EXCEPTIONS | (FLOW_EXCEPTIONS if model_type == "two_stream" else {})
    allowed |= NAME_EXCEPTIONS if model_type == "vjepa2" else {}
    check(failures(image_processor_tests(suite, row.load(row.image_processor))), allowed)


@pytest.mark.parametrize("model_type", MODELS)
def test_video_processors(suite, model_type):
    row = row_of_pixel_values(model_type)
    more = {"num_frames": 8} if model_type == "two_stream" else {}  # flow is taken around so many instants
    allowed = VIDEO_EXCEPTIONS | ({**NAME_EXCEPTIONS, "test_nested_input": ""} if model_type == "vjepa2" else {})
    check(failures(video_processor_tests(suite, row.load(row.video_processor), **more)), allowed)
