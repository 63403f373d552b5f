"""Pickled weights are refused wherever a model is loaded, and converted only on request and only as tensors."""

from __future__ import annotations

import os
import pickle
import shutil

import pytest
import tiny
import torch
from flow_client import FlowError
from safetensors.torch import load_file
from transformers import AutoModelForVideoClassification, pipeline

import hf_video
from hf_video.base.convert import convert_pickles
from hf_video.errors import CheckpointError, UnsafeWeightsError


@pytest.fixture
def pickled(model, tmp_path):
    """The tiny model as older files on the Hub are: `pytorch_model.bin` and no safetensors."""
    folder = tmp_path / "pickled"
    shutil.copytree(model, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture
def on_hub(hub, client, pickled):
    hub.store.repos.pop("owner/pickled", None)
    client("api", "create_repo", repo_id="owner/pickled")
    hub.put("owner/pickled", {file.name: file.read_bytes() for file in pickled.iterdir()})
    hub.forget()
    return "owner/pickled"


class TestOnTheHub:
    @pytest.mark.parametrize("flow", ["logits", "classify"])
    def test_refused_and_not_even_downloaded(self, hub, client, on_hub, tmp_path, flow):
        """A pipeline tries transformers' own class of that name when ours fails; it must not get that far."""
        clip = [tiny.write_clip(tmp_path / "clip.mp4")] if flow == "classify" else []
        with pytest.raises(FlowError, match=r"pickle, pytorch_model\.bin.*hf-video convert owner/pickled") as caught:
            client(flow, on_hub, *clip)
        assert caught.value.kind == "UnsafeWeightsError"
        assert not [request for request in hub.requests if request.path.startswith("/storage/")]

    def test_the_verb_says_what_to_do(self, client, on_hub, tmp_path):
        done = client("verb", "classify", tiny.write_clip(tmp_path / "clip.mp4"), "--model", on_hub)
        assert done["code"] == 2
        assert "hf-video convert owner/pickled --output DIR" in done["err"]

    def test_and_that_works(self, client, on_hub, model, tmp_path):
        done = client("verb", "convert", on_hub, "--output", tmp_path / "safe")
        assert done["code"] == 0, done["err"]
        files = ["checksums.json", "config.json", "model.safetensors", "preprocessor_config.json"]
        assert sorted(os.listdir(tmp_path / "safe")) == files
        assert client("logits", str(tmp_path / "safe")) == pytest.approx(client("logits", str(model)), abs=1e-6)


class TestInAFolder:
    def test_refused_by_classes_auto_classes_and_pipelines(self, pickled):
        for load in (
            AutoModelForVideoClassification.from_pretrained,
            hf_video.VideoMAEForVideoClassification.from_pretrained,
            lambda folder: pipeline("video-classification", model=str(folder)),
        ):
            with pytest.raises(UnsafeWeightsError, match="loads safetensors only"):
                load(pickled)

    def test_refused_in_shards_with_a_variant_and_as_a_file(self, model, pickled):
        load = hf_video.VideoMAEForVideoClassification.from_pretrained
        with pytest.raises(UnsafeWeightsError, match=r"pytorch_model\.bin,"):
            load(pickled / "pytorch_model.bin", config=hf_video.VideoMAEConfig())
        os.rename(pickled / "pytorch_model.bin", pickled / "pytorch_model.fp16.bin")
        with pytest.raises(UnsafeWeightsError, match=r"pytorch_model\.fp16\.bin"):
            load(pickled, variant="fp16")
        (pickled / "pytorch_model.bin.index.json").write_text("{}")
        with pytest.raises(UnsafeWeightsError, match="index"):
            load(pickled)
        with pytest.raises(UnsafeWeightsError, match="use_safetensors=False"):
            load(model, use_safetensors=False)

    def test_safetensors_beside_it_are_taken(self, model, pickled):
        shutil.copy(model / "model.safetensors", pickled)
        (pickled / "pytorch_model.bin").write_bytes(b"not even a pickle")
        AutoModelForVideoClassification.from_pretrained(pickled)

    def test_no_weights_at_all_is_another_matter(self, pickled):
        (pickled / "pytorch_model.bin").unlink()
        with pytest.raises(OSError, match="no file named"):
            AutoModelForVideoClassification.from_pretrained(pickled)


class TestConverting:
    def test_code_in_a_pickle_is_not_run(self, pickled, tmp_path):
        class Harmful:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path}/was_run",)

        (pickled / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Harmful()}))
        with pytest.raises(CheckpointError, match="refused"):
            convert_pickles(pickled, output=tmp_path / "out")
        assert not (tmp_path / "was_run").exists()

    def test_shards(self, model, pickled, tmp_path):
        state = torch.load(pickled / "pytorch_model.bin", weights_only=True)
        names = sorted(state)
        where = {name: f"pytorch_model-{1 + i % 2}.bin" for i, name in enumerate(names)}
        for file in set(where.values()):
            torch.save({name: state[name] for name in names if where[name] == file}, pickled / file)
        (pickled / "pytorch_model.bin").unlink()
        (pickled / "pytorch_model.bin.index.json").write_text(
            f'{{"weight_map": {str(where).replace(chr(39), chr(34))}}}'
        )
        convert_pickles(pickled, output=tmp_path / "out")
        ours, theirs = load_file(tmp_path / "out/model.safetensors"), load_file(model / "model.safetensors")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_what_does_not_fit_is_named(self, pickled, tmp_path):
        state = torch.load(pickled / "pytorch_model.bin", weights_only=True)
        state["surplus"] = state.pop("classifier.bias")
        torch.save(state, pickled / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match=r"missing keys: classifier\.bias; unexpected keys: surplus"):
            convert_pickles(pickled, output=tmp_path / "out")

    def test_nothing_to_convert(self, model, tmp_path):
        with pytest.raises(CheckpointError, match="nothing to convert"):
            convert_pickles(model, output=tmp_path / "out")
