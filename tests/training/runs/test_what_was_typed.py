"""What somebody typed wins over recipes and defaults; what these change is said, and the run file records what ran."""

from __future__ import annotations

import json

import pytest

from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.errors import ConfigError
from hf_video.training.arguments import fit_batch, make_arguments
from hf_video.training.recipes import load_recipe, override_recipe
from hf_video.training.runs.classification import finetune
from hf_video.training.runs.pretraining import pretrain

TINY = {
    "model_type": "videomae", "image_size": 16, "patch_size": 8, "num_frames": 2, "hidden_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16, "decoder_hidden_size": 8,
    "decoder_num_attention_heads": 1, "decoder_num_hidden_layers": 1, "decoder_intermediate_size": 16,
}  # fmt: skip
PLAIN = ("training.dataloader_num_workers=0", "training.report_to=none", "training.use_cpu=true")


def arguments(name: str, *settings: str, folder="out", rows: int = 10**6):
    recipe = fit_batch(override_recipe(load_recipe(name), settings), rows, settings)
    return make_arguments(folder, {**recipe["training"], "use_cpu": True, "report_to": "none"}), recipe


@pytest.mark.parametrize(
    ("recipe", "settings", "expected"),
    [
        ("videomae_finetune_kinetics:S", ["training.learning_rate=1e-5"], {"learning_rate": 1e-5}),
        ("videomae_finetune_kinetics:S", ["training.warmup_steps=7"], {"warmup_steps": 7, "warmup_epochs": None}),
        ("tiny", ["training.warmup_epochs=1"], {"warmup_epochs": 1, "warmup_steps": 0}),
        ("vivit:B", ["training.warmup_steps=0"], {"warmup_steps": 0, "warmup_epochs": None}),
        (
            "videomae_finetune_kinetics:S",
            ["training.per_device_train_batch_size=2", "training.gradient_accumulation_steps=3"],
            {"rows_per_step": 6, "gradient_accumulation_steps": 3},
        ),
        ("tiny", ["training.effective_batch_size=12"], {"rows_per_step": 12, "per_device_train_batch_size": 12}),
        ("small_data", ["training.effective_batch_size=36"], {"rows_per_step": 36, "per_device_train_batch_size": 6}),
        ("tiny", ["training.lr_scheduler_type=linear"], {"schedule": None, "lr_scheduler_type": "linear"}),
        ("mvit", ["training.lr_scheduler_type=constant"], {"schedule": None, "warmup_epochs": None}),
        ("mvit", ["training.schedule=null"], {"schedule": None, "min_learning_rate": 0.0}),
        ("i3d", ["training.num_train_epochs=2"], {"num_train_epochs": 2, "max_steps": -1}),
        ("i3d", ["training.milestone_epochs=[1]"], {"milestone_epochs": [1], "milestone_steps": None}),
        ("i3d", ["training.schedule=cosine"], {"schedule": "cosine", "milestone_steps": None}),
        ("tiny", ["training.num_train_epochs=3"], {"num_train_epochs": 3, "min_train_steps": 0}),
        ("tiny", ["training.num_train_epochs=3", "training.min_train_steps=9"], {"min_train_steps": 9}),
        ("tiny", ["training.eval_steps=5"], {"eval_steps": 5}),
    ],
)
def test_a_setting_is_what_is_used(recipe, settings, expected, tmp_path):
    made, _ = arguments(recipe, *settings, folder=tmp_path)
    assert {name: getattr(made, name) for name in expected} == expected


def test_what_gives_way_is_said():
    recipe = override_recipe(load_recipe("videomae_finetune_kinetics:S"), ["training.learning_rate=1e-5"])
    assert recipe["remarks"] == ["learning_rate=1e-05 was given: the recipe's base_learning_rate=0.0005 does not count"]
    assert override_recipe(load_recipe("tiny"), ["augmentation.flip=0.5"])["remarks"] == []


def test_a_smaller_batch_is_said(tmp_path):
    made, recipe = arguments("tiny", folder=tmp_path, rows=11)
    assert made.rows_per_step == 8
    assert recipe["remarks"] == ["8 videos at a time, not 32: there are 11 to train on"]


@pytest.mark.parametrize(
    "settings",
    [
        ["training.learning_rate=1", "training.base_learning_rate=1"],
        ["training.effective_batch_size=8", "training.gradient_accumulation_steps=2"],
        ["model.num_frames=4", "data.num_frames=8"],
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings):
    with pytest.raises(ConfigError):
        override_recipe(load_recipe("small_data"), settings)


def test_frames_typed_for_the_model_are_the_clips():
    recipe = override_recipe(load_recipe("videomae_finetune_kinetics:S"), ["model.num_frames=8"])
    assert recipe["data"]["num_frames"] == 8


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_moving_glyphs(folder, 8, num_frames=4, size=16)
    (folder / "tiny.json").write_text(json.dumps(TINY))
    return folder


@pytest.mark.parametrize("train", [finetune, pretrain])
def test_epochs_that_were_typed_are_trained(train, clips, tmp_path, capsys):
    """Eight clips, of which two are kept: three epochs are three passes, not the 300 and more of the recipe."""
    settings = (*PLAIN, "training.num_train_epochs=3")
    summary = train(clips, clips / "tiny.json", output=tmp_path / "run", settings=settings)
    ran = json.loads((tmp_path / "run" / "run.json").read_text())["ran"]
    assert summary["steps"] == ran["steps"]
    assert (summary["epochs"], ran["num_train_epochs"]) == (3, 3)
    rows = summary["data"]["splits"]["train"]["videos"]
    assert ran["steps"] == 3 * -(-rows // ran["rows_per_step"])
    told = capsys.readouterr().out
    assert "num_train_epochs=3 was given: the recipe's min_train_steps=" in told


def test_what_the_recipe_changes_is_in_the_plan_and_in_the_run_file(clips, tmp_path, capsys):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "augmentation: {flip: 0}\ntraining: {num_train_epochs: 1, min_train_steps: 6, per_device_train_batch_size: 4}\n"
    )
    finetune(clips, clips / "tiny.json", recipe=recipe, output=tmp_path / "run", settings=PLAIN)
    told = capsys.readouterr().out
    ran = json.loads((tmp_path / "run" / "run.json").read_text())["ran"]
    assert ran["steps"] >= 6
    assert ran["num_train_epochs"] * (ran["steps"] // ran["num_train_epochs"]) == ran["steps"]
    assert "for 1 epochs are fewer than the recipe's min_train_steps=6" in told


def test_a_stride_that_was_typed_stays(clips, tmp_path, capsys):
    stride = "data.sampler_options={stride: 3}"
    pretrain(clips, clips / "tiny.json", output=tmp_path / "run", settings=(*PLAIN, "training.max_steps=1", stride))
    assert json.loads((tmp_path / "run" / "preprocessor_config.json").read_text())["sampler_options"] == {"stride": 3}
    assert "frames are taken at stride" not in capsys.readouterr().out
