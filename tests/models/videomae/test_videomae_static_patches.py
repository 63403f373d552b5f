"""VideoMAE that leaves out patches that don't change."""

from __future__ import annotations

import pytest
import tiny
import torch
from configs import CLIP, videomae
from contract import assert_close
from transformers import AutoModelForVideoClassification, Trainer, TrainingArguments

import hf_video
from hf_video.errors import ConfigError, ModelInputError
from hf_video.features.digests import changed_fields
from hf_video.models.videomae.modeling_videomae import (
    VideoMAEForPreTraining,
    VideoMAEForSpatioTemporalActionDetection,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)
from hf_video.models.videomae.static_patches import changed_patches

TOKENS, PLACES = 16, 8


def clips() -> torch.Tensor:
    """(3, 4, 3, 32, 64): one still, one in which a patch and a half move, one in which all does."""
    still = CLIP[:1, :1].expand(1, 4, 3, 32, 64)
    moving = still.clone()
    moving[:, 3, :, :16, 8:32] += 1
    return torch.cat([still, moving, CLIP[1:]])


def change_by_hand(clip: torch.Tensor, row: int, column: int) -> float:
    place = (..., slice(16 * row, 16 * row + 16), slice(16 * column, 16 * column + 16))
    return (clip[3][place] - clip[0][place]).abs().mean().item()


def test_a_patch_is_kept_that_changes_by_more_than_the_threshold():
    kept = changed_patches(clips(), (2, 16, 16), 0.1).view(3, 2, 2, 4)
    assert kept[:, 0].all()
    assert kept[:, 1].sum((1, 2)).tolist() == [0, 2, 8]
    assert kept[1, 1, 0, :2].all()
    limit = change_by_hand(clips()[1], 0, 0)  # of the half patch
    for threshold, expected in ((limit * 1.01, 1), (limit * 0.99, 2)):
        assert changed_patches(clips()[1:2], (2, 16, 16), threshold).sum() == PLACES + expected
    broken = clips()[:1].clone()
    broken[0, 3, 0, 20, 40] = torch.nan  # is not taken for a patch at rest
    assert changed_patches(broken, (2, 16, 16), 0.1).view(2, 2, 4)[1].nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize("changes", [{}, {"cosine_attention": True}, {"use_mean_pooling": True}])
def test_a_batch_is_what_its_clips_are_alone(changes):
    model = videomae(VideoMAEForVideoClassification, static_patches="drop", **changes).eval()
    asked = {"output_hidden_states": True, "output_attentions": True}
    batch = model(clips(), **asked)
    assert batch.kept_tokens.sum(1).tolist() == [PLACES, PLACES + 2, TOKENS]
    for number, clip in enumerate(clips().split(1)):
        alone, row = model(clip, **asked), slice(number, number + 1)
        assert torch.equal(alone.kept_tokens, batch.kept_tokens[row])
        for name in ("hidden_states", "attentions"):
            assert_close([one[row] for one in batch[name]], list(alone[name]), atol=0)
        assert_close(batch.logits[row], alone.logits, atol=1e-6)


def test_what_is_encoded_is_what_a_mask_would_show():
    """And the others hold the state of the last one that was encoded at their place."""
    dropping, masked = (videomae(VideoMAEModel, static_patches=how).eval() for how in ("drop", "keep"))
    output = dropping(clips()[1:2], output_attentions=True)
    kept = output.kept_tokens[0]
    expected = masked(clips()[1:2], bool_masked_pos=~output.kept_tokens, output_attentions=True)
    assert_close(output.last_hidden_state[:, kept], expected.last_hidden_state, atol=0)
    states = output.last_hidden_state.unflatten(1, (2, PLACES))
    still = ~kept[PLACES:]
    assert_close(states[:, 1, still], states[:, 0, still], atol=0)
    for probs, seen in zip(output.attentions, expected.attentions, strict=True):
        assert_close(probs[:, :, kept][..., kept], seen, atol=0)
        assert probs[..., ~kept].abs().sum() == 0


def test_nothing_is_left_out_of_a_clip_that_moves_all_over():
    drop, keep = (videomae(VideoMAEForVideoClassification, static_patches=how).eval() for how in ("drop", "keep"))
    for clip in (clips()[2:], clips()[:, :2]):  # nor of one tubelet
        assert_close(drop(clip).logits, keep(clip).logits, atol=2e-6)
    assert "kept_tokens" not in keep(clips())


def test_features_and_boxes_have_the_whole_map():
    model = videomae(VideoMAEForVideoClassification, static_patches="drop", use_mean_pooling=True).eval()
    features = model.get_video_features(clips())
    assert features.feature_map.shape == (3, 2, 2, 4, 24)
    assert_close(model.classifier(features.embedding), model(clips()).logits, atol=3e-6)
    assert_close(features.feature_map[0, 1], features.feature_map[0, 0], atol=0)
    boxes = torch.tensor([[[0.0, 0.0, 40.0, 30.0]]]).expand(3, 1, 4)
    detect = videomae(VideoMAEForSpatioTemporalActionDetection, static_patches="drop").eval()
    assert detect(clips(), boxes).logits.shape[:2] == (3, 1)


def test_training_reaches_every_parameter_also_with_checkpointing():
    grads = []
    for checkpointing in (False, True):
        model = videomae(VideoMAEForVideoClassification, static_patches="drop", use_mean_pooling=True).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(clips(), labels=torch.tensor([0, 1, 0])).loss.backward()
        assert all(p.grad.abs().sum() > 0 for p in model.parameters())
        grads.append([p.grad for p in model.parameters()])
    assert_close(*grads, atol=1e-7)


def test_trainer_predicts_scores_alone(tmp_path):
    model = videomae(VideoMAEForVideoClassification, static_patches="drop").eval()
    rows = [{"pixel_values": clip[0], "labels": 1} for clip in clips().split(1)]
    arguments = TrainingArguments(
        str(tmp_path), use_cpu=True, report_to="none", per_device_eval_batch_size=2, disable_tqdm=True
    )
    predicted = Trainer(model, arguments).predict(rows).predictions
    assert_close(torch.from_numpy(predicted), model(clips()).logits, atol=1e-6)


def test_hooks_see_what_is_encoded():
    model, seen = videomae(VideoMAEForVideoClassification, static_patches="drop").eval(), []
    model.videomae.embeddings.patch_embeddings.projection.register_forward_hook(lambda m, given, out: seen.append(out))
    expected = videomae(VideoMAEForVideoClassification, static_patches="drop").eval()(clips())
    assert_close(model(clips()).logits, expected.logits, atol=2e-6)
    assert [len(out) for out in seen] == [PLACES, PLACES + 2, TOKENS]


@pytest.mark.no_cover
def test_compiled_and_exported():
    model = videomae(VideoMAEForVideoClassification, static_patches="drop", num_hidden_layers=1).eval()
    torch._dynamo.reset()
    assert_close(torch.compile(model, backend="eager")(clips()).logits, model(clips()).logits)
    for make in (
        lambda: torch.export.export(model, (clips(),)),
        lambda: torch.jit.trace(model, (clips(),), strict=False),
    ):
        with pytest.raises(ModelInputError, match='static_patches="keep"'):
            make()


def test_files_hold_it_and_any_checkpoint_takes_it(tmp_path):
    model = videomae(VideoMAEForVideoClassification).eval()
    model.save_pretrained(tmp_path / "keep")
    changes = {"static_patches": "drop", "static_threshold": 2}
    loaded = VideoMAEForVideoClassification.from_pretrained(tmp_path / "keep", **changes)
    assert loaded(clips()).kept_tokens[2].sum() == PLACES
    loaded.save_pretrained(tmp_path / "drop")
    again = VideoMAEForVideoClassification.from_pretrained(tmp_path / "drop")
    assert (again.config.static_patches, again.config.static_threshold) == ("drop", 2)
    assert changed_fields(again.config)["static_patches"] == "drop"  # of vectors: an index is of one or the other


def test_where_it_makes_no_sense():
    with pytest.raises(ConfigError, match="static_patches='skip'"):
        hf_video.VideoMAEConfig(static_patches="skip")
    with pytest.raises(ConfigError, match="static_threshold=-1"):
        hf_video.VideoMAEConfig(static_threshold=-1)
    with pytest.raises(ConfigError, match='by its mask: pass static_patches="keep"'):
        videomae(VideoMAEForPreTraining, static_patches="drop")
    with pytest.raises(ModelInputError, match="leave one out"):
        videomae(VideoMAEModel, static_patches="drop")(clips(), bool_masked_pos=torch.zeros(3, 16, dtype=torch.bool))
    with pytest.raises(ConfigError, match="VideoMAE alone"):
        hf_video.TimesformerConfig(static_patches="drop")


def test_other_models_refuse_when_they_are_loaded(tmp_path):
    tiny.save_tiny(tmp_path, "timesformer")
    with pytest.raises(ConfigError, match="VideoMAE alone"):
        AutoModelForVideoClassification.from_pretrained(tmp_path, static_patches="drop")
