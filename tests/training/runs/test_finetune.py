"""`hf-video train` on small folders: what it makes, says, skips and refuses."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForVideoClassification, TrainerCallback, pipeline

import hf_video
from hf_video.cli import main
from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.errors import CheckpointError, ConfigError, DataError, VideoOptionError
from hf_video.training.arguments import make_arguments
from hf_video.training.run_folder import checkpoints, open_output
from hf_video.training.runs.classification import default_recipe, finetune
from hf_video.training.runs.model_loading import find_source, load_model
from hf_video.training.runs.summary import format_summary
from hf_video.training.trainer import VideoTrainer

TINY = {
    "model_type": "videomae",
    "image_size": 32,
    "patch_size": 16,
    "num_frames": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
MOST_FILES = 71
FAST = (
    "training.min_train_steps=0", "training.num_train_epochs=3", "training.per_device_train_batch_size=8",
    "training.dataloader_num_workers=0", "training.report_to=none", "training.use_cpu=true",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def quick_figures():
    """They are drawn here."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """24 clips of four classes, and four files that a folder of videos has sooner or later."""
    folder = tmp_path_factory.mktemp("videos")
    write_moving_glyphs(folder, 24, size=32, speed=4)
    good = (folder / "left" / "00000.mp4").read_bytes()
    (folder / "left" / "damaged.mp4").write_bytes(good[: len(good) // 3])
    (folder / "left" / "empty.mp4").write_bytes(b"")
    (folder / "right" / "words.mp4").write_text("no video at all\n" * 99)
    write_moving_glyphs(folder / "short", 1, num_frames=2, size=32)
    shutil.move(folder / "short" / "left" / "00000.mp4", folder / "left" / "two_frames.mp4")
    shutil.rmtree(folder / "short")
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    path.write_text(json.dumps(TINY))
    return path


CALLED = set()  # code objects of the functions that `trained` called


@pytest.fixture(scope="module")
def trained(clips, config, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "model"
    sys.setprofile(lambda frame, event, argument: CALLED.add(frame.f_code) if event == "call" else None)
    try:
        summary = finetune(clips, config, output=output, settings=FAST)
    finally:
        sys.setprofile(None)
    return output, summary


class TestRun:
    def test_the_four_files_are_named(self, trained):
        output, summary = trained
        named = {entry["name"].rpartition("/")[2]: entry for entry in summary["data"]["skipped"]}
        assert {"damaged.mp4", "empty.mp4", "words.mp4", "two_frames.mp4"} == set(named)
        assert named["empty.mp4"]["kind"] == "empty"
        assert named["words.mp4"]["kind"] == "not a video"
        assert named["two_frames.mp4"]["used"]
        assert json.loads((output / "training_summary.json").read_text()) == summary

    def test_the_way_through_the_package_is_short(self, trained):
        """Files whose functions one call runs; the bodies of modules and classes, which importing runs, don't count."""
        root = Path(hf_video.__file__).parent
        called = {Path(code.co_filename) for code in CALLED if code.co_flags & inspect.CO_OPTIMIZED}
        files = sorted(str(path.relative_to(root)) for path in called if path.is_relative_to(root))
        assert len(files) <= MOST_FILES, "\n".join(files)
        training = [name for name in files if name.startswith("training/")]
        assert len(training) <= 13, training

    def test_summary(self, trained):
        output, summary = trained
        assert summary["from_scratch"] is True
        assert summary["steps"] == 9
        assert summary["recipe"] == "tiny"
        assert summary["hyper_parameters"]["effective_batch_size"] == 8
        assert "left/two_frames.mp4: short (used)" in format_summary(summary, output)
        assert summary["plan"]["seconds_seen"] == pytest.approx(0.9, abs=0.25)
        assert json.loads((output / "config.json").read_text())["clip_seconds"] == summary["plan"]["seconds_seen"]
        assert sum(split["videos"] for split in summary["data"]["splits"].values()) == 25  # with the two frames
        assert summary["clips_per_second"] > 0
        assert 0 < summary["train_loss"] < 3
        assert summary["evaluation"]["test"]["found"] >= 4

    def test_what_lies_in_the_folder(self, trained):
        output, _ = trained
        names = {path.name for path in output.iterdir()}
        assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "evaluation"} <= names
        assert not list(output.glob("*.bin"))
        assert (output / "evaluation" / "test" / "report.json").exists()

    def test_pipelines_load_it(self, trained, clips):
        output, _ = trained
        classify = pipeline(
            "video-classification",
            model=AutoModelForVideoClassification.from_pretrained(output),
            image_processor=AutoImageProcessor.from_pretrained(output),
        )
        answer = classify(str(clips / "up" / "00002.mp4"), top_k=4)
        assert {one["label"] for one in answer} == {"left", "right", "up", "down"}

    def test_a_run_is_not_overwritten_by_accident(self, trained, clips, config):
        output, _ = trained
        with pytest.raises(ConfigError, match="--resume"):
            finetune(clips, config, output=output, settings=FAST)

    def test_resuming_with_other_settings_is_refused(self, trained, clips, config):
        output, _ = trained
        with pytest.raises(ConfigError, match="learning_rate"):
            finetune(clips, config, output=output, settings=(*FAST, "training.learning_rate=1e-5"), resume=True)

    def test_resuming_a_finished_run_changes_nothing(self, trained, clips, config):
        output, _ = trained
        before = load_file(output / "model.safetensors")
        finetune(clips, config, output=output, settings=FAST, resume=True)
        after = load_file(output / "model.safetensors")
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_from_its_own_checkpoint(self, trained, clips, tmp_path):
        """Another recipe, the head kept: the classes are the same."""
        output, _ = trained
        settings = (*FAST, "training.max_steps=2")
        summary = finetune(clips, output, output=tmp_path / "again", recipe="small_data", settings=settings)
        assert summary["from_scratch"] is False


def test_the_recipe_where_none_is_named(tmp_path):
    assert default_recipe(find_source("videomae:base")) == "tiny"  # random weights
    for width, name in ((192, "tiny"), (384, "small_data")):
        (tmp_path / "config.json").write_text(json.dumps({**TINY, "hidden_size": width}))
        (tmp_path / "model.safetensors").touch()
        assert default_recipe(find_source(tmp_path)) == name


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("white_figures")
def test_broken_off_and_resumed(clips, config, tmp_path, monkeypatch):
    """Files, augmentation, mixing, drop path and averaging: the same weights as in one go."""
    settings = (
        *FAST, "mixing.mixup=0.8", "model.drop_path_rate=0.2", "training.ema_decay=0.9", "training.save_steps=2",
        "training.dataloader_num_workers=1", "data.repeats=2",
    )  # fmt: skip
    finetune(clips, config, output=tmp_path / "whole", settings=settings)
    make = VideoTrainer.__init__
    with monkeypatch.context() as patched:
        patched.setattr(VideoTrainer, "__init__", lambda self, *a, **k: make(self, *a, **{**k, "callbacks": [Stop()]}))
        with pytest.raises(KeyboardInterrupt):
            finetune(clips, config, output=tmp_path / "broken", settings=settings)
    (tmp_path / "broken" / "checkpoint-5").mkdir()  # what a process that is killed while it writes leaves
    finetune(clips, config, output=tmp_path / "broken", settings=settings, resume=True)
    whole, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    for name, value in whole.items():
        torch.testing.assert_close(broken[name], value, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("white_figures")
def test_few_videos_get_a_smaller_batch(clips, config, tmp_path):
    """The default recipe takes 32 at a time; seven videos to train on are no reason to refuse."""
    for label in ("up", "down"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for path in sorted((clips / label).glob("*.mp4"))[:4]:
            shutil.copy(path, tmp_path / "data" / label)
    fast = [setting for setting in FAST if "batch" not in setting]
    summary = finetune(tmp_path / "data", config, output=tmp_path / "out", settings=fast)
    assert summary["hyper_parameters"]["effective_batch_size"] == 4


class TestRefusals:
    def refused(self, folder, config, error, words, tmp_path, *settings, model=None):
        with pytest.raises(error, match=words):
            finetune(folder, model or config, output=tmp_path / "out", settings=(*FAST, *settings))
        assert not (tmp_path / "out" / "run.json").exists()

    @pytest.mark.parametrize(
        ("settings", "error", "words"),
        [
            (["training.per_device_train_batch_size=64"], ConfigError, "One step takes 64"),
            (["augmentation.flip=0.5"], VideoOptionError, "left"),
            (["data.num_frames=5"], CheckpointError, "divide"),
            (["augmentation.flipp=0"], VideoOptionError, "flip"),
            (["training.learning_rat=1"], ConfigError, "learning_rate"),
            (["model.drop_path_rat=0.1"], ConfigError, "drop_path_rate"),
            (["data.samples=3"], ConfigError, "sampler"),
            (["training.warmup_steps=9"], ConfigError, "warm-up"),
            (["training.max_grad_norm=abc"], ConfigError, "number"),
        ],
    )
    def test_settings(self, clips, config, tmp_path, settings, error, words):
        self.refused(clips, config, error, words, tmp_path, *settings)

    def test_one_class(self, clips, config, tmp_path):
        shutil.copytree(clips / "up", tmp_path / "data" / "up")
        self.refused(tmp_path / "data", config, DataError, "one class", tmp_path)

    def test_a_class_that_only_the_test_has(self, clips, config, tmp_path):
        for split, label in (("train", "up"), ("train", "down"), ("test", "left")):
            shutil.copytree(clips / label, tmp_path / "data" / split / label)
        self.refused(tmp_path / "data", config, DataError, "'left'", tmp_path)

    def test_no_videos(self, config, tmp_path):
        (tmp_path / "data" / "train" / "up").mkdir(parents=True)
        self.refused(tmp_path / "data", config, DataError, "videos", tmp_path)

    def test_batch_norm_over_one_clip(self, clips, tmp_path):
        path = tmp_path / "i3d.json"
        path.write_text(json.dumps({"model_type": "i3d", "stem_channels": 8, "image_size": 32, "num_frames": 8}))
        self.refused(clips, path, ConfigError, "batch norms", tmp_path, "training.per_device_train_batch_size=1")

    def test_no_such_model(self, clips, config, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        self.refused(clips, config, CheckpointError, "no folder", tmp_path, model="./nowhere")

    def test_the_command_answers_in_one_line(self, clips, config, tmp_path, capsys):
        code = main(["train", str(clips), "--model", str(config), "--recipe", "small_dat", "--output", str(tmp_path)])
        assert code == 2
        assert "Did you mean 'small_data'" in capsys.readouterr().err


def test_self_test(clips, config, tmp_path, capsys):
    arguments = ["train", str(clips), "--model", str(config), "--output", str(tmp_path / "out"), "--self_test"]
    settings = [part for setting in FAST for part in ("--set", setting)]
    assert main([*arguments, *settings, "--set", "training.learning_rate=1e-2"]) == 0
    assert "Self-test passed" in capsys.readouterr().out
    assert main([*arguments, *settings, "--set", "training.learning_rate=1e-7"]) == 1
    told = capsys.readouterr().out
    assert "FAILED" in told
    assert "too low" in told
    assert not (tmp_path / "out").exists()


class TestStart:
    def test_a_head_for_other_classes_is_new(self, trained):
        source = find_source(trained[0])
        same = load_model(source, labels=source.labels).model
        other = load_model(source, labels=["a", "b", "c", "d"]).model
        loaded = hf_video.VideoMAEForVideoClassification.from_pretrained(trained[0])
        assert torch.equal(same.classifier.weight, loaded.classifier.weight)
        assert not torch.equal(other.classifier.weight, loaded.classifier.weight)
        assert torch.equal(
            other.videomae.encoder.layer[0].output.dense.weight, loaded.videomae.encoder.layer[0].output.dense.weight
        )
        assert other.config.id2label == {0: "a", 1: "b", 2: "c", 3: "d"}

    def test_sizes_and_frames_reach_the_processor(self, trained):
        start = load_model(find_source(trained[0]), settings={"num_frames": 8, "image_size": 48})
        assert start.processor.num_frames == start.model.config.num_frames == 8
        assert start.processor.crop_size == {"height": 48, "width": 48}

    def test_from_a_type_a_size_a_yaml_file_and_a_folder(self, tmp_path):
        assert find_source("videomae").checkpoint is None
        assert find_source("videomae:small").settings["hidden_size"] == 384
        (tmp_path / "c.yaml").write_text("model_type: i3d\nstem_channels: 8\n")
        assert find_source(tmp_path / "c.yaml").model_type == "i3d"
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "config.json").write_text(json.dumps(TINY))
        source = find_source(tmp_path / "folder")
        assert source.checkpoint is None
        assert load_model(source, labels=["a", "b"]).from_scratch

    @pytest.mark.parametrize("text", ['{"model_type": "bert"}', "[1]", "{"])
    def test_files_that_are_no_configuration(self, tmp_path, text):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises((CheckpointError, ConfigError), match=r"bert|fields|read"):
            find_source(tmp_path / "c.json")


class TestOutput:
    def test_only_whole_checkpoints_count(self, tmp_path):
        for step, files in ((2, ("model.safetensors", "rng_state.pth")), (10, ("model.safetensors",)), (4, ())):
            folder = tmp_path / f"checkpoint-{step}"
            folder.mkdir()
            for name in files:
                (folder / name).touch()
            (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}) if step != 4 else '{"glo')
        assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2"]

    def test_overwriting_removes_only_what_a_run_makes(self, tmp_path):
        (tmp_path / "checkpoint-2").mkdir()
        (tmp_path / "run.json").write_text("{}")
        (tmp_path / "notes.txt").write_text("mine")
        open_output(tmp_path, {}, resume=False, overwrite=True).start()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["UNFINISHED", "notes.txt", "run.json"]

    def test_checkpoints_of_others_are_not_resumed(self, tmp_path):
        (tmp_path / "checkpoint-2").mkdir()
        with pytest.raises(ConfigError, match=r"run\.json"):
            open_output(tmp_path, {}, resume=True, overwrite=False)
        with pytest.raises(ConfigError, match="not both"):
            open_output(tmp_path, {}, resume=True, overwrite=True)


def test_arguments_are_filled_in(tmp_path):
    made = make_arguments(tmp_path, {"use_cpu": True})
    assert made.dataloader_num_workers >= 1
    assert not made.bf16
    assert made.save_total_limit == 2
