"""V-JEPA 2 pretrained from a folder: a run in miniature, resuming, its trainer's figures, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import hf_video
from hf_video.cli import main
from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.errors import ConfigError
from hf_video.training.masked_pretraining import BlockMaskCollator, feature_errors, summarise_errors
from hf_video.training.masked_trainer import FeatureTrainer
from hf_video.training.recipes import load_recipe
from hf_video.training.runs.pretraining import pretrain, pretraining_recipe

TINY = {
    "model_type": "vjepa2", "crop_size": 32, "patch_size": 8, "frames_per_clip": 4, "hidden_size": 24,
    "num_hidden_layers": 1, "num_attention_heads": 2, "pred_hidden_size": 24, "pred_num_hidden_layers": 1,
    "pred_num_attention_heads": 2, "pred_num_mask_tokens": 2, "num_pooler_layers": 1,
}  # fmt: skip
KINDS = ({"blocks": 2, "spatial_scale": [0.3, 0.3]}, {"blocks": 1, "spatial_scale": [0.5, 0.5]})
FAST = (
    "training.use_cpu=true",
    "training.dataloader_num_workers=0",
    "training.report_to=none",
    "training.min_train_steps=0",
    "training.num_train_epochs=2",
    "training.per_device_train_batch_size=8",
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    for split, count in (("train", 16), ("test", 8)):
        write_moving_glyphs(root / split, count, seed=count, size=32, speed=4)
    return root


def start(clips: Path, output: Path, *settings: str, **options):
    output.parent.mkdir(parents=True, exist_ok=True)
    (output.parent / "tiny.json").write_text(json.dumps(TINY))
    return pretrain(clips, output.parent / "tiny.json", output=output, settings=[*FAST, *settings], **options)


@pytest.mark.usefixtures("white_figures")
class TestRun:
    @pytest.fixture(scope="class")
    def run(self, clips, tmp_path_factory):
        output = tmp_path_factory.mktemp("run") / "encoder"
        return output, start(clips, output, "training.eval_steps=0.5", "training.gradient_checkpointing=true")

    def test_the_summary_says_what_it_has_to_beat(self, run):
        _, summary = run
        held_out = summary["held_out"]
        assert summary["recipe"] == "vjepa2_pretrain_small:few_videos"
        assert held_out["clips"] == 8 * 8
        assert held_out["explained"] == pytest.approx(
            1 - held_out["masked_loss"] / min(held_out["mean_of_seen"], held_out["copy_of_nearest"])
        )
        assert held_out["target_deviation"] > 0

    def test_the_average_moved_and_is_not_the_other_encoder(self, run):
        names = load_file(run[0] / "model.safetensors")
        kind = "encoder.layer.0.attention.query.weight"
        learning, average = names[f"context_{kind}"], names[f"vjepa2.{kind}"]
        torch.manual_seed(0)
        assert 0 < (learning - average).abs().max() < 0.1

    def test_card_and_figures(self, run):
        output, _ = run
        card = (output / "README.md").read_text()
        assert "telling the features of what was masked" in card
        assert "the mean of the tokens that are seen" in card
        assert [one.name for one in (output / "figures").iterdir()] == ["loss_curve.png"]

    def test_the_encoder_is_probed_and_fine_tuned_on(self, run, clips, capsys):
        output, _ = run
        probe = ["probe", str(clips), "--model", str(output), "--json", "--device", "cpu"]
        assert main(probe) == 0
        assert 0 <= json.loads(capsys.readouterr().out)["test_top1"] <= 1
        fit = ["train", str(clips), "--model", str(output), "--output", str(output / "fit"), "--yes"]
        quick = ("use_cpu=true", "dataloader_num_workers=0", "report_to=none", "max_steps=2", "warmup_steps=0")
        assert main(fit + [part for one in quick for part in ("--set", f"training.{one}")]) == 0
        tuned = transformers.AutoModelForVideoClassification.from_pretrained(output / "fit")
        assert type(tuned) is hf_video.VJEPA2ForVideoClassification

    def test_it_goes_on_from_its_own_folder(self, run, clips, tmp_path):
        summary = pretrain(clips, run[0], output=tmp_path / "more", settings=[*FAST, "training.max_steps=1"])
        assert summary["from_scratch"] is False


@pytest.mark.usefixtures("white_figures")
def test_killed_and_resumed_is_the_same(clips, tmp_path, monkeypatch):
    """Weights, average and losses, with a momentum that goes on where it was."""
    steps = ("training.save_steps=2", "training.logging_steps=1", "training.target_momentum=[0.5, 0.9]")
    start(clips, tmp_path / "whole", *steps)
    save = FeatureTrainer._save_checkpoint

    class KilledError(Exception):
        pass

    def die(self, *args, **kwargs):
        save(self, *args, **kwargs)
        raise KilledError

    monkeypatch.setattr(FeatureTrainer, "_save_checkpoint", die)
    with pytest.raises(KilledError):
        start(clips, tmp_path / "cut", *steps)
    monkeypatch.undo()
    start(clips, tmp_path / "cut", *steps, resume=True)
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert max((whole[name] - cut[name]).abs().max().item() for name in whole) <= 1e-6
    losses = []
    for name in ("whole", "cut"):
        (state,) = (tmp_path / name).glob("checkpoint-4/trainer_state.json")
        losses.append([row["loss"] for row in json.loads(state.read_text())["log_history"] if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert len(losses[0]) == 4


def test_the_momentum_goes_from_first_to_last(clips, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(hf_video.VJEPA2ForPreTraining, "update_target", lambda self, momentum: seen.append(momentum))
    start(clips, tmp_path / "out", "training.target_momentum=[0.2, 0.6]", held_out=0)
    assert seen == pytest.approx([0.2, 0.3, 0.4, 0.5])


class TestErrors:
    @pytest.fixture(scope="class")
    def batch(self):
        rows = [
            {"pixel_values_videos": torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(n)), "seed": n}
            for n in range(3)
        ]
        return BlockMaskCollator((2, 8, 8), KINDS)(rows)

    def test_masks_are_those_of_the_seeds(self, batch):
        assert [len(batch[name]) for name in ("context_mask", "target_mask")] == [2, 2]
        rows = [{"pixel_values_videos": clip, "seed": n} for n, clip in enumerate(batch["pixel_values_videos"])]
        again = BlockMaskCollator((2, 8, 8), KINDS)([rows[:2], rows[2:]])  # repeats lie in lists
        assert all(torch.equal(a, b) for a, b in zip(again["target_mask"], batch["target_mask"], strict=True))

    @torch.no_grad()
    def test_figures_against_plain_loops(self, batch):
        torch.manual_seed(0)
        model = hf_video.VJEPA2ForPreTraining(hf_video.VJEPA2Config(**TINY)).eval()
        inputs = tuple(batch[name] for name in ("pixel_values_videos", "context_mask", "target_mask"))
        found = feature_errors(model, *inputs)
        assert found[:, 0].mean().item() == pytest.approx(model(*inputs).loss.item(), abs=1e-6)
        targets = model.targets(inputs[0])
        clip, means, copies = 1, [], []
        for contexts, hidden in zip(*inputs[1:], strict=True):
            seen = contexts[clip].tolist()
            mean = targets[clip, seen].mean(0)
            for token in hidden[clip].tolist():
                place = torch.tensor([token // 16, token % 16 // 4, token % 4])
                distances = [
                    (place - torch.tensor([n // 16, n % 16 // 4, n % 4])).square().sum().item() for n in sorted(seen)
                ]
                nearest = sorted(seen)[distances.index(min(distances))]
                means.append(((targets[clip, token] - mean).abs().mean() / len(hidden[clip])).item())
                copies.append(((targets[clip, token] - targets[clip, nearest]).abs().mean() / len(hidden[clip])).item())
        assert found[clip, 1].item() == pytest.approx(sum(means) / 2, abs=1e-5)
        assert found[clip, 2].item() == pytest.approx(sum(copies) / 2, abs=1e-5)
        assert found[clip, 3].item() == pytest.approx(targets[clip].std(0, correction=0).mean().item(), abs=1e-6)

    def test_a_collapsed_model_is_told_from_one_that_learnt(self):
        names = ("masked_loss", "mean_of_seen", "copy_of_nearest")
        told = summarise_errors(torch.tensor([[0.0, 0.0, 0.0, 0.0]]), names)
        assert (told["explained"], told["target_deviation"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.ema_decay=0.9"], "an average of an average|average what is an average"),
        (["training.target_momentum=[0.9, 1.5]"], "target_momentum=1.5"),
        (["training.target_momentum=0.9"], r"a list \[first, last\]"),
        (["masking.mask_ratio=0.5"], "has no 'mask_ratio'"),
        (["masking.kinds=[]"], "no kind of mask"),
        (["training.decay_steps=0.2", "training.schedule=cosine"], "needs schedule='stable'"),
    ],
)
def test_settings_that_mean_nothing(clips, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        start(clips, tmp_path / "out", *settings)


def test_videomaes_recipe_and_the_other_way_round(clips, tmp_path):
    with pytest.raises(ConfigError, match="has no 'mask'"):
        start(clips, tmp_path / "out", recipe="videomae_pretrain_small")
    with pytest.raises(ConfigError, match="has no 'kinds'"):
        pretrain(clips, "videomae", recipe="vjepa2_pretrain_small", output=tmp_path / "out")


def test_recipes():
    assert pretraining_recipe(100, "vjepa2") == "vjepa2_pretrain_small"
    published = load_recipe("vjepa2_pretrain")
    assert published["training"]["target_momentum"] == [0.99925, 0.99925]
    assert load_recipe("vjepa2_pretrain:cooldown")["data"]["num_frames"] == 64
