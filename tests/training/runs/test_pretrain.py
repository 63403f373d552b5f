"""Pretraining from a folder: a run in miniature, its figures and summary, resuming, and what is refused.

That it learns is in test_pretrain_learning.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

import hf_video
from hf_video.data import load_videos
from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.errors import ConfigError, DataError
from hf_video.training.masked_pretraining import Reconstruction
from hf_video.training.pretrain_figures import loss_curve, reconstruction_sheet
from hf_video.training.recipes import load_recipe
from hf_video.training.runs.masked_pretraining import FixedClipDataset, fit_stride
from hf_video.training.runs.pretraining import RECIPES, pretrain, pretraining_recipe, read_unlabelled_splits

FAST = (
    "training.use_cpu=true",
    "training.dataloader_num_workers=0",
    "training.report_to=none",
    "training.min_train_steps=0",
    "training.per_device_train_batch_size=8",
)


def tiny_config(folder: Path, **changes) -> Path:
    """A VideoMAE for 8 frames of 32x32 in patches of 8, 64 wide."""
    settings = {
        "model_type": "videomae", "image_size": 32, "patch_size": 8, "num_frames": 8, "hidden_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "decoder_hidden_size": 32,
        "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1, "decoder_intermediate_size": 64,
        "layer_norm_eps": 1e-6,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.json").write_text(json.dumps({**settings, **changes}))
    return folder / "tiny.json"


@pytest.fixture(scope="module", autouse=True)
def quick_figures():
    """They are drawn here."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Unlabelled: 24 glyphs in one folder, and a text file that says it is a video."""
    root = tmp_path_factory.mktemp("clips")
    write_moving_glyphs(root / "labelled", 24, size=32, speed=4)
    for number, path in enumerate(sorted((root / "labelled").rglob("*.mp4"))):
        path.rename(root / f"{number:03d}.mp4")
    for empty in sorted((root / "labelled").glob("*")):
        empty.rmdir()
    (root / "labelled").rmdir()
    (root / "text.mp4").write_text("no video")
    return root


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    root = tmp_path_factory.mktemp("labelled")
    write_moving_glyphs(root / "train", 24, seed=1, size=32, speed=4)
    write_moving_glyphs(root / "test", 8, seed=2, size=32, speed=4)
    return root


def start(clips, output, *settings, epochs=2, **options):
    config = tiny_config(output.parent)
    return pretrain(
        clips, config, output=output, settings=[*FAST, f"training.num_train_epochs={epochs}", *settings], **options
    )


class TestRun:
    @pytest.fixture(scope="class")
    def run(self, clips, labelled, tmp_path_factory):
        output = tmp_path_factory.mktemp("run") / "encoder"
        return output, start(clips, output, "training.eval_steps=0.5", held_out=0.25, probe=labelled, probe_every=1)

    def test_the_summary_tells_what_happened(self, run):
        output, summary = run
        written = json.loads((output / "training_summary.json").read_text())
        assert written["task"] == "masked pretraining"
        assert written["data"]["splits"]["train"]["videos"] == 18
        assert [one["name"] for one in written["data"]["skipped"]] == ["text.mp4"]
        assert written["steps"] == summary["steps"] == 6
        assert written["from_scratch"] is True
        assert set(written["probe_top1"]) == {"0", "1", "2"}

    def test_held_out_errors_are_of_one_measure(self, run):
        held_out = run[1]["held_out"]
        assert held_out["clips"] == 6 * 8
        assert 0.9 < held_out["mean_of_patch"] <= 1 < held_out["copy_of_nearest"]
        trivial = min(held_out["mean_of_patch"], held_out["copy_of_nearest"])
        assert held_out["explained"] == pytest.approx(1 - held_out["masked_loss"] / trivial)
        assert held_out["beats_trivial"] == (held_out["masked_loss"] < trivial)

    def test_the_model_loads_and_fine_tunes_on(self, run):
        output, _ = run
        whole = transformers.AutoModelForPreTraining.from_pretrained(output)
        assert not whole.config.use_mean_pooling
        classifier = transformers.AutoModelForVideoClassification.from_pretrained(output, use_mean_pooling=True)
        name = "videomae.encoder.layer.1.output.dense.weight"
        assert torch.equal(whole.get_parameter(name), classifier.get_parameter(name))
        processor = transformers.AutoImageProcessor.from_pretrained(output)
        assert (processor.num_frames, processor.sampler, processor.sampler_options) == (8, "center", {"stride": 1})

    def test_figures_are_drawn(self, run):
        names = sorted(path.name for path in (run[0] / "figures").iterdir())
        assert names == ["loss_curve.png", *(f"reconstruction-{n:06d}.png" for n in (3, 6)), "reconstruction.png"]
        picture = np.asarray(Image.open(run[0] / "figures" / "reconstruction.png"))[::8, ::8]
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100

    def test_the_logs_hold_what_it_has_to_beat(self, run):
        history = json.loads((run[0] / "checkpoint-6" / "trainer_state.json").read_text())["log_history"]
        evaluations = [row for row in history if "eval_masked_loss" in row]
        assert len(evaluations) == 2
        assert len({row["eval_mean_of_patch"] for row in evaluations}) == 1  # the same masks every time
        assert evaluations[1]["eval_masked_loss"] < evaluations[0]["eval_masked_loss"]
        assert all(row["eval_loss"] == pytest.approx(row["eval_masked_loss"], rel=1e-3) for row in evaluations)


@pytest.mark.usefixtures("white_figures")
def test_killed_and_resumed_is_the_same(clips, tmp_path, monkeypatch):
    """The weights of a run that dies after its first checkpoint and goes on, and of one that doesn't."""
    steps = ("training.save_steps=2", "training.eval_steps=100")
    start(clips, tmp_path / "whole", *steps, held_out=0.25)
    from hf_video.training.masked_trainer import MaskedTrainer

    save = MaskedTrainer._save_checkpoint

    class KilledError(Exception):
        pass

    def die(self, *args, **kwargs):
        save(self, *args, **kwargs)
        raise KilledError

    monkeypatch.setattr(MaskedTrainer, "_save_checkpoint", die)
    with pytest.raises(KilledError):
        start(clips, tmp_path / "cut", *steps, held_out=0.25)
    monkeypatch.undo()
    start(clips, tmp_path / "cut", *steps, held_out=0.25, resume=True)
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert max((whole[name] - cut[name]).abs().max().item() for name in whole) <= 1e-6


@pytest.mark.usefixtures("white_figures")
def test_probing_on_the_way_changes_no_weight(clips, labelled, tmp_path):
    start(clips, tmp_path / "a", "model.hidden_dropout_prob=0.1", held_out=0)
    start(clips, tmp_path / "b", "model.hidden_dropout_prob=0.1", held_out=0, probe=labelled, probe_every=1)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


class TestRefusals:
    def test_a_classifiers_recipe(self, clips, tmp_path):
        with pytest.raises(
            ConfigError,
            match=r"classification, and this is pretraining.* videomae_pretrain, ",
        ):
            pretrain(clips, tiny_config(tmp_path), recipe="small_data", output=tmp_path / "out")

    def test_one_video(self, tmp_path):
        write_moving_glyphs(tmp_path / "one", 1, size=32)
        with pytest.raises(DataError, match="held_out=0"):
            read_unlabelled_splits(tmp_path / "one", 0.1)
        assert set(read_unlabelled_splits(tmp_path / "one", 0)) == {"train"}

    def test_no_videos(self, tmp_path):
        (tmp_path / "notes.txt").write_text("nothing")
        with pytest.raises(DataError):
            read_unlabelled_splits(tmp_path, 0.1)

    def test_a_model_without_pretraining(self, clips, tmp_path):
        with pytest.raises(ConfigError, match="timesformer has no masked pretraining"):
            pretrain(clips, "timesformer", output=tmp_path / "out")

    def test_a_folder_that_holds_a_run(self, clips, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "run.json").write_text("{}")
        with pytest.raises(ConfigError, match="--resume"):
            pretrain(clips, tiny_config(tmp_path), output=tmp_path / "out")


def test_labels_are_left_behind(labelled):
    splits = read_unlabelled_splits(labelled, 0.1)
    assert (len(splits["train"]), len(splits["test"])) == (24, 8)  # its own splits
    assert not splits["train"].labels
    assert all(row.label is None for row in splits["train"])


def test_evaluations_see_the_same_clips(tmp_path):
    """Also with workers that live on, whose loader counts evaluations as epochs."""
    write_moving_glyphs(tmp_path, 4, size=32, num_frames=24)
    rows, processor = load_videos(tmp_path)["train"], hf_video.VideoMAEImageProcessor(num_frames=4)
    held_out = FixedClipDataset(rows, processor, sampler="dense", views=2, seed=0)
    before = held_out[1]
    held_out.set_epoch(1)
    assert torch.equal(before["pixel_values"], held_out[1]["pixel_values"])
    assert before["seed"] == held_out[1]["seed"]


@pytest.mark.parametrize(("videos", "recipe"), [(99, "videomae_pretrain_small:few_videos"), (100, RECIPES["videomae"])])
def test_few_videos_have_a_recipe_of_their_own(videos, recipe):
    assert pretraining_recipe(videos) == recipe
    assert load_recipe(recipe)["masking"]["mask_ratio"] == (0.5 if videos < 100 else 0.75)


def test_the_stride_fits_the_videos(labelled):
    rows = load_videos(labelled)["train"]  # 8 frames each
    assert [fit_stride(rows, frames, 4) for frames in (8, 4, 2)] == [1, 2, 4]
    assert fit_stride(rows, 16, 4) == 1


class TestFigures:
    def test_a_sheet_has_four_rows_for_each_clip(self):
        frames = torch.rand(2, 16, 3, 32, 32)
        rows = (frames, torch.full_like(frames, 0.5), torch.full_like(frames, 0.25), 1 - frames)
        shown = Reconstruction(*rows, mask=torch.ones(2, 4, dtype=torch.bool))
        sheet = np.asarray(reconstruction_sheet(shown, [("one", "1"), ("two", "2")], title="title", note="note"))
        first = (frames[0, 0].permute(1, 2, 0) * 255).round().byte().numpy()
        scale = round(112 / 32)
        cell = first.repeat(scale, 0).repeat(scale, 1)
        side, left = len(cell), 106
        found = [y for y in range(120) if np.array_equal(sheet[y : y + side, left : left + side], cell)]
        assert len(found) == 1
        below = [sheet[found[0] + row * (side + 3) :][:side, left : left + side].astype(int) for row in (1, 2, 3)]
        assert (below[0] == 128).all()
        assert (below[1] == 64).all()
        assert np.abs(below[2] - (255 - cell.astype(int))).max() <= 1

    def test_long_notes_are_wrapped(self):
        frames = torch.rand(1, 2, 3, 32, 32)
        shown = Reconstruction(*[frames] * 4, mask=torch.ones(1, 4, dtype=torch.bool))
        sheets = [reconstruction_sheet(shown, [("one", "1")], note="words " * n) for n in (10, 100)]
        assert sheets[0].width == sheets[1].width
        assert sheets[0].height < sheets[1].height

    @pytest.mark.parametrize("probed", [True, False])
    def test_a_curve_with_and_without_a_probe(self, tmp_path, probed):
        pytest.importorskip("matplotlib")
        history = [{"epoch": e, "loss": 1 / (e + 1)} for e in range(5)]
        history.append({"epoch": 4, "eval_masked_loss": 0.4, "eval_mean_of_patch": 0.9, "eval_copy_of_nearest": 5.0})
        history += [{"epoch": e, "probe_top1": e / 5} for e in range(5)] if probed else []
        assert loss_curve(history, tmp_path / "new" / "curve.png")
        assert Image.open(tmp_path / "new" / "curve.png").height > (600 if probed else 400)
