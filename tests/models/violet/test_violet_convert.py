"""The authors' four layouts, every channel count cut to a twelfth, as files of different ages hold them. Numbers are in
tests/parity."""

from __future__ import annotations

import json

import pytest
import torch
from golden_cases import CASES, FOLDER

import hf_video
from hf_video.base.convert import convert_file
from hf_video.errors import CheckpointError

KINDS = {
    "violet_pretrain": ("VioletForPreTraining", {}),
    "violet_retrieval": ("VioletForVideoTextRetrieval", {}),
    "violet_qa_open": ("VioletForQuestionAnswering", {}),
    "violet_qa_choice": ("VioletForMultipleChoice", {"size_option": 5}),
}


def official(name: str) -> dict[str, torch.Tensor]:
    """Random tensors under the authors' names, tables that a model works out among them."""
    generator, state = torch.Generator().manual_seed(0), {}
    for key, shape in json.loads((FOLDER / f"keys/{name}.json").read_text()).items():
        smaller = {3: 1, 6: 2, 12: 4, 24: 8} if key.endswith("bias_table") else {}
        shape = [n // 12 if n % 96 == 0 else smaller.get(n, n) for n in shape]
        state[key] = torch.randn(shape, generator=generator)
        if key in CASES[name]["derived"]:
            state[key] = torch.zeros(shape, dtype=torch.int64)
    return state


def same(model, other) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", KINDS)
def test_layouts(name):
    state, (kind, options) = official(name), KINDS[name]
    model = hf_video.from_official("violet", state, **options)
    config = model.config
    assert type(model).__name__ == kind
    assert (config.hidden_size, config.max_frames, config.max_patches) == (64, 6, 196)
    assert (config.video_config.stride, tuple(config.video_config.window_size)) == (1, (8, 7, 7))
    assert config.text_config.vocab_size == state["enc_txt.emb_txt.word_embeddings.weight"].shape[0]
    assert torch.equal(model.violet.video_embeddings.frame_token, state["enc_img.emb_cls"])
    head = model.classifier if kind == "VioletForQuestionAnswering" else model.matching_head
    assert torch.equal(head.out.weight, state["fc.3.weight"])
    assert config.num_labels == (17 if kind == "VioletForQuestionAnswering" else 2)


def test_files_of_every_age():
    """Positions saved as a tensor (old transformers), none of the tables that are worked out, one name or the other
    for the bias of words, a data-parallel prefix."""
    state = official("violet_pretrain")
    state["fc_mtm.predictions.decoder.bias"] = state["fc_mtm.predictions.bias"]
    model = hf_video.from_official("violet", state)
    old = {**state, "enc_txt.emb_txt.position_ids": torch.arange(512)[None]}
    del old["fc_mtm.predictions.decoder.bias"]
    bare = {k: v for k, v in state.items() if v.is_floating_point() and k != "fc_mtm.predictions.bias"}
    for other in (old, bare, {f"module.{k}": v for k, v in state.items()}, {"model": state}):
        assert same(model, hf_video.from_official("violet", other))


def test_the_trunk_alone():
    state = {k: v for k, v in official("violet_retrieval").items() if not k.startswith("fc.")}
    model = hf_video.from_official("violet", state)
    assert type(model).__name__ == "VioletModel"
    assert same(model, hf_video.from_official("violet", official("violet_retrieval")).violet)


def test_a_file_becomes_a_folder(tmp_path):
    torch.save(official("violet_qa_open"), tmp_path / "official.pt")
    answers = {i: f"answer {i}" for i in range(17)}
    convert_file(tmp_path / "official.pt", model_type="violet", output=tmp_path / "ours", id2label=answers)
    loaded = hf_video.VioletForQuestionAnswering.from_pretrained(tmp_path / "ours")
    assert loaded.config.id2label == answers
    processor = hf_video.VioletImageProcessor.from_pretrained(tmp_path / "ours")
    assert (processor.size, processor.do_center_crop, processor.num_frames) == ({"height": 224, "width": 224}, False, 5)


def test_what_does_not_fit():
    with pytest.raises(CheckpointError, match="No VIOLET checkpoint: enc_img"):
        hf_video.from_official("violet", {"fc.1.weight": torch.zeros(2, 2)})
    state = official("violet_retrieval")
    state["enc_img.more"] = state.pop("enc_img.norm.bias")
    with pytest.raises(
        CheckpointError, match=r"1 left over:\n  enc_img\.more\n.*1 missing:\n.*video_embeddings\.norm\.bias"
    ):
        hf_video.from_official("violet", state)
