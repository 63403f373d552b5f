"""A run's folder at every moment: what a kill leaves is the old model whole, or says that it is unfinished, and goes on
to the same weights; a bit that flipped in any file is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForVideoClassification, TrainerCallback

import hf_video
from hf_video.base.written_files import CHECKSUMS, UNFINISHED, check_model_folder, find_damaged_files
from hf_video.cli import main
from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.errors import CheckpointError, ConfigError, PublishError
from hf_video.hub.publish import publishable_files
from hf_video.training.run_folder import ASIDE, TrainingInterrupted, choose_checkpoint, open_output
from hf_video.training.runs.classification import finetune
from hf_video.training.runs.pretraining import pretrain
from hf_video.training.trainer import VideoTrainer

TINY = {
    "model_type": "videomae", "image_size": 16, "patch_size": 8, "num_frames": 2, "hidden_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16, "decoder_hidden_size": 8,
    "decoder_num_attention_heads": 1, "decoder_num_hidden_layers": 1, "decoder_intermediate_size": 16,
}  # fmt: skip
FAST = (
    "training.max_steps=4", "training.save_steps=2", "training.per_device_train_batch_size=4",
    "training.dataloader_num_workers=0", "training.report_to=none", "training.use_cpu=true",
    "training.eval_strategy=no", "training.logging_steps=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_moving_glyphs(folder, 12, num_frames=4, size=16)
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    path.write_text(json.dumps(TINY))
    return path


@pytest.fixture(scope="module")
def whole(clips, config, tmp_path_factory):
    """A run from beginning to end."""
    output = tmp_path_factory.mktemp("whole") / "run"
    finetune(clips, config, output=output, settings=FAST)
    return output


@pytest.fixture
def run(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run"))


def same_weights(one: Path, other: Path) -> bool:
    left, right = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def equal(one: Path, other: Path) -> bool:
    """But for the last bit, which within a process depends on where in memory a tensor lies (a step moves
    weights by 1e-3)."""
    left, right = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return left.keys() == right.keys() and all(
        torch.allclose(value, right[name], rtol=0, atol=1e-8) for name, value in left.items()
    )


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    path.write_bytes(data)


# -- every moment of a run ---------------------------------------------------------------------------------------------


class Moments:
    """Copies a folder whenever a file below it is about to be opened for writing, moved or removed: each copy is what a
    process that is killed there leaves behind."""

    def __init__(self, folder: Path, copies: Path):
        self.folder, self.copies, self.on, self._seen = str(folder), copies, False, set()
        self.found: list[Path] = []
        sys.addaudithook(self._hear)  # can't be taken away again, but turned off

    def _hear(self, event, args):
        if not self.on or event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            return
        if not str(args[0]).startswith(self.folder) or (event == "open" and not _writes(args)):
            return
        self.on = False
        state = sorted((str(p.relative_to(self.folder)), p.read_bytes()) for p in _files(Path(self.folder)))
        digest = hashlib.sha256(repr(state).encode()).hexdigest()
        if digest not in self._seen:
            self._seen.add(digest)
            self.found.append(Path(shutil.copytree(self.folder, self.copies / f"{len(self.found):03d}")))
        self.on = True


def _files(folder: Path):
    return (path for path in folder.rglob("*") if path.is_file())


def _writes(args) -> bool:
    _, mode, flags = args
    return any(letter in mode for letter in "wax+") if mode else bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


OTHER = (*FAST, "training.seed=1")


@pytest.fixture(scope="module")
def moments(whole, clips, config, tmp_path_factory):
    """The states of a folder with a finished model while another run takes its place, and that run's end."""
    output = Path(shutil.copytree(whole, tmp_path_factory.mktemp("moments") / "run"))
    (output / "notes.txt").write_text("mine")
    watch = Moments(output, tmp_path_factory.mktemp("copies"))
    watch.on = True
    try:
        finetune(clips, config, output=output, settings=OTHER, overwrite=True)
    finally:
        watch.on = False
    return watch.found, output


def test_each_moment_is_the_old_model_or_the_new_one_or_unfinished(moments, whole):
    found, new = moments
    assert len(found) > 20
    assert not same_weights(whole, new)
    seen = {"old": 0, "new": 0, "unfinished": 0}
    for state in found:
        if (state / UNFINISHED).exists():
            with pytest.raises(CheckpointError, match="not finished"):
                check_model_folder(state)
            with pytest.raises(PublishError, match="not finished"):
                publishable_files(state)
            seen["unfinished"] += 1
            continue
        check_model_folder(state)
        which, model = ("old", whole) if same_weights(state, whole) else ("new", new)
        for name in ("run.json", "README.md", "training_summary.json", "model.safetensors", CHECKSUMS):
            assert (state / name).read_bytes() == (model / name).read_bytes(), (state, name)
        seen[which] += 1
    assert seen["old"] > seen["unfinished"] > 0
    assert all((state / "notes.txt").exists() for state in found)
    assert not (new / ASIDE).exists()


def test_from_each_moment_only_whole_checkpoints_are_gone_on_from(moments, tmp_path):
    found, new = moments
    described = json.loads((new / "run.json").read_text())
    steps = set()
    for state in found:
        copy = Path(shutil.copytree(state, tmp_path / state.name))
        if (state / ASIDE / "run.json").exists() or (state / UNFINISHED).exists():  # the new run has begun
            place = open_output(copy, described, resume=True, overwrite=False)
            if place.checkpoint is not None:
                assert not list(find_damaged_files(place.checkpoint))
                steps.add(place.checkpoint.name)
    assert steps == {"checkpoint-2", "checkpoint-4"}


def go_on(state: Path, new: Path, clips: Path, config: Path, folder: Path) -> None:
    copy = Path(shutil.copytree(state, folder / state.name))
    how = {"resume": True} if any((copy / part / UNFINISHED).exists() for part in ("", ASIDE)) else {"overwrite": True}
    finetune(clips, config, output=copy, settings=OTHER, **how)
    assert equal(copy, new), state
    check_model_folder(copy)


def test_moments_go_on_to_the_same_weights(moments, clips, config, tmp_path):
    found, new = moments
    unfinished = [state for state in found if (state / UNFINISHED).exists()]
    for state in (found[len(found) // 3], found[2 * len(found) // 3], unfinished[len(unfinished) // 2]):
        go_on(state, new, clips, config, tmp_path)


@pytest.mark.slow
def test_all_moments_go_on_to_the_same_weights(moments, clips, config, tmp_path):
    for state in moments[0]:
        go_on(state, moments[1], clips, config, tmp_path)
        shutil.rmtree(tmp_path / state.name)


# -- checksums ---------------------------------------------------------------------------------------------------------


def test_every_flipped_bit_of_a_model_is_refused_by_name(run):
    generator = torch.Generator().manual_seed(0)
    names = [*json.loads((run / CHECKSUMS).read_text())["files"], CHECKSUMS]
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "run.json"} <= set(names)
    for name in names:
        kept = (run / name).read_bytes()
        for _ in range(20):
            flip(run / name, int(torch.randint(8 * len(kept), (), generator=generator)))
            with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
                check_model_folder(run)
            (run / name).write_bytes(kept)
        (run / name).write_bytes(kept[: len(kept) // 2])
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            check_model_folder(run)
        (run / name).write_bytes(kept)
    check_model_folder(run)


@pytest.mark.parametrize("load", [AutoModelForVideoClassification, hf_video.VideoMAEModel])
def test_loading_looks_at_the_checksums(run, load):
    load.from_pretrained(run)
    flip(run / "model.safetensors", 8 * 4000)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load.from_pretrained(run)
    with pytest.raises(PublishError, match=r"model\.safetensors"):
        publishable_files(run)


@pytest.mark.parametrize("wrong", ["damaged", "unfinished"])
def test_a_pipeline_does_not_try_the_stock_class_instead(run, clips, wrong, capsys):
    """transformers' factory goes on with its own class of the same name where ours raises a ValueError."""
    if wrong == "damaged":
        path = run / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
    else:
        (run / UNFINISHED).write_text("A training writes here.")
    match = "model.safetensors is damaged" if wrong == "damaged" else "not finished"
    with pytest.raises(CheckpointError, match=match):
        transformers.pipeline("video-classification", model=str(run))
    assert main(["classify", str(next(clips.rglob("*.mp4"))), "--model", str(run)]) == 2
    assert match in capsys.readouterr().err


def test_saving_anew_makes_new_checksums(run):
    model = hf_video.VideoMAEForVideoClassification.from_pretrained(run)
    model.classifier.weight.data += 1
    model.save_pretrained(run)
    processor = hf_video.VideoMAEImageProcessor.from_pretrained(run)
    processor.num_frames = 3
    processor.save_pretrained(run)
    check_model_folder(run)
    again = hf_video.VideoMAEForVideoClassification.from_pretrained(run)
    assert torch.equal(again.classifier.weight, model.classifier.weight)


def test_a_damaged_checkpoint_is_passed_over_by_name(run):
    for path in sorted((run / "checkpoint-4").iterdir()):
        kept = path.read_bytes()
        for change in (lambda p: flip(p, 99), lambda p: p.write_bytes(p.read_bytes()[:10]), Path.unlink):
            path.write_bytes(kept)
            change(path)
            chosen, remarks = choose_checkpoint(run)
            if path.name == CHECKSUMS and not path.exists():
                assert chosen.name == "checkpoint-4"  # as those of 0.1.0, of which each file is opened
            else:
                assert chosen.name == "checkpoint-2", path.name
                assert path.name in remarks[0]
            path.write_bytes(kept)
    assert choose_checkpoint(run) == (run / "checkpoint-4", [])


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", "config.json"])
def test_without_checksums_what_is_cut_off_is_noticed(run, name):
    for step in (2, 4):
        (run / f"checkpoint-{step}" / CHECKSUMS).unlink()
    path = run / "checkpoint-4" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    chosen, remarks = choose_checkpoint(run)
    assert chosen.name == "checkpoint-2"
    assert name in remarks[0]


@pytest.mark.parametrize("damage", [lambda p: flip(p, 4000), Path.unlink, lambda p: p.write_bytes(b"{")])
def test_a_damaged_run_file_is_taken_from_the_checkpoint(run, whole, clips, config, capsys, damage):
    damage(run / "run.json")
    finetune(clips, config, output=run, settings=FAST, resume=True)
    assert "run.json is missing or damaged: the copy in checkpoint-4" in capsys.readouterr().out
    assert equal(run, whole)
    check_model_folder(run)


def test_gone_on_from_the_checkpoint_before(run, whole, clips, config, capsys):
    flip(run / "checkpoint-4" / "optimizer.pt", 5000)
    finetune(clips, config, output=run, settings=FAST, resume=True)
    told = capsys.readouterr().out
    assert "checkpoint-4 is passed over: its optimizer.pt is damaged" in told
    assert "resuming from" in told
    assert "checkpoint-2" in told
    assert equal(run, whole)


# -- signals -----------------------------------------------------------------------------------------------------------


class Signals(TrainerCallback):
    """Sends this process signals while it trains: at the end of a step, or within an evaluation."""

    def __init__(self, step: int, *numbers: int, evaluating: bool = False):
        self.step, self.numbers, self.evaluating = step, numbers, evaluating

    def on_step_begin(self, args, state, control, **kwargs):
        if not self.evaluating and state.global_step == self.step - 1:
            for number in self.numbers:
                os.kill(os.getpid(), number)

    def on_prediction_step(self, args, state, control, **kwargs):
        if self.evaluating and state.global_step == self.step:
            os.kill(os.getpid(), self.numbers[0])


@pytest.fixture
def interrupting(monkeypatch):
    make = VideoTrainer.__init__

    def add(*callbacks):
        monkeypatch.setattr(
            VideoTrainer, "__init__", lambda self, *a, **k: make(self, *a, **{**k, "callbacks": list(callbacks)})
        )

    yield add
    monkeypatch.undo()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(
    number, interrupting, monkeypatch, clips, config, whole, tmp_path, capsys
):
    output, handlers = tmp_path / "my run", [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    typed = ["train", str(clips), "--model", str(config), "--output", str(output)]
    typed += [part for setting in FAST for part in ("--set", setting)]
    interrupting(Signals(3, number))
    assert main([*typed, "--overwrite"]) == 130
    told = capsys.readouterr().err
    assert "checkpoint-3" in told
    assert f"hf-video train {clips} --model {config} --output '{output}'" in told
    assert told.rstrip().endswith("--resume")
    assert "--overwrite" not in told
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    with pytest.raises(CheckpointError, match="not finished"):
        check_model_folder(output)
    monkeypatch.undo()
    assert main([*typed, "--resume"]) == 0
    assert equal(output, whole)


def test_a_second_signal_quits_at_once(interrupting, clips, config, tmp_path):
    interrupting(Signals(4, signal.SIGINT, signal.SIGINT))
    with pytest.raises(TrainingInterrupted, match="checkpoint-2"):
        finetune(clips, config, output=tmp_path / "run", settings=FAST)
    assert not (tmp_path / "run" / "checkpoint-4").exists()


def test_a_signal_ends_an_evaluation_at_once(interrupting, monkeypatch, clips, config, tmp_path):
    settings = (*FAST[:-2], "training.logging_steps=2", "training.eval_strategy=steps", "training.eval_steps=3")
    finetune(clips, config, output=tmp_path / "whole", settings=settings)
    interrupting(Signals(3, signal.SIGINT, evaluating=True))
    with pytest.raises(TrainingInterrupted, match="checkpoint-3"):
        finetune(clips, config, output=tmp_path / "run", settings=settings)
    monkeypatch.undo()
    finetune(clips, config, output=tmp_path / "run", settings=settings, resume=True)
    assert equal(tmp_path / "run", tmp_path / "whole")


def test_pretraining_is_stopped_and_goes_on_alike(interrupting, monkeypatch, clips, config, tmp_path):
    pretrain(clips, config, output=tmp_path / "whole", settings=FAST)
    interrupting(Signals(3, signal.SIGTERM))
    with pytest.raises(TrainingInterrupted, match="checkpoint-3"):
        pretrain(clips, config, output=tmp_path / "run", settings=FAST)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="not finished"):
        check_model_folder(tmp_path / "run")
    pretrain(clips, config, output=tmp_path / "run", settings=FAST, resume=True)
    assert equal(tmp_path / "run", tmp_path / "whole")
    check_model_folder(tmp_path / "run")


# -- places that can't be written --------------------------------------------------------------------------------------


def test_a_full_disk_names_the_checkpoint_that_is_there(clips, config, tmp_path, monkeypatch, capsys):
    """The device that is always full stands in for the optimiser's file of the second checkpoint."""
    begin = VideoTrainer._save_checkpoint

    def full(self, model, trial):
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.state.global_step == 4:
            folder.mkdir()
            (folder / "trainer_state.json").symlink_to("/dev/full")
        begin(self, model, trial)

    monkeypatch.setattr(VideoTrainer, "_save_checkpoint", full)
    typed = ["train", str(clips), "--model", str(config), "--output", str(tmp_path / "run")]
    assert main([*typed, *[part for setting in FAST for part in ("--set", setting)]]) == 2
    told = capsys.readouterr().err
    assert "No space left on device" in told
    assert "checkpoint-2" in told
    assert "--resume" in told


@pytest.mark.parametrize("verb", [["train"], ["pretrain"]])
def test_an_output_that_is_a_file_is_refused_before_the_work(verb, clips, config, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(VideoTrainer, "__init__", None)  # would be work
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main([*verb, str(clips), "--model", str(config), "--output", str(output)]) == 2
        assert str(output) in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_model_is_not_overwritten_unasked(run, clips, config):
    """Also where it is no run: a folder that save_pretrained or a download made."""
    (run / "run.json").unlink()
    shutil.rmtree(run / "checkpoint-2")
    shutil.rmtree(run / "checkpoint-4")
    with pytest.raises(ConfigError, match="--overwrite"):
        finetune(clips, config, output=run, settings=FAST)


def test_every_verb_names_an_unfinished_folder(run, clips, capsys):
    (run / UNFINISHED).write_text("It broke off.\n")
    clip = str(next(clips.rglob("*.mp4")))
    for typed in (
        ["classify", clip, "--model", str(run)],
        ["evaluate", str(clips), "--model", str(run)],
        ["probe", str(clips), "--model", str(run)],
        ["embed", str(clips), "--model", str(run), "--output", str(run.parent / "vectors")],
        ["index", str(clips), "--model", str(run), "--output", str(run.parent / "library.index")],
        ["train", str(clips), "--model", str(run), "--output", str(run.parent / "again")],
        ["pretrain", str(clips), "--model", str(run), "--output", str(run.parent / "again")],
        ["push", str(run), "me/model"],
    ):
        assert main(typed) == 2, typed
        assert "not finished. It broke off." in capsys.readouterr().err, typed
