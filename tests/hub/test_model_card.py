"""The card: every number in it stands in a file of the folder, what is in no file is said to be missing."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from huggingface_hub import ModelCard
from store import yaml_problems

import hf_video
from hf_video.data.rows import plain_reason
from hf_video.errors import CheckpointError
from hf_video.evaluation.protocol import Protocol
from hf_video.evaluation.report import Report
from hf_video.hub.card_facts import read_facts, shareable_files
from hf_video.hub.model_card import MARK, make_card, write_card

SUMMARY = {
    "base_model": "MCG-NJU/videomae-base",
    "from_scratch": False,
    "recipe": "small_data",
    "data": {
        "source": "/home/somebody/secret/sports",
        "splits": {
            "train": {"videos": 40, "classes": {"archery": 30, "bowling": 10}},
            "test": {"videos": 7, "classes": {"archery": 4, "bowling": 3}},
        },
        "skipped": [
            {"name": "a.mp4", "kind": "damaged", "reason": "…", "used": False},
            {"name": "b.mp4", "kind": "damaged", "reason": "…", "used": False},
            {"name": "c.mp4", "kind": "short", "reason": "…", "used": True},
        ],
    },
    "hyper_parameters": {"learning_rate": 0.000123456, "layer_decay": 0.75},
    "epochs": 12.0,
    "seconds": 3725.4,
    "clips_per_second": 31.25,
    "decode_wait": 0.125,
    "train_loss": 0.4321,
    "versions": {"hf_video": "0.9", "torch": "2.13.0"},
}


def report(classes: int = 6) -> Report:
    """Seven videos of `archery` and `bowling`, five of them right."""
    labels = [*tiny.LABELS, *(f"class {i}" for i in range(6, classes))][:classes]
    scores = np.full((7, max(classes, 3)), 0.1 / max(classes - 1, 1), dtype=np.float32)
    scores[np.arange(7), [0, 0, 0, 1, 1, 1, 2]] = 0.9
    return Report(
        model="/home/somebody/secret/model",
        protocol=Protocol("5x3", clips=5, crops=3),
        labels=labels,
        names=[f"{i}.mp4" for i in range(7)],
        truth=np.array([0, 0, 0, 0, 1, 1, 1]),
        scores=scores,
        skipped=[hf_video.data.rows.Skipped("7.mp4", "cut off", "damaged")],
    )


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory):
    return report().save(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture
def folder(model, evaluation, tmp_path):
    folder = tmp_path / "sports"
    shutil.copytree(model, folder)
    shutil.copytree(evaluation, folder / "evaluation/test")
    (folder / "training_summary.json").write_text(json.dumps(SUMMARY))
    return folder


def text_of(folder, **options) -> str:
    return write_card(folder, **options).read_text(encoding="utf-8")


class TestNumbers:
    def test_measured(self, folder):
        text, found = text_of(folder), report()
        low, high = found.top1_interval
        row = f"| test | found 7 of 8 videos | 71.4 % ({100 * low:.1f} % to {100 * high:.1f} %) | 100.0 % |"
        assert row in text
        assert f"**5x3**, {found.protocol.describe()}." in text
        assert "| archery | 4 | 75.0 % | 100.0 % | bowling (1) |" in text
        assert f"log loss {found.log_loss:.3f}" in text
        assert "most frequent class would give 57.1 %" in text  # 4 of 7

    def test_metadata_are_valid_and_hold_the_same_numbers(self, folder):
        text = text_of(folder)
        assert not yaml_problems(text)
        data = ModelCard(text).data
        assert (data.pipeline_tag, data.library_name, data.metrics) == (
            "video-classification", "transformers", ["accuracy"],
        )  # fmt: skip
        assert (data.base_model, data.license) == ("MCG-NJU/videomae-base", "cc-by-nc-4.0")
        measured = {result.metric_name: result for result in data.eval_results}
        assert measured["Top-1 accuracy"].metric_value == pytest.approx(5 / 7, abs=1e-4)
        assert measured["Top-5 accuracy"].metric_value == 1.0
        assert measured["Top-1 accuracy"].dataset_args == {"videos": 7, "protocol": "5x3"}
        assert {result.dataset_split for result in data.eval_results} == {"test"}

    def test_data_and_training(self, folder):
        text = text_of(folder)
        assert "Videos from `sports`: 40 for train, 7 for test." in text
        assert "| archery | 30 | 4 |" in text
        assert "Left out: 2 damaged. Used, and worth a look: 1 short." in text
        assert "Classes are uneven in training: from 10 to 30 videos." in text
        for row in ("| recipe | small\\_data |", "| time | 1 h 2 min |", "| final training loss | 0.4321 |"):
            assert row in text
        assert "| `learning_rate` | 0.0001235 |" in text
        assert "Trained with hf_video 0.9, torch 2.13.0." in text
        assert "secret" not in text  # no paths of somebody's machine

    def test_parameters_are_counted_in_the_file(self, folder, model):
        loaded = hf_video.VideoMAEForVideoClassification.from_pretrained(model)
        assert f"{sum(p.numel() for p in loaded.parameters()):,} parameters, F32" in text_of(folder)

    def test_shards_count_once(self, shards):
        assert "29,606 parameters" in text_of(shards)


class TestWhatIsMissing:
    def test_a_model_alone(self, model, tmp_path):
        shutil.copytree(model, tmp_path / "bare")
        text = text_of(tmp_path / "bare")
        for sentence in (
            "It was started from weights that are not recorded.",
            "Not evaluated: the folder holds no evaluation report.",
            "Which videos it was trained on is not recorded",
            "How it was trained is not recorded",
            "Which weights it started from is not recorded",
            "No licence was chosen",
        ):
            assert sentence in text
        data = ModelCard(text).data
        assert (data.license, data.eval_results, data.base_model) == (None, None, None)
        assert not yaml_problems(text)

    def test_no_model_at_all(self, tmp_path):
        with pytest.raises(CheckpointError, match="not a saved model"):
            write_card(tmp_path)

    def test_a_summary_that_was_cut_off(self, folder):
        (folder / "training_summary.json").write_text('{"recipe": ')
        with pytest.raises(CheckpointError, match=r"training_summary\.json can't be read as JSON"):
            write_card(folder)


class TestLicence:
    def summary(self, folder, **changed):
        (folder / "training_summary.json").write_text(json.dumps({**SUMMARY, **changed}))

    def test_non_commercial_weights_are_named_whatever_is_chosen(self, folder):
        text = text_of(folder, license="apache-2.0")
        assert "weights are under **cc-by-nc-4.0**. They may not be used commercially" in text
        assert "This model: **apache-2.0**." in text
        assert ModelCard(text).data.license == "apache-2.0"

    def test_a_base_of_unknown_licence(self, folder):
        self.summary(folder, base_model="somebody/their-model")
        text = text_of(folder)
        assert "[somebody/their-model](https://huggingface.co/somebody/their-model), was not found; look there" in text
        assert ModelCard(text).data.license is None

    def test_a_local_base_hands_its_licence_on(self, folder, model, tmp_path):
        base = tmp_path / "base"
        shutil.copytree(model, base)
        (base / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
        self.summary(folder, base_model=str(base))
        text = text_of(folder)
        assert "a checkpoint named `base`, of no public name, whose weights are under **cc-by-nc-4.0**" in text
        assert ModelCard(text).data.base_model is None

    def test_from_scratch(self, folder):
        self.summary(folder, base_model=None, from_scratch=True)
        text = text_of(folder)
        assert "It was trained from random weights." in text
        assert "It was not trained from other weights." in text


class TestForm:
    def test_long_tables_are_folded(self, folder):
        short = text_of(folder)
        assert "<details>" not in short
        report(classes=40).save(folder / "evaluation/test")
        many = {f"class {i}": i for i in range(40)}
        data = {**SUMMARY["data"], "splits": {"train": {"videos": 780, "classes": many}}}
        (folder / "training_summary.json").write_text(json.dumps({**SUMMARY, "data": data}))
        assert "<summary>Videos of each class, 40 classes</summary>\n\n| class | train |" in text_of(folder)

    def test_one_is_not_plural(self, folder):
        """One class, one video, one hyper-parameter."""
        config = json.loads((folder / "config.json").read_text())
        config |= {"id2label": {"0": "archery"}, "label2id": {"archery": 0}}
        (folder / "config.json").write_text(json.dumps(config))
        data = {"splits": {"train": {"videos": 1, "classes": {"archery": 1}}}}
        hyper = {"learning_rate": 0.1}
        (folder / "training_summary.json").write_text(json.dumps({**SUMMARY, "data": data, "hyper_parameters": hyper}))
        one = replace(report(1), names=["0.mp4"], truth=np.array([0]), scores=np.ones((1, 1), np.float32), skipped=[])
        one.save(folder / "evaluation/test")
        text = text_of(folder)
        assert "one of 1 label: *archery*" in text
        assert "found 1 of 1 video |" in text
        assert "It knows 1 class and always" in text
        assert not re.search(r"(?<![\d.])1 (classes|videos|labels|clips|hyper-parameters)\b", text)
        assert "1 classes" not in str(one)

    def test_names_cannot_break_the_page(self, folder):
        file = folder / "evaluation/test/report.json"
        found = json.loads(file.read_text())
        found["per_class"][0]["label"] = "a|b <img src=x> *c*"
        file.write_text(json.dumps(found))
        assert "| a\\|b &lt;img src=x> \\*c\\* | 4 |" in text_of(folder)

    def test_the_picture_of_the_confusion_is_shown_if_it_is_there(self, folder):
        pytest.importorskip("matplotlib")
        assert "![Confusion matrix on test](evaluation/test/confusion.png)" in text_of(folder)
        (folder / "evaluation/test/confusion.png").unlink()
        assert "![" not in text_of(folder)

    def test_ours_is_made_anew_and_a_persons_is_kept(self, folder):
        first = text_of(folder)
        assert MARK in first
        (folder / "evaluation/test/report.json").unlink()
        second = text_of(folder)
        assert "Not evaluated" in second
        by_hand = second.replace(MARK, "").replace("Not evaluated", "I looked at it")
        (folder / "README.md").write_text(by_hand)
        assert text_of(folder) == by_hand

    def test_every_section_stands_once(self, folder):
        headings = re.findall(r"^#+ .*$", text_of(folder, repo_id="me/my-sports"), re.M)
        assert headings == [
            "# my-sports", "## Use", "## Results", "## Data", "## Training", "## Limits", "## Licence",
            "## How this was made",
        ]  # fmt: skip


@pytest.fixture
def pretrained(tmp_path):
    config = hf_video.VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=4, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, decoder_hidden_size=32, decoder_num_attention_heads=2, decoder_num_hidden_layers=1,
    )  # fmt: skip
    hf_video.VideoMAEForPreTraining(config).save_pretrained(tmp_path / "encoder")
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    hf_video.VideoMAEImageProcessor(**size).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


class TestPretraining:
    def test_errors_beside_the_trivial_predictors(self, pretrained):
        measured = {"masked_loss": 0.61, "mean_of_patch": 1.0, "copy_of_nearest": 0.92, "clips": 64}
        summary = {
            "from_scratch": True,
            "base_model": None,
            "held_out": measured,
            "probe_top1": {"5": 0.55, "10": 0.75},
        }
        (pretrained / "training_summary.json").write_text(json.dumps(summary))
        text = text_of(pretrained)
        assert "masked patches of 64 held-out clips" in text
        for row in ("| this model | 0.61 |", "| the mean of each patch | 1 |", "| 10 | 75.0 % |"):
            assert row in text
        assert "It labels nothing until it is fine-tuned." in text
        data = ModelCard(text).data
        assert data.pipeline_tag is None
        assert "masked-pretraining" in data.tags

    def test_unmeasured(self, pretrained):
        assert "was not measured" in text_of(pretrained)

    def test_its_example_runs(self, pretrained, tmp_path, monkeypatch, capsys):
        card = make_card(read_facts(pretrained), repo_id=str(pretrained))
        code = re.search(r"```python\n(.*?)```", card.content, re.S).group(1)
        tiny.write_clip(tmp_path / "clip.mp4")
        monkeypatch.chdir(tmp_path)
        exec(code, {})
        assert str(torch.Size([1, 32])) in capsys.readouterr().out


def test_what_is_pushed_names_no_place_on_somebodys_machine(tmp_path, monkeypatch):
    home = tmp_path / "home of me"
    folder = home / "run"
    tiny.save_tiny(folder)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    gone = f"'clips/a.mp4' does not exist (looked in {home}); check the path"
    skipped = [{"name": f"{home}/clips/b.mp4", "kind": "missing", "reason": gone, "used": False}]
    (folder / "evaluation" / "test").mkdir(parents=True)
    report = {"model": str(folder), "skipped": skipped, "per_class": [{"label": "/m/04rlf"}], "link": "https://a.b/c/d"}
    (folder / "evaluation" / "test" / "report.json").write_text(json.dumps(report))
    (folder / "evaluation" / "test" / "predictions.csv").write_text(f"video,label\r\n{tmp_path}/c d.mp4,/m/04rlf\r\n")
    (folder / "training_summary.json").write_text(json.dumps({"base_model": str(folder), "data": {"skipped": skipped}}))
    files = shareable_files(read_facts(folder))
    assert set(files) == {"training_summary.json", "evaluation/test/report.json", "evaluation/test/predictions.csv"}
    assert not any(
        str(place).encode() in data for data in files.values() for place in (home, tmp_path, tmp_path.parent)
    )
    shared = json.loads(files["evaluation/test/report.json"])
    assert shared["skipped"][0]["name"] == "clips/b.mp4"
    assert shared["skipped"][0]["reason"] == "'clips/a.mp4' does not exist (looked in .); check the path"
    assert shared["per_class"] == report["per_class"]
    assert shared["link"] == report["link"]
    assert files["evaluation/test/predictions.csv"].endswith(b"c d.mp4,/m/04rlf\r\n")


def test_reasons_in_reports_name_no_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(hf_video.HFVideoError) as raised:
        hf_video.VideoReader("clips/a.mp4")
    assert str(tmp_path) in str(raised.value)
    assert plain_reason(raised.value, "clips/a.mp4", "a.mp4").startswith("'a.mp4' does not exist; check the path")
