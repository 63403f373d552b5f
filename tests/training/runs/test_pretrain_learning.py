"""Pretraining learns, as `hf-video pretrain` ships it: what was hidden is told better than by predictors that know
nothing, and a linear probe finds more in the features than in random ones.

A miniature on a picture that never changes, of the model alone; with `-m slow` the command on such clips, on moving
glyphs, and on real clips where there are some.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import hf_video
from hf_video.cli import main
from hf_video.data.moving_glyphs import DIRECTIONS, write_moving_glyphs
from hf_video.models.videomae.masking import tube_mask
from hf_video.training.masked_pretraining import masked_errors, summarise_errors
from hf_video.video.writer import write_video

REAL = Path(__file__).resolve().parents[4] / "shared" / "videos"


def write_config(folder: Path, **fields) -> str:
    """A tiny VideoMAE with 4 heads; its decoder is `decoder` wide."""
    width, wide = fields["hidden_size"], fields.pop("decoder")
    sizes = {"model_type": "videomae", "num_attention_heads": 4, "intermediate_size": 4 * width}
    sizes |= {"decoder_hidden_size": wide, "decoder_num_attention_heads": 4, "decoder_intermediate_size": 4 * wide}
    sizes |= {"decoder_num_hidden_layers": 2, "layer_norm_eps": 1e-6}
    (folder / "tiny.json").write_text(json.dumps({**sizes, **fields}))
    return str(folder / "tiny.json")


def pretrained(folder: Path, clips: Path, *options: str) -> dict:
    """The summary of the command's run, from `folder / "tiny.json"` into `folder / "encoder"`."""
    where = ("--model", str(folder / "tiny.json"), "--output", str(folder / "encoder"))
    assert main(["pretrain", str(clips), *where, *options]) == 0
    return json.loads((folder / "encoder" / "training_summary.json").read_text())


def trivial(summary: dict) -> float:
    """The loss of the better of the predictors that know nothing."""
    return min(summary["held_out"]["mean_of_patch"], summary["held_out"]["copy_of_nearest"])


def test_a_scene_that_never_changes_is_learnt():
    """The clips of the next test, without files: held-out ones are told half as wrong as knowing nothing tells them."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 8, "num_frames": 4, "hidden_size": 32, "num_hidden_layers": 2}
    decoder = {f"decoder_{name}": size for name, size in (("hidden_size", 32), ("num_hidden_layers", 2))}
    heads = {"num_attention_heads": 4, "decoder_num_attention_heads": 4}
    wide = {"intermediate_size": 128, "decoder_intermediate_size": 128}
    config = hf_video.VideoMAEConfig(**sizes, **decoder, **heads, **wide, use_mean_pooling=False)
    model = hf_video.VideoMAEForPreTraining(config)
    scene = 2 * torch.rand(16, 16, generator=generator).repeat_interleave(2, 0).repeat_interleave(2, 1) - 1
    light = 0.5 * torch.rand(24, 1, 1, 1, 1, generator=generator)
    clips = (scene + light).expand(24, 4, 3, 32, 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(100):
        rows = torch.randperm(18, generator=generator)[:8]
        model(clips[rows], tube_mask(8, (2, 4, 4), 0.75, generator=generator)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(), optimizer.zero_grad()
    errors = masked_errors(model.eval(), clips[18:], tube_mask(6, (2, 4, 4), 0.75, generator=generator))
    assert summarise_errors(errors)["explained"] > 0.5


@pytest.mark.slow
def test_what_a_fixed_camera_always_sees_is_filled_in(tmp_path, capsys):
    """One scene of coarse random brightness, darker or lighter from clip to clip: where a patch lies tells all."""
    rng = np.random.default_rng(0)
    scene = rng.uniform(60, 200, (16, 16, 3)).repeat(2, axis=0).repeat(2, axis=1)
    (tmp_path / "clips").mkdir()
    for number in range(24):
        frames = np.broadcast_to(scene + rng.uniform(-40, 40), (4, *scene.shape)).astype(np.uint8)
        write_video(tmp_path / "clips" / f"{number:02d}.mp4", frames, 8.0)
    write_config(tmp_path, image_size=32, patch_size=8, num_frames=4, hidden_size=32, num_hidden_layers=2, decoder=32)
    quick = ("use_cpu=true", "dataloader_num_workers=0", "report_to=none", "per_device_train_batch_size=8")
    quick += ("max_steps=100", "eval_steps=0.5")
    options = [part for setting in quick for part in ("--set", f"training.{setting}")]
    summary = pretrained(tmp_path, tmp_path / "clips", "--recipe", "videomae_pretrain_small", *options)
    assert summary["held_out"]["videos"] == 6
    assert summary["held_out"]["masked_loss"] < 0.8 * trivial(summary)
    told = capsys.readouterr().out
    assert "of 6 held-out videos" in told
    assert "It beats both" in told
    assert "the mean of each patch" in (tmp_path / "encoder" / "README.md").read_text()


@pytest.mark.slow
def test_glyphs_and_a_probe(tmp_path, capsys):
    """1000 clips without labels, then 400 with labels for the probe and 200 to test it."""
    for number, path in enumerate(write_moving_glyphs(tmp_path / "clips", 1000)):
        path.rename(tmp_path / "clips" / f"{number:04d}.mp4")
    for name in DIRECTIONS:
        (tmp_path / "clips" / name).rmdir()
    write_moving_glyphs(tmp_path / "labelled" / "train", 400, seed=1)
    write_moving_glyphs(tmp_path / "labelled" / "test", 200, seed=2)
    write_config(tmp_path, image_size=64, patch_size=16, num_frames=8, hidden_size=64, num_hidden_layers=4, decoder=48)
    summary = pretrained(tmp_path, tmp_path / "clips")
    assert summary["recipe"] == "videomae_pretrain_small:default"
    assert summary["held_out"]["masked_loss"] < trivial(summary)
    capsys.readouterr()
    assert main(["probe", str(tmp_path / "labelled"), "--model", str(tmp_path / "encoder"), "--random", "--json"]) == 0
    probe = json.loads(capsys.readouterr().out)
    assert probe["test_top1"] >= probe["random_top1"] + 0.2


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not beside this checkout")
def test_real_clips(tmp_path):
    """A dozen videos of all kinds, three of which are held out."""
    write_config(tmp_path, image_size=32, patch_size=4, num_frames=4, hidden_size=64, num_hidden_layers=3, decoder=96)
    summary = pretrained(tmp_path, REAL)
    assert summary["recipe"] == "videomae_pretrain_small:few_videos"
    assert summary["held_out"]["videos"] >= 3
    assert summary["held_out"]["masked_loss"] < trivial(summary)
