"""`hf-video preview`: the sheet shows what is on, says how often, and refuses what can't be."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from hf_video.cli import main
from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.video.augment import preview as augment_preview
from hf_video.video.augment.augmentation import Augmentation
from hf_video.video.augment.mixing import Mixing
from hf_video.video.augment.preview import PreviewClip, preview_sheet
from hf_video.video.augment.temporal import TemporalAugmentation
from hf_video.video.contact_sheet import contact_sheet


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glyphs")
    write_moving_glyphs(folder, 8, num_frames=12)
    return folder


@pytest.fixture
def cells(monkeypatch):
    """The cells of the sheets that were drawn since."""
    drawn = []

    def keep(clips, **options):
        drawn.extend(clips)
        return contact_sheet(clips, **options)

    monkeypatch.setattr(augment_preview, "contact_sheet", keep)
    return drawn


def captions(cells):
    return [cell.caption.partition(" m")[0] for cell in cells]


EVERYTHING = [
    "Original", "RandAugment", "RandAugment", "Crop: random_resized", "Flip", "Colour jitter", "Grey",
    "Random erasing", "Speed", "Temporal jitter", "Reverse", "Mixup", "Cutmix",
]  # fmt: skip


def test_everything_there_is(glyphs, tmp_path, cells, capsys):
    path = tmp_path / "sheet.png"
    assert main(["preview", str(glyphs), "--output", str(path), "--size", "48"]) == 0
    assert captions(cells) == EVERYTHING + ["All together"] * 4
    picture = np.asarray(Image.open(path))
    assert f"{picture.shape[1]}x{picture.shape[0]} pixels" in capsys.readouterr().out
    notes = {cell.caption: cell.note for cell in cells}
    assert notes["Original"].endswith("64x64; the crop is outlined")
    assert "labels exchange: left and right" in notes["Flip"]
    assert "in 25% of clips" in notes["Random erasing"]
    frames = [int(number) for number in re.findall(r"\d+", notes["Reverse"].partition(";")[0])]
    assert frames == sorted(frames, reverse=True)
    assert re.fullmatch(r"0\.\d+ of \w+ \+ 0\.\d+ of \w+; share from Beta\(0\.8, 0\.8\)", notes["Mixup"])


def test_a_recipe_shows_what_it_has_on(glyphs, tmp_path, cells):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "data: {num_frames: 8, sampler: uniform, resize: 40}\n"
        "model: {image_size: 32}\n"
        "augmentation: {crop: random, short_side: [32, 40], flip: 0.5, rand_augment: null, erase_prob: 0}\n"
        "mixing: {cutmix: 0}\n"
    )
    sheet = str(tmp_path / "sheet.png")
    assert main(["preview", str(glyphs), "--recipe", str(recipe), "--output", sheet, "--clips", "2"]) == 0
    assert captions(cells) == ["Original", "Crop: random", "Flip: refused", "Mixup", "All together", "All together"]
    refused = cells[2]
    assert "'left', 'right'" in refused.note
    assert refused.tone == "bad"
    assert cells[0].frames.shape == (8, 40, 40, 3)
    assert cells[1].frames.shape == (8, 32, 32, 3)


def test_settings_change_the_recipe(glyphs, tmp_path, cells):
    changes = ["--augmentation", "rand_augment=null", "flip=0", "color_jitter=null", "gray_prob=0", "erase_prob=0"]
    others = ["--mixing", "null", "--temporal", "speed=null", "jitter=0.5", "reverse=0", "--size", "48"]
    file = next(glyphs.rglob("*.mp4"))
    assert main(["preview", str(file), "--output", str(tmp_path / "sheet.jpg"), *changes, *others]) == 0
    assert captions(cells) == ["Original", "Crop: random_resized", "Temporal jitter", "All together"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--augmentation", "flap=1"], "flip"),
        (["--augmentation", "flip"], "NAME=VALUE"),
        (["--augmentation", "flip=2"], "flip=2"),
        (["--mixing", "mode=clip"], "mode='clip'"),
        (["--temporal", "speed=3"], "speed=3"),
        (["--recipe", "no_such_recipe"], "no_such_recipe"),
        (["--clips", "0"], "argument --clips"),
    ],
)
def test_wrong_settings_are_named(glyphs, tmp_path, capsys, arguments, message):
    assert main(["preview", str(glyphs), "--output", str(tmp_path / "sheet.png"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sheet.png").exists()


def test_files_that_can_not_be_read_are_named(glyphs, tmp_path, cells, capsys):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"no video")
    (folder / "b.mp4").write_bytes(next(glyphs.rglob("*.mp4")).read_bytes())
    assert main(["preview", str(folder), "--output", str(tmp_path / "sheet.png"), "--size", "48"]) == 1
    assert "a.mp4" in capsys.readouterr().err
    assert captions(cells) == [*EVERYTHING, "All together"]
    (folder / "b.mp4").unlink()
    assert main(["preview", str(folder), "--output", str(tmp_path / "none.png")]) == 2
    assert "none of the videos" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["sheet.txt", "no/such/folder/sheet.png"])
def test_where_no_sheet_can_go(glyphs, tmp_path, capsys, output):
    assert main(["preview", str(glyphs), "--output", str(tmp_path / output)]) == 2
    assert "--output" in capsys.readouterr().err


def test_the_frames_of_a_step_are_what_the_step_does():
    frames = torch.randint(0, 256, (8, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    clip = PreviewClip(frames, np.arange(8), 8, lambda indices: frames[torch.from_numpy(indices)], "clip", "a")
    steps = augment_preview._Steps(clip, Augmentation(40, crop="center", flip=1.0), seed=1)
    assert (steps.flip([])[0].frames == frames.flip(2).numpy()).all()
    (erased,) = steps.erasing()
    away = np.abs(erased.frames.astype(int) - frames.numpy())
    assert (away.max((0, 3)) <= 1).any()  # elsewhere only the rounding of normalising
    assert away.max() > 50
    (reverse,) = steps.temporal(TemporalAugmentation(reverse=0.1))
    assert (reverse.frames == frames.flip(0).numpy()).all()
    (mixup,) = augment_preview._mixes(steps, clip, Mixing(cutmix=0))
    assert np.abs(mixup.frames.astype(int) - frames.numpy()).max() <= 1  # with itself


def test_the_sheet_is_the_same_for_a_seed():
    frames = torch.randint(0, 256, (8, 40, 40, 3), dtype=torch.uint8)
    clip = PreviewClip(frames, np.arange(8), 8, lambda indices: frames[torch.from_numpy(indices)], "clip")
    sheets = [np.asarray(preview_sheet([clip], augmentation=Augmentation(24), seed=s)) for s in (1, 1, 2)]
    assert (sheets[0] == sheets[1]).all()
    assert sheets[0].shape != sheets[2].shape or (sheets[0] != sheets[2]).any()


def test_a_damaged_first_file_does_not_cost_its_class(tmp_path, cells, capsys):
    write_moving_glyphs(tmp_path / "videos", 12, num_frames=8)
    classes = sorted(folder for folder in (tmp_path / "videos").iterdir())
    for folder in classes[:2]:
        min(folder.iterdir()).write_bytes(b"")
    sheet = str(tmp_path / "sheet.png")
    assert main(["preview", str(tmp_path / "videos"), "--output", sheet, "--size", "32", "--mixing", "null"]) == 1
    together = [cell.note for cell in cells if cell.caption == "All together"]
    assert sorted(together) == [folder.name for folder in classes]
    assert capsys.readouterr().err.count("is empty") == 2
