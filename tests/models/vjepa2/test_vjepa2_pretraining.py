"""V-JEPA 2's pretraining: its loss against the authors', its moving average, its files, and how masks are drawn."""

from __future__ import annotations

import pytest
import torch
import transformers
from contract import assert_close, randomise
from golden_cases import Golden
from safetensors.torch import load_file
from test_vjepa2 import CLIP, TINY

import hf_video
from hf_video.errors import ConfigError, ModelInputError
from hf_video.models.vjepa2.masks import LONG_RANGE, SHORT_RANGE, BlockMask, block_masks, draw_block_masks


def tiny(**changes):
    return randomise(hf_video.VJEPA2ForPreTraining(hf_video.VJEPA2Config(**{**TINY, **changes})))


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


# Of `app/vjepa/train.py`'s `loss_fn` with the authors' modules and the golden case's weights, on two pairs of masks of
# different sizes: the stored context and target, and the target with five tokens of the context.
@pytest.mark.parametrize(("exponent", "expected"), [(1.0, 1.1229121685), (2.0, 0.9978408813)])
@torch.no_grad()
def test_the_loss_is_the_authors(exponent, expected):
    golden = Golden("vjepa2_pretrained")
    average, learning = (
        hf_video.from_official("vjepa2", golden.checkpoint, checkpoint_key=key, **golden.config)
        for key in ("target_encoder", "encoder")
    )
    config = average.config
    config.pred_mask_token, config.loss_exponent = 0, exponent
    model = hf_video.VJEPA2ForPreTraining(config).eval()
    model.vjepa2.load_state_dict(average.state_dict())
    model.context_encoder.load_state_dict(learning.encoder.state_dict())
    context, target = golden.inputs["context"], golden.inputs["target"]
    output = model(golden.inputs["video"], [context, target], [target, context[:, :5]])
    assert output.logits.shape == (2, 17 + 5, 64)
    assert output.loss.item() == pytest.approx(expected, abs=1e-5)
    config.pred_mask_token = 1
    other = hf_video.VJEPA2ForPreTraining(config).eval()
    other.load_state_dict(model.state_dict())
    loss = other(golden.inputs["video"], [context, target], [target, context[:, :5]]).loss
    assert abs(loss.item() - expected) > 1e-3


class TestAverage:
    masks = (torch.tensor([[0, 1, 2, 3]] * 2), torch.tensor([[8, 9]] * 2))

    def test_it_starts_as_the_encoder_and_follows_it(self):
        model = hf_video.VJEPA2ForPreTraining(hf_video.VJEPA2Config(**TINY)).train()
        average, learning = model.vjepa2.encoder, model.context_encoder
        assert_close(list(average.parameters()), list(learning.parameters()), atol=0)
        start = [p.clone() for p in average.parameters()]
        optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
        model(CLIP, *self.masks).loss.backward()
        optimizer.step()
        assert_close(list(average.parameters()), start, atol=0)
        model.update_target(0.9)
        expected = [0.9 * old + 0.1 * new for old, new in zip(start, learning.parameters(), strict=True)]
        assert_close(list(average.parameters()), expected, atol=1e-6)
        assert any(not torch.equal(a, b) for a, b in zip(average.parameters(), start, strict=True))

    def test_half_precision_would_stand_still(self):
        with pytest.raises(ConfigError, match="bf16=True"):
            tiny().bfloat16().update_target(0.999)

    def test_it_drops_nothing(self):
        model = tiny(drop_path_rate=0.9).train()
        assert_close(model.targets(CLIP), model.targets(CLIP), atol=0)
        assert model.context_encoder.training

    def test_targets_see_what_the_context_does_not(self):
        model = tiny()
        changed = CLIP.clone()
        changed[:, 2:] += 1  # the second half, which the context has no token of
        one, other = model(CLIP, *self.masks), model(changed, *self.masks)
        assert_close(one.logits, other.logits, atol=0)
        assert abs(one.loss - other.loss) > 1e-3

    def test_autocast_is_close(self):
        model = tiny()
        expected = model(CLIP, *self.masks).loss
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(CLIP, *self.masks).loss
        assert loss.dtype == torch.float32
        assert_close(loss, expected, atol=0.02)


class TestFiles:
    def test_others_load_the_average(self, tmp_path):
        """Ours and transformers' own; and a model without the second encoder starts both."""
        from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Model as Stock

        model = tiny()
        model.save_pretrained(tmp_path / "pretrained")
        wanted = dict(model.vjepa2.named_parameters())
        for cls in (transformers.AutoModel, Stock):
            loaded, info = cls.from_pretrained(tmp_path / "pretrained", output_loading_info=True)
            assert not info["missing_keys"]
            theirs = loaded.encoder.layer[1].attention.query.weight
            assert torch.equal(theirs, wanted["encoder.layer.1.attention.query.weight"])
        classifier = transformers.AutoModelForVideoClassification.from_pretrained(tmp_path / "pretrained")
        assert torch.equal(classifier.vjepa2.encoder.layernorm.weight, wanted["encoder.layernorm.weight"])

        model.vjepa2.save_pretrained(tmp_path / "encoder")
        again = transformers.AutoModelForPreTraining.from_pretrained(tmp_path / "encoder")
        assert_close(list(again.vjepa2.parameters()), list(model.vjepa2.parameters()), atol=0)
        assert_close(list(again.context_encoder.parameters()), list(model.vjepa2.encoder.parameters()), atol=0)
        assert not any(p.requires_grad for p in again.vjepa2.encoder.parameters())

    def test_both_encoders_are_saved(self, tmp_path):
        tiny().save_pretrained(tmp_path)
        names = load_file(tmp_path / "model.safetensors")
        assert not torch.equal(names["context_encoder.layernorm.bias"], names["vjepa2.encoder.layernorm.bias"])


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ((None, None), "pretraining needs both"),
        ((torch.zeros(2, 1, dtype=torch.int64), None), "target_mask is missing"),
        ((torch.zeros(2, 1, dtype=torch.int64), torch.full((2, 1), 12)), "the clip has 12 tokens"),
    ],
)
def test_masks_that_are_missing_or_of_other_clips(masks, message):
    with pytest.raises(ModelInputError, match=message):
        tiny()(CLIP, *masks)


class TestMasks:
    @pytest.mark.parametrize("grid", [(8, 16, 16), (4, 4, 4), (1, 3, 5), (2, 2, 2), (1, 1, 2)])
    @pytest.mark.parametrize("kind", [SHORT_RANGE, LONG_RANGE])
    def test_context_and_target_have_no_token_in_common_and_are_never_empty(self, grid, kind):
        for seed in range(20):
            context, target = draw_block_masks(kind, grid, seeded(seed, seed + 50), size_generator=seeded(seed)[0])
            assert min(context.shape[1], target.shape[1]) >= 1
            for seen, hidden in zip(context.tolist(), target.tolist(), strict=True):
                assert not set(seen) & set(hidden)
                assert seen == sorted(set(seen))
                assert 0 <= min(seen + hidden) <= max(seen + hidden) < grid[0] * grid[1] * grid[2]

    def test_blocks_reach_over_all_times(self):
        context, target = draw_block_masks(SHORT_RANGE, (3, 8, 8), seeded(0))
        for numbers in (context[0], target[0]):
            assert set((numbers % 64).tolist()) == set((numbers[numbers < 64]).tolist())
        assert context.shape[1] + target.shape[1] == 3 * 64

    def test_one_block_has_the_size_that_was_drawn(self):
        kind = BlockMask(blocks=1, spatial_scale=(0.25, 0.25), temporal_scale=(0.5, 0.5), aspect_ratio=(1, 1))
        assert kind.draw_size((4, 8, 8), None) == (2, 4, 4)
        _, target = draw_block_masks(kind, (4, 8, 8), seeded(3))
        places = torch.stack([target[0] // 64, target[0] % 64 // 8, target[0] % 8])
        assert (places.amax(1) - places.amin(1)).tolist() == [1, 3, 3]
        assert target.shape[1] == 2 * 4 * 4

    def test_a_clips_mask_is_that_of_its_seed(self):
        """But for its end, where another one of the batch hides fewer tokens."""
        size = seeded(9, 9)
        alone, _ = draw_block_masks(LONG_RANGE, (2, 8, 8), seeded(1), size_generator=size[0])
        among, _ = draw_block_masks(LONG_RANGE, (2, 8, 8), seeded(5, 1, 2), size_generator=size[1])
        assert among[1].tolist() == alone[0][: among.shape[1]].tolist()

    def test_how_much_is_hidden(self):
        """As the authors' generator does: the means of 1500 of its draws for four clips each."""
        expected = {SHORT_RANGE: (312.1, 556.5), LONG_RANGE: (120.3, 758.8)}
        for kind, means in expected.items():
            generators = seeded(*range(4))
            drawn = [draw_block_masks(kind, (4, 16, 16), generators, size_generator=generators[0]) for _ in range(150)]
            found = [sum(pair[side].shape[1] for pair in drawn) / len(drawn) for side in (0, 1)]
            assert found == pytest.approx(means, abs=20), kind  # 4.5 deviations of a mean of 150

    def test_clips_too_small_for_any(self):
        with pytest.raises(ModelInputError, match=r"2 blocks of 2x1x1 tokens leave nothing to see of a clip of 2x1x1"):
            draw_block_masks(LONG_RANGE, (2, 1, 1), seeded(0))

    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            ({"blocks": 0, "spatial_scale": [0.1, 0.2]}, "blocks=0"),
            ({"blocks": 2, "spatial_scale": [0.3, 0.2]}, r"a range \[least, most\]"),
            ({"blocks": 2, "spatial_scale": 0.3}, r"a range \[least, most\]"),
            ({"blocks": 2, "spatial_scale": [0.3, 1.2]}, "spatial_scale=1.2"),
            ({"blocks": 2}, "has blocks, spatial_scale and"),
            ({"blocks": 2, "spatial_scale": [0.1, 0.2], "max_keep": 3}, "max_keep"),
        ],
    )
    def test_kinds_that_there_are_not(self, kind, message):
        with pytest.raises(ConfigError, match=message):
            block_masks([kind])

    def test_no_kind_at_all(self):
        with pytest.raises(ConfigError, match="no kind of mask"):
            block_masks([])
