"""Gradient caching is the plain step: with dropout, in uneven chunks, over processes."""

from __future__ import annotations

import copy
import os

import pytest
import torch
import torch.multiprocessing
from contract import randomise
from tiny_text import tiny_clip_text, tiny_clip_vision

import hf_video
from hf_video.errors import ConfigError, ModelInputError
from hf_video.training.gradient_cache import cached_step

VIDEOMAE = {"model_type": "videomae", "image_size": 32, "patch_size": 16, "num_frames": 4, "hidden_size": 24}
VIDEOMAE |= {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40, "use_mean_pooling": False}


def tiny(dropout: float = 0.0, **changes):
    text = tiny_clip_text(attention_dropout=dropout)
    video = {**VIDEOMAE, "hidden_dropout_prob": dropout, "drop_path_rate": dropout}
    config = {"video_config": video, "text_config": text, "projection_dim": 16, **changes}
    torch.manual_seed(0)
    return randomise(hf_video.VideoCLIPModel(hf_video.VideoCLIPConfig(**config))).train()


def batch(pairs: int = 6):
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 50, (pairs, 7), generator=draw)
    ids[:, -1] = 59
    video = torch.randn(pairs, 4, 3, 32, 32, generator=draw)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": video}


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def close(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("chunk", [1, 4, 6, 100])
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_it_is_the_plain_step(chunk, loss):
    model = tiny(loss=loss, logit_bias_init_value=-1.0 if loss == "sigmoid" else None)
    plain = copy.deepcopy(model)
    expected = plain(**batch(), return_loss=True).loss
    expected.backward()
    found = cached_step(model, {**batch(), "return_loss": True}, chunk)
    torch.testing.assert_close(found, expected.detach(), atol=1e-6, rtol=0)
    close(gradients(model), gradients(plain))
    assert "logit_scale" in gradients(model)


@pytest.mark.parametrize("temporal", ["transformer", "lstm"])
def test_frame_encoders_with_masks(temporal):
    changes = {"temporal": temporal, "temporal_layers": 1, "max_position_embeddings": 16}
    model = tiny(video_config=tiny_clip_vision(), **changes)
    plain = copy.deepcopy(model)
    given = {**batch(), "video_mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]] * 3)}
    plain(**given, return_loss=True).loss.backward()
    cached_step(model, given, 4)
    close(gradients(model), gradients(plain))


def test_dropout_is_drawn_once():
    """Against a step that has all chunks' graphs at once, from the same seed; and what comes after draws on."""
    model = tiny(dropout=0.3)
    plain, given = copy.deepcopy(model), batch()
    torch.manual_seed(5)
    parts = []
    for start in (0, 4):
        chunk = {name: value[start : start + 4] for name, value in given.items()}
        video = plain.get_video_features(chunk["pixel_values"]).embedding
        parts.append((video, plain.get_text_features(chunk["input_ids"], chunk["attention_mask"]).embedding))
    video, text = (torch.cat(part) for part in zip(*parts, strict=True))
    expected = plain._loss(text, (video,), plain.similarity(text, video))
    after = torch.rand(3)
    expected.backward()
    torch.manual_seed(5)
    found = cached_step(model, given, 4)
    assert torch.equal(torch.rand(3), after)
    torch.testing.assert_close(found, expected.detach(), atol=1e-6, rtol=0)
    close(gradients(model), gradients(plain))
    torch.manual_seed(6)
    assert abs(cached_step(copy.deepcopy(model), given, 4) - found) > 1e-3  # dropout is at work


def test_gradients_add_up_and_the_loss_may_be_scaled():
    model = tiny()
    cached_step(model, batch(), 3)
    once = {name: gradient.clone() for name, gradient in gradients(model).items()}
    cached_step(model, batch(), 3, backward=lambda loss: (loss * 2).backward())
    close(gradients(model), {name: 3 * gradient for name, gradient in once.items()})


def test_memory_is_that_of_a_chunk():
    """No graph of the whole batch: in the first pass none at all, in the second of one chunk at a time."""
    model, seen = tiny(), []
    model.vision_model.register_forward_hook(
        lambda m, given, made: seen.append((len(given[0]), torch.is_grad_enabled()))
    )
    hook = model.visual_projection.register_forward_hook(
        lambda m, given, made: seen.append((len(given[0]), torch.is_grad_enabled()))
    )
    cached_step(model, batch(5), 2)
    hook.remove()
    projected = [one for one in seen if one[0] <= 2]
    assert projected == seen
    assert [grad for _, grad in seen].count(True) == 3 * (len(seen) // 6)


def test_what_can_not_be_cached():
    changes = {"temporal_layers": 1, "max_position_embeddings": 16}
    with pytest.raises(ConfigError, match="scores pairs"):
        cached_step(tiny(video_config=tiny_clip_vision(), temporal="tight", **changes), batch(), 2)
    with pytest.raises(ConfigError, match="chunk_size"):
        cached_step(tiny(), batch(), 0)
    model = tiny()
    model.extra = torch.nn.BatchNorm1d(3)
    with pytest.raises(ConfigError, match="batch norms"):
        cached_step(model.train(), batch(), 2)
    with pytest.raises(ModelInputError, match="Text i is that of video i"):
        cached_step(tiny(), {**batch(), "pixel_values": batch()["pixel_values"][:3]}, 2)


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = tiny()
    loss = cached_step(model, {name: value[3 * rank : 3 * rank + 3] for name, value in batch().items()}, 2)
    torch.save({"loss": loss, "gradients": gradients(model)}, f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    # Not by way of the group's destructor, which at times waits, holding the GIL, for a thread that wants the GIL.
    os._exit(0)


@pytest.mark.slow
def test_two_processes_are_the_joint_batch(tmp_path):
    model = tiny()
    expected = model(**batch(), return_loss=True).loss
    expected.backward()
    torch.multiprocessing.spawn(_process, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found["loss"], expected.detach(), atol=1e-5, rtol=0)
        plain = gradients(model)
        assert not any(gradient.any() for name, gradient in found["gradients"].items() if name not in plain)
        close({name: found["gradients"][name] for name in plain}, plain)
