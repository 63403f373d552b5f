"""Models to the Hub and back, through the real client: `push_to_hub`, our `push`, the `Trainer`, `hf-video push`."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import tiny
import torch
from flow_client import FlowError
from server import READER
from training.runs.test_finetune import TINY

from hf_video.data.moving_glyphs import DIRECTIONS, write_moving_glyphs


@pytest.fixture
def finished(model, tmp_path):
    """A folder as training leaves it: beside the model its evaluation, and much that stays at home."""
    folder = tmp_path / "run"
    shutil.copytree(model, folder)
    for name in ("evaluation/test", "checkpoint-5", "runs/now", "figures"):
        (folder / name).mkdir(parents=True)
    (folder / "evaluation/test/report.json").write_text(json.dumps({**REPORT, "model": str(folder)}))
    (folder / "evaluation/test/per_class.csv").write_text("label,videos\n")
    (folder / "evaluation/test/predictions.jsonl").write_text("{}\n")
    (folder / "training_summary.json").write_text(json.dumps({"base_model": str(model), "train_loss": 0.25}))
    shutil.copy(folder / "model.safetensors", folder / "checkpoint-5/model.safetensors")
    torch.save({}, folder / "checkpoint-5/optimizer.pt")
    torch.save({}, folder / "training_args.bin")
    (folder / "runs/now/events.out.tfevents.1").write_bytes(b"log")
    (folder / "figures/reconstruction.png").write_bytes(b"somebody's video")
    (folder / "skipped.jsonl").write_text("")
    return folder


REPORT = {
    "protocol": {"name": "1x1", "in_words": "1 clip x the centre crop"},
    "found": 8,
    "total": 9,
    "top1": 0.625,
    "top1_interval": [0.3057, 0.8632],
    "top5": 1.0,
    "classes": 6,
    "classes_seen": 4,
    "per_class": [{"label": "archery", "videos": 2, "accuracy": 0.5, "precision": 1.0, "confused_with": None}],
}


def same(logits):
    """Within rounding: where a tensor begins in its file decides which kernel adds it up."""
    return pytest.approx(logits, abs=1e-6)


MODEL_FILES = {".gitattributes", "README.md", "config.json", "model.safetensors", "preprocessor_config.json"}


def test_push_to_hub_of_model_and_processor(hub, client, model, tmp_path):
    client("push_model", model, "owner/plain", private=True)
    assert set(hub.files("owner/plain")) == MODEL_FILES
    assert [(upload.part, upload.finished) for upload in hub.uploads] == [(n, True) for n in (1, 2, 3, 4)]
    assert client("logits", "owner/plain", cache_dir=str(tmp_path)) == same(client("logits", str(model)))


def test_shards(hub, client, model, tmp_path):
    client("push_model", model, "owner/shards", max_shard_size="50KB")
    weights = {name for name in hub.files("owner/shards") if "model" in name}
    assert weights == {"model.safetensors.index.json", *(f"model-0000{i}-of-00004.safetensors" for i in (1, 2, 3, 4))}
    assert client("logits", "owner/shards", cache_dir=str(tmp_path)) == same(client("logits", str(model)))


class TestFolder:
    def test_nothing_but_the_model_and_what_was_measured_is_sent(self, hub, client, finished, tmp_path):
        client("push_folder", finished, "owner/whole")
        sent = set(hub.files("owner/whole"))
        measured = {"evaluation/test/report.json", "evaluation/test/per_class.csv", "training_summary.json"}
        assert sent == MODEL_FILES | measured
        assert hub.store.repos["owner/whole"].private  # nobody said so: the default
        assert not [request for request in hub.requests if request.status >= 500]
        assert client("logits", "owner/whole", cache_dir=str(tmp_path)) == same(client("logits", str(finished)))

    def test_the_hub_shows_task_and_true_metrics(self, hub, client, finished):
        client("push_folder", finished, "owner/shown", license="apache-2.0")
        info = client("api", "model_info", repo_id="owner/shown")
        assert info["pipeline_tag"] == "video-classification"
        assert info["library_name"] == "transformers"
        found = {r["metric_name"]: r["metric_value"] for r in info["card_data"]["eval_results"]}
        assert found == {"Top-1 accuracy": 0.625, "Top-5 accuracy": 1.0}
        assert info["card_data"]["license"] == "apache-2.0"
        assert "base_model" not in info["card_data"] or info["card_data"]["base_model"] is None  # a path is no name
        sent = hub.files("owner/shown")
        assert not [name for name, data in sent.items() if str(finished.parent.parent).encode() in data]

    def test_the_cards_example_runs(self, hub, client, finished, tmp_path):
        client("push_folder", finished, "owner/example")
        code = re.search(r"```python\n(.*?)```", hub.files("owner/example")["README.md"].decode(), re.S).group(1)
        tiny.write_clip(tmp_path / "clip.mp4")
        assert client("run_snippet", code, tmp_path).count("score") == 3

    def test_a_second_push_sends_only_what_changed(self, hub, client, finished):
        first = client("push_folder", finished, "owner/twice")
        hub.forget()
        assert client("push_folder", finished, "owner/twice") == first
        assert not hub.uploads
        (finished / "evaluation/test/per_class.csv").write_text("label,videos\narchery,2\n")
        assert client("push_folder", finished, "owner/twice") != first
        assert not hub.uploads

    def test_shards_take_the_place_of_a_whole_file(self, hub, client, model, shards, tmp_path):
        """transformers prefers `model.safetensors`: a left-over one would be loaded in place of the new shards."""
        hub.store.repos.pop("owner/again", None)
        client("api", "create_repo", repo_id="owner/again")
        hub.put("owner/again", {"model.safetensors": b"old", "pytorch_model.bin": b"older", "notes.txt": b"mine"})
        client("push_folder", shards, "owner/again")
        files = hub.files("owner/again")
        assert "model.safetensors" not in files
        assert "pytorch_model.bin" not in files
        assert files["notes.txt"] == b"mine"
        assert client("logits", "owner/again", cache_dir=str(tmp_path / "cache")) == same(client("logits", str(model)))

    def test_revisions(self, hub, client, model, tmp_path):
        other = tiny.save_tiny(tmp_path / "other", "timesformer")
        client("push_folder", model, "owner/revised")
        oid = client("push_folder", other, "owner/revised", revision="try/2", commit_message="another")["oid"]
        cache = {"cache_dir": str(tmp_path / "cache")}
        ours, theirs = client("logits", str(model)), client("logits", str(other))
        assert ours != theirs
        assert client("logits", "owner/revised", **cache) == same(ours)
        assert client("logits", "owner/revised", revision="try/2", **cache) == same(theirs)
        assert client("logits", "owner/revised", revision=oid, **cache) == same(theirs)
        with pytest.raises(FlowError, match="nowhere is not a valid git identifier"):
            client("logits", "owner/revised", revision="nowhere", **cache)

    def test_a_card_that_a_person_wrote_stays(self, hub, client, finished):
        (finished / "README.md").write_text("---\nlicense: mit\n---\n\n# By hand\n")
        client("push_folder", finished, "owner/by_hand")
        assert hub.files("owner/by_hand")["README.md"] == (finished / "README.md").read_bytes()


class TestRefusals:
    def broken(self, model, folder, *, without=(), **changed):
        shutil.copytree(model, folder)
        for name in without:
            (folder / name).unlink()
        for name, data in changed.items():
            (folder / name.replace("__", ".")).write_bytes(data)
        return folder

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"without": ["model.safetensors"]}, "model.safetensors is missing"),
            ({"without": ["config.json"]}, "config.json is missing"),
            ({"without": ["preprocessor_config.json"]}, "processor's file is missing"),
            ({"model__safetensors": b"cut off"}, "damaged or cut off"),
            ({"config__json": b'{"model_type": "vid'}, "can't be read as JSON"),
        ],
    )
    def test_an_incomplete_folder(self, hub, client, model, tmp_path, options, reason):
        folder = self.broken(model, tmp_path / "broken", **options)
        with pytest.raises(FlowError, match=reason):
            client("push_folder", folder, "owner/never")
        assert not hub.requests

    def test_a_missing_shard_is_named(self, hub, client, shards):
        (shards / "model-00002-of-00004.safetensors").unlink()
        with pytest.raises(FlowError, match=r"model-00002-of-00004\.safetensors, which .* names, is missing"):
            client("push_folder", shards, "owner/never")

    def test_a_training_that_has_not_finished(self, client, finished):
        (finished / "model.safetensors").unlink()
        with pytest.raises(FlowError, match="has not finished: go on with --resume"):
            client("push_folder", finished, "owner/never")

    @pytest.mark.parametrize(
        ("repo_id", "options", "reason"),
        [
            ("owner/x", {"token": READER}, r"403.*hf auth login"),
            ("owner/x", {"token": "hf_wrong"}, r"401.*hf auth login"),
            ("somebody/x", {}, "403"),
            ("a/b/c", {}, "is not a name on the Hub"),
        ],
    )
    def test_no_right_to_write(self, hub, client, model, repo_id, options, reason):
        with pytest.raises(FlowError, match=reason) as caught:
            client("push_folder", model, repo_id, **options)
        assert caught.value.kind == "PublishError"

    def test_private_was_asked_for_and_it_is_public(self, hub, client, model):
        client("api", "create_repo", repo_id="owner/open", exist_ok=True)
        with pytest.raises(FlowError, match="is there and public"):
            client("push_folder", model, "owner/open", private=True)
        assert not hub.uploads
        client("push_folder", model, "owner/open")
        assert "model.safetensors" in hub.files("owner/open")


def test_pipeline_and_a_private_repository(hub, client, model, tmp_path):
    client("push_folder", model, "owner/hidden")
    clip = tiny.write_clip(tmp_path / "clip.mp4")
    assert client("classify", "owner/hidden", clip) == client("classify", str(model), clip)
    again = client("logits", "owner/hidden", local_files_only=True)  # from the cache, nobody is asked
    assert again == same(client("logits", str(model)))
    with pytest.raises(FlowError, match="private repository, make sure to pass a token"):
        client("logits", "owner/hidden", token=False, cache_dir=str(tmp_path / "cache"))


def test_trainer(hub, client, model, tmp_path):
    kept = client("train_and_push", model, tmp_path / "out", "owner/trained", report_to="none")
    assert {"checkpoint-1", "checkpoint-2", "training_args.json"} <= set(kept)
    assert set(hub.files("owner/trained")) == MODEL_FILES
    assert hub.store.repos["owner/trained"].private
    history = [one.message for one in hub.store.repos["owner/trained"].history("main")]
    assert history[:3] == ["End of training", "Training in progress, step 2", "Training in progress, step 1"]
    assert client("logits", "owner/trained", cache_dir=str(tmp_path)) == same(client("logits", str(tmp_path / "out")))


def test_train_and_push_in_one_command(hub, client, tmp_path):
    """From a folder of clips to a repository that classifies; the card tells what was measured."""
    held_out = write_moving_glyphs(tmp_path / "clips", 16, size=32, speed=4)[0]
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    settings = ("training.min_train_steps=0", "training.num_train_epochs=1", "training.report_to=none")
    done = client(
        "verb", "train", tmp_path / "clips", "--model", tmp_path / "tiny.json", "--output", tmp_path / "run",
        "--push_to_hub", "owner/glyphs", *(word for setting in settings for word in ("--set", setting)),
    )  # fmt: skip
    assert done["code"] == 0, done["err"]
    assert f"Pushed: {hub.endpoint}/owner/glyphs/commit/" in done["out"]
    assert hub.store.repos["owner/glyphs"].private
    files = hub.files("owner/glyphs")
    assert {"training_summary.json", "evaluation/test/report.json"} | MODEL_FILES <= set(files)
    top1 = json.loads((tmp_path / "run/evaluation/test/report.json").read_text())["top1"]
    assert f"{top1 * 100:.1f} %" in files["README.md"].decode()
    assert {answer["label"] for answer in client("classify", "owner/glyphs", held_out)} <= set(DIRECTIONS)


def test_the_verb(hub, client, model, tmp_path):
    done = client("verb", "push", model, "verb", "--revision", "v1", "--license", "mit")
    assert (done["code"], done["out"].startswith(f"{hub.endpoint}/owner/verb/commit/")) == (0, True)
    assert b"license: mit" in hub.files("owner/verb", "v1")["README.md"]
    assert "README.md" not in hub.files("owner/verb")
    missing = client("verb", "push", tmp_path / "nothing", "verb")
    assert (missing["code"], "no such folder" in missing["err"]) == (2, True)
