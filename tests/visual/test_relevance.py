"""Rollouts against products of whole matrices written out by hand, Grad-CAM against the sums of its definition, and the
pictures of both."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from evaluation_models import CONFIGS, make
from PIL import Image
from transformers import pipeline

import hf_video
from hf_video.errors import CheckpointError, ModelInputError, VideoOptionError
from hf_video.video import VideoReader
from hf_video.visual import (
    attention_rollout,
    explain_video,
    grad_cam,
    relevance_strip,
    views_sheet,
    write_relevance_video,
)
from hf_video.visual.seen import seen_frames

T, ROWS, COLUMNS = 3, 2, 4
N = ROWS * COLUMNS
SMALL = {
    **{"image_size": (16 * ROWS, 16 * COLUMNS), "patch_size": 16, "num_frames": T, "hidden_size": 24},
    **{"num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 32, "num_labels": 4},
}


def randomised(model):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model.double().eval()


def clips(batch=2, frames=T):
    return torch.randn(batch, frames, 3, 16 * ROWS, 16 * COLUMNS, dtype=torch.float64)


def step(matrix):
    """An attention over all tokens with its skip connection; each row sums to 1."""
    matrix = 0.5 * matrix + 0.5 * torch.eye(len(matrix), dtype=matrix.dtype)
    torch.testing.assert_close(matrix.sum(1), torch.ones(len(matrix), dtype=matrix.dtype))
    return matrix


def test_divided_attention_is_the_product_of_its_matrices():
    model = randomised(hf_video.TimesformerForVideoClassification(hf_video.TimesformerConfig(**SMALL)))
    x = clips()
    with torch.no_grad():
        outputs = model(x, output_attentions=True)
    rollout = attention_rollout(model, x)
    assert rollout.shape == (2, T, ROWS, COLUMNS)

    def token(t, n):
        return 1 + t * N + n  # any order would do

    for clip in range(2):
        product = torch.eye(1 + T * N, dtype=torch.float64)
        for space, time in zip(outputs.attentions, outputs.temporal_attentions, strict=True):
            space, time = space.mean(1).view(2, T, 1 + N, 1 + N)[clip], time.mean(1).view(2, N, T, T)[clip]
            in_time, in_space = torch.zeros(2, 1 + T * N, 1 + T * N, dtype=torch.float64)
            in_time[0, 0] = 1
            for n in range(N):
                for t in range(T):
                    for other in range(T):
                        in_time[token(t, n), token(other, n)] = time[n, t, other]
            for t in range(T):
                in_space[0, 0] += space[t, 0, 0] / T
                for n in range(N):
                    in_space[0, token(t, n)] = space[t, 0, 1 + n] / T
                    in_space[token(t, n), 0] = space[t, 1 + n, 0]
                    for other in range(N):
                        in_space[token(t, n), token(t, other)] = space[t, 1 + n, 1 + other]
            product = step(in_space) @ step(in_time) @ product
        np.testing.assert_allclose(rollout[clip].flatten(), product[0, 1:].numpy(), rtol=1e-5)


@pytest.mark.parametrize("kind", ["joint_space_time", "space_only"])
def test_other_attention_of_timesformer(kind):
    model = randomised(
        hf_video.TimesformerForVideoClassification(hf_video.TimesformerConfig(**SMALL, attention_type=kind))
    )
    x = clips(1)
    with torch.no_grad():
        maps = [probs.mean(1) for probs in model(x, output_attentions=True).attentions]
    rollout = attention_rollout(model, x)[0]
    rows = []
    for place in range(len(maps[0])):
        product = torch.eye(maps[0].shape[-1], dtype=torch.float64)
        for one in maps:
            product = step(one[place]) @ product
        rows.append(product[0, 1:])
    if kind == "space_only":
        expected = torch.stack(rows).view(T, ROWS, COLUMNS) / T
    else:
        expected = rows[0].view(ROWS, COLUMNS, T).permute(2, 0, 1)
    torch.testing.assert_close(rollout, expected.float(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "kind", ["spacetime", "factorized_encoder", "factorized_self_attention_block", "factorized_dot_product_attention"]
)
def test_vivit(kind):
    config = {name: value for name, value in SMALL.items() if name != "patch_size"}
    config |= {"tubelet_size": (1, 16, 16), "attention_type": kind}
    model = randomised(hf_video.VivitForVideoClassification(hf_video.VivitConfig(**config)))
    x = clips(1)
    with torch.no_grad():
        outputs = model(x, output_attentions=True)
    space = [probs.mean(1) for probs in outputs.attentions]
    time = [probs.mean(1) for probs in outputs.temporal_attentions or ()]
    if kind == "spacetime":
        product = torch.eye(1 + T * N, dtype=torch.float64)
        for one in space:
            product = step(one[0]) @ product
        expected = product[0, 1:]
    elif kind == "factorized_encoder":
        over_time = torch.eye(1 + T, dtype=torch.float64)
        for one in time:
            over_time = step(one[0]) @ over_time
        places = []
        for t in range(T):
            product = torch.eye(1 + N, dtype=torch.float64)
            for one in space:
                product = step(one[t]) @ product
            places.append(over_time[0, 1 + t] * product[0, 1:])
        expected = torch.cat(places)
    else:
        product = torch.eye(T * N, dtype=torch.float64)
        for in_space, in_time in zip(space, time, strict=True):
            a = torch.block_diag(*in_space)
            b = torch.zeros(T, N, T, N, dtype=torch.float64)
            for n in range(N):
                b[:, n, :, n] = in_time[n]
            b = b.view(T * N, T * N)
            product = (step(a) @ step(b) if kind == "factorized_self_attention_block" else step((a + b) / 2)) @ product
        expected = product.mean(0)
    rollout = attention_rollout(model, x)[0].flatten()
    torch.testing.assert_close(rollout, expected.float(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["videomae", "vjepa2"])
def test_models_that_average_tokens(name):
    model, _ = make(name)
    x = torch.randn(2, 4, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        maps = [probs.mean(1) for probs in model(x, output_attentions=True).attentions]
    expected = torch.eye(maps[0].shape[-1], dtype=torch.float64)
    for one in maps:
        expected = torch.stack([step(clip) for clip in one]) @ expected
    torch.testing.assert_close(attention_rollout(model, x).flatten(1), expected.mean(1).float())


def test_videoprism_with_capped_scores():
    model, _ = make("videoprism_vision_model")
    x = torch.rand(1, 4, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        within, over_time = (probs.mean(1) for probs in model(x, output_attentions=True).attentions)
    assert within.shape == over_time.shape == (4, 4, 4)
    b = torch.zeros(4, 4, 4, 4, dtype=torch.float64)
    for n in range(4):
        b[:, n, :, n] = over_time[n]
    expected = step(b.view(16, 16)) @ step(torch.block_diag(*within))
    torch.testing.assert_close(attention_rollout(model, x)[0].flatten(), expected.mean(0).float())


def test_models_without_such_maps_are_told_what_works():
    for name in ("x3d", "video_swin"):
        model, _ = make(name)
        with pytest.raises(CheckpointError, match="Grad-CAM"):
            attention_rollout(model, torch.zeros(1, 4, 3, 32, 32))


def test_grad_cam_is_its_definition():
    model, _ = make("i3d-resnet")
    x = torch.randn(2, 4, 3, 32, 32, dtype=torch.float64)
    found = grad_cam(model, x, label=[1, 0])
    maps = model.get_video_features(x).feature_map.detach().requires_grad_()  # (B, t, h, w, D)
    score = model.classifier(model.base_model.pool(maps).mean((1, 2, 3)))
    slope = torch.autograd.grad(score[0, 1] + score[1, 0], maps)[0]
    expected = (maps * slope.mean((1, 2, 3), keepdim=True)).sum(-1).clamp(min=0)
    torch.testing.assert_close(found, expected.detach().float())


@pytest.mark.parametrize("name", [name for name in CONFIGS if not name.startswith("two_stream")])
def test_grad_cam_of_every_family(name):
    config = {"pool_q_stride": [[0, 1, 2, 2]]} if name.startswith("mvit") else {}
    if config:
        entry = hf_video.MODELS["mvit"]
        made = entry.load(entry.config)(**{**CONFIGS[name], **config}, num_labels=3)
        model = randomised(entry.load(entry.auto["AutoModelForVideoClassification"])(made))
    else:
        model, _ = make(name)
    model.eval().requires_grad_(False)
    x = torch.randn(2, getattr(model.config, "num_frames", 16), 3, 32, 32, dtype=torch.float64)
    found = grad_cam(model, x)
    assert found.shape == (2, *model.get_video_features(x).feature_map.shape[1:4])
    assert torch.isfinite(found).all()
    assert (found >= 0).all()
    assert found.flatten(1).sum(1).min() > 0
    assert not any(module._forward_hooks for module in model.modules())


def test_grad_cam_says_what_it_cannot():
    model, _ = make("two_stream-rgb")
    with pytest.raises(CheckpointError, match="no map"):
        grad_cam(model, torch.zeros(1, 3, 3, 32, 32, dtype=torch.float64))
    model, _ = make("videomae")
    with pytest.raises(VideoOptionError, match="must be the number"):
        grad_cam(model, torch.zeros(1, 4, 3, 32, 32, dtype=torch.float64), label=99)


@pytest.fixture(scope="module")
def classify(tmp_path_factory):
    return pipeline("video-classification", model=str(tiny.save_tiny(tmp_path_factory.mktemp("m"))), device="cpu")


def test_views_are_the_pixels_that_went_in(classify, tmp_path):
    path = tiny.write_clip(tmp_path / "a.mkv")
    views = explain_video(classify, path, views="2x3", num_frames=4)
    assert len(views) == 6
    expected = classify(str(path), views="2x3", num_frames=4, top_k=None)
    assert views[0].label == expected[0]["label"]
    assert np.mean([one.score for one in views]) == pytest.approx(expected[0]["score"], abs=1e-5)
    with VideoReader(path, shortest_edge=32) as reader:
        for view, indices in zip(views[1::3], expected.indices, strict=True):
            frames = reader.get_frames(indices)
            left = (frames.data.shape[2] - 32) // 2
            assert np.abs(view.frames.astype(int) - frames.data[:, :, left : left + 32]).max() <= 1
            np.testing.assert_allclose(view.seconds[:-1], frames.seconds)
    sheet = views_sheet(views)
    assert sheet.width > 900


@pytest.mark.parametrize(
    "name", sorted({one.image_processor for one in hf_video.MODELS.values() if one.image_processor})
)
def test_what_every_processor_did_to_pixels_is_undone(name):
    kind = getattr(hf_video, name)
    small = {"num_frames": 2, "size": {"height": 16, "width": 16}, "crop_size": {"height": 16, "width": 16}}
    small |= {"streams": "spatial"} if name.startswith("TwoStream") else {}
    made, plain = (
        next(iter(kind(**small, **steps)(tiny.moving_frames(2), return_tensors="pt").values()))
        for steps in ({}, dict.fromkeys(("do_rescale", "do_normalize", "do_flip_channel_order"), False))
    )
    assert plain.max() > 50
    np.testing.assert_array_equal(seen_frames(kind(**small), made), plain.movedim(2, -1))


def test_strip_and_video(classify, tmp_path):
    path = tiny.write_clip(tmp_path / "a.mkv")
    for method in ("rollout", "grad_cam"):
        (view,) = explain_video(classify, path, method=method, label="diving")
        assert view.label == "diving"
        assert view.relevance.shape == (2, 4, 4)
        assert view.over_time().sum() == pytest.approx(1)
        strip = np.asarray(relevance_strip([view]))
        assert (strip[16 + 26 : 16 + 26 + 112, 16 : 16 + 112] != strip[16 + 26 + 115 : 16 + 26 + 227, 16:128]).any()
        written = write_relevance_video(view, tmp_path / "b.mkv", codec="ffv1")
        with VideoReader(written) as reader:
            np.testing.assert_array_equal(reader.get_frames(slice(None)).data, view.heat())
            np.testing.assert_allclose(reader.timestamps, view.seconds[:-1] - view.seconds[0], atol=0.0011)


def test_heat_glows_where_relevance_is(classify, tmp_path):
    path = tiny.write_clip(tmp_path / "a.mkv")
    (view,) = explain_video(classify, path, method="rollout")
    relevance = np.zeros((2, 4, 4), np.float32)
    relevance[1, 0, 3] = 1
    heat = type(view)(view.frames * 0, view.seconds, "", "", 0.5, relevance).heat()
    assert heat[3, :8, 24:].mean() > 5 * heat[3, 16:, :16].mean()
    assert heat[3, :8, 24:].mean() > 2 * heat[0, :8, 24:].mean()


def test_wrong_questions(classify, tmp_path):
    path = tiny.write_clip(tmp_path / "a.mkv")
    for options, word in (
        ({"label": "dving"}, "diving"),
        ({"method": "magic"}, "rollout"),
        ({"windows": "1s"}, "views="),
    ):
        with pytest.raises(VideoOptionError, match=word):
            explain_video(classify, path, **options)
    (view,) = explain_video(classify, path)
    with pytest.raises(VideoOptionError, match="ask for it"):
        relevance_strip([view])
    with pytest.raises(ModelInputError, match="can be shown"):
        seen_frames(classify.image_processor, torch.zeros(1, 4, 2, 8, 8))
    assert isinstance(views_sheet([view]), Image.Image)
