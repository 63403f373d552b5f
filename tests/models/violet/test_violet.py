"""VIOLET's classes: saving and loading, gradients, masks, sizes, precision, graphs, errors, processor."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny_violet import TOKENIZER, pairs, tiny, tiny_config
from transformers import AutoModel, AutoModelForPreTraining, AutoProcessor, BertConfig, BertModel

import hf_video
from hf_video.errors import ConfigError, ModelInputError, VideoOptionError
from hf_video.models.violet.modeling_violet import (
    VioletForMultipleChoice,
    VioletForPreTraining,
    VioletForQuestionAnswering,
    VioletForVideoTextRetrieval,
    VioletModel,
)

HEADS = (
    VioletForMultipleChoice,
    VioletForPreTraining,
    VioletForQuestionAnswering,
    VioletForVideoTextRetrieval,
)


def inputs(cls, count: int = 3, **clip) -> dict[str, torch.Tensor]:
    """What gives an output and a loss."""
    given = pairs(count, **clip)
    if cls is VioletForMultipleChoice:
        for name in ("input_ids", "attention_mask"):
            given[name] = torch.stack([given[name], given[name].roll(1, 0)], dim=1)
    if cls in (VioletForMultipleChoice, VioletForQuestionAnswering):
        given["labels"] = torch.arange(count) % 2
    if cls is VioletForVideoTextRetrieval:
        given["return_loss"] = True
    if cls is VioletForPreTraining:
        rows, columns = (n // 8 for n in given["pixel_values"].shape[-2:])
        places = torch.arange(count * given["pixel_values"].shape[1] * rows * columns)
        given["mvm_labels"] = (places % 32).view(count, -1, rows, columns)
        given["mtm_labels"] = torch.where(given["attention_mask"] > 0, given["input_ids"], -100)
        given["negatives"] = (torch.arange(count)[:, None] + torch.arange(1, count)) % count
    return given


def main_output(output) -> torch.Tensor:
    for name in ("logits", "logits_per_video", "mvm_logits", "last_hidden_state"):
        if name in output:
            return output[name]
    raise AssertionError(list(output))


def alone(given: dict, row: int) -> dict:
    """The inputs of one sample; it has no other rows to be matched with."""
    one = {k: v[row : row + 1] if torch.is_tensor(v) else v for k, v in given.items()}
    return {k: v[:, :0] if k == "negatives" else v for k, v in one.items()}


@pytest.mark.parametrize("cls", [VioletModel, *HEADS])
class TestEveryClass:
    def given(self, cls, **more):
        return pairs(**more) if cls is VioletModel else inputs(cls, **more)

    def test_saved_and_loaded(self, cls, tmp_path):
        model, given = tiny(cls), self.given(cls)
        model.save_pretrained(tmp_path)
        assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}
        loaded, report = cls.from_pretrained(tmp_path, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert loaded.config.to_dict() == cls.from_pretrained(tmp_path).config.to_dict()
        with torch.no_grad():
            torch.testing.assert_close(main_output(loaded(**given)), main_output(model(**given)), atol=1e-6, rtol=0)

    def test_gradient_reaches_every_parameter(self, cls):
        model, given = tiny(cls).train(), self.given(cls)
        output = model(**given)
        (output.last_hidden_state.sum() if cls is VioletModel else output.loss).backward()
        missed = {n for n, p in model.named_parameters() if p.grad is None}
        assert not missed

    def test_batch_is_samples_one_by_one(self, cls):
        model, given = tiny(cls), self.given(cls)
        with torch.no_grad():
            whole = main_output(model(**given))
            for i in range(3):
                part = main_output(model(**alone(given, i)))
                expected = whole[i : i + 1, i : i + 1] if cls is VioletForVideoTextRetrieval else whole[i : i + 1]
                torch.testing.assert_close(part, expected, atol=1e-5, rtol=0)

    def test_padding_changes_nothing(self, cls):
        model, given = tiny(cls), self.given(cls)
        with torch.no_grad():
            expected = main_output(model(**given))
            noisy = torch.where(given["attention_mask"] > 0, given["input_ids"], 9)
            found = main_output(model(**{**given, "input_ids": noisy}))
        if cls is VioletModel:  # states of the padding itself are nobody's
            found, expected = found[:, :69], expected[:, :69]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

    def test_other_sizes(self, cls):
        model = tiny(cls)
        for clip in ({"frames": 1}, {"frames": 6, "size": (16, 40)}):
            assert torch.isfinite(main_output(model(**self.given(cls, **clip)))).all()

    def test_bf16(self, cls):
        model, given = tiny(cls), self.given(cls)
        with torch.no_grad():
            exact = main_output(model(**given))
            output = copy.deepcopy(model).bfloat16()(**{**given, "pixel_values": given["pixel_values"].bfloat16()})
        low = main_output(output)
        assert low.dtype == torch.bfloat16
        assert (low.float() - exact).norm() / exact.norm() < 0.05
        if cls is not VioletModel:
            assert output.loss.dtype == torch.float32

    def test_tuple_output(self, cls):
        model, given = tiny(cls), self.given(cls)
        assert torch.equal(model(**given, return_dict=False)[0], model(**given)[0])

    def test_gradient_checkpointing(self, cls):
        model, given = tiny(cls).train(), self.given(cls)
        gradients = []
        for _ in range(2):
            model.zero_grad()
            output = model(**given)
            (output.last_hidden_state.square().mean() if cls is VioletModel else output.loss).backward()
            gradients.append([p.grad.clone() for p in model.parameters()])
            model.gradient_checkpointing_enable()
        for plain, again in zip(*gradients, strict=True):
            torch.testing.assert_close(plain, again, atol=1e-5, rtol=1e-4)

    def test_layer_groups_have_each_parameter_once(self, cls):
        model = tiny(cls)
        groups = model.layer_groups()
        assert sorted(n for group in groups for n in group) == sorted(n for n, _ in model.named_parameters())
        assert len(groups) == 1 + 4 + 2 + 1
        assert all(groups if cls is not VioletModel else groups[:-1])
        assert any("word_embeddings" in n for n in groups[0])
        assert all("bert.encoder.layer.1" in n for n in groups[6])

    def test_wrong_inputs(self, cls):
        model, given = tiny(cls), self.given(cls)
        video, ids = given["pixel_values"], given["input_ids"]
        for changes, message in (
            ({"pixel_values": None}, "pixel_values is missing"),
            ({"pixel_values": video[0]}, "five dimensions"),
            ({"pixel_values": video[..., :30]}, "multiples"),
            ({"pixel_values": video.repeat(1, 2, 1, 1, 1)}, "8 frames"),
            ({"pixel_values": video.repeat(1, 1, 1, 2, 2)}, "64 patches"),
            ({"input_ids": None}, "input_ids is missing"),
            ({"input_ids": ids[0]}, "expected integers"),
            ({"input_ids": ids.repeat_interleave(3, -1), "attention_mask": None}, "21 tokens"),
            ({"attention_mask": given["attention_mask"][..., :-1]}, "must be equal"),
            ({"pixel_values": video[:2]}, "2 videos"),
        ):
            with pytest.raises(ModelInputError, match=message):
                model(**{**given, **changes})


SLOW = [VioletModel, VioletForMultipleChoice, VioletForQuestionAnswering, VioletForVideoTextRetrieval]


@pytest.mark.no_cover
@pytest.mark.parametrize("cls", [VioletForPreTraining, *(pytest.param(c, marks=pytest.mark.slow) for c in SLOW)])
def test_compiles_whole(cls):
    model, given = tiny(cls), pairs() if cls is VioletModel else inputs(cls)
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)(**given)
        torch.testing.assert_close(main_output(compiled), main_output(model(**given)), atol=1e-5, rtol=0)


class TestTrunk:
    def test_eager_equals_sdpa(self):
        model, given, found = tiny(VioletModel), pairs(), []
        for name in ("eager", "sdpa"):
            model.set_attn_implementation(name)
            output = model(**given, output_attentions=True)
            found.append((output.last_hidden_state, *output.attentions))
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, atol=3e-6, rtol=0)

    def test_attentions_are_berts(self):
        """Probabilities worked out beside the layers are those that transformers' BERT reports; nothing is given to
        padding."""
        model, given = tiny(VioletModel), pairs()
        model.set_attn_implementation("eager")
        seen = []
        layers = model.bert.encoder.layer
        hooks = [m.attention.self.register_forward_hook(lambda _, __, out: seen.append(out[1])) for m in layers]
        output = model(**given, output_attentions=True, output_hidden_states=True)
        for hook in hooks:
            hook.remove()
        assert len(output.attentions) == 2
        assert len(output.hidden_states) == 3
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
        for ours, theirs in zip(output.attentions, seen, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
            padding = torch.cat([torch.zeros(3, 68), 1 - given["attention_mask"]], dim=1).bool()
            assert ours.transpose(1, 3)[padding].max() == 0

    def test_features_are_of_the_video_alone(self):
        model, video = tiny(VioletForVideoTextRetrieval), pairs()["pixel_values"]
        features = model.get_video_features(video)
        assert features.feature_map.shape == (3, 4, 4, 4, 16)
        torch.testing.assert_close(features.embedding, features.feature_map.mean((1, 2, 3)))
        tokens = model.embed_video(video).unflatten(1, (4, 17))[:, :, 1:]
        assert torch.equal(features.feature_map.flatten(2, 3), tokens)

    def test_order_of_frames_matters(self):
        model, given = tiny(VioletModel), pairs()
        backwards = model(**{**given, "pixel_values": given["pixel_values"].flip(1)})
        assert (backwards.text_cls - model(**given).text_cls).abs().max() > 1e-3

    def test_auto_classes(self, tmp_path):
        tiny(VioletForPreTraining).save_pretrained(tmp_path)
        assert type(AutoModel.from_pretrained(tmp_path)) is VioletModel
        assert type(AutoModelForPreTraining.from_pretrained(tmp_path)) is VioletForPreTraining

    def test_starts_from_berts_weights(self):
        """`bert` is transformers' own module: weights of a BERT go in as they are."""
        model = tiny(VioletModel)
        bert = BertModel(BertConfig(**model.config.text_config.to_dict()), add_pooling_layer=False)
        assert not any(model.bert.load_state_dict(bert.state_dict()))

    def test_pretrained_matching_goes_on(self, tmp_path):
        """The matching head of pretraining is that of retrieval and multiple choice; answers have their own."""
        model = tiny(VioletForPreTraining)
        model.save_pretrained(tmp_path)
        for cls in (VioletForVideoTextRetrieval, VioletForMultipleChoice):
            loaded, report = cls.from_pretrained(tmp_path, output_loading_info=True)
            assert not report["missing_keys"]
            assert torch.equal(loaded.matching_head.out.weight, model.matching_head.out.weight)
        _, report = VioletForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
        assert {n.split(".")[0] for n in report["missing_keys"]} == {"classifier"}

    def test_no_weight_decay(self):
        names = tiny(VioletForQuestionAnswering).no_weight_decay()
        for end in ("frame_token", "video_embeddings.position_embeddings", "relative_position_bias_table", "out.bias"):
            assert any(n.endswith(end) for n in names), end
        assert not any(n.endswith("dense.weight") for n in names)


class TestHeads:
    def test_score_is_the_sigmoid_of_the_pair(self):
        model, given = tiny(VioletForVideoTextRetrieval), pairs()
        logits = model(**given).logits_per_video
        video, text = model.embed_video(given["pixel_values"]), model.embed_text(given["input_ids"])
        for i, j in ((0, 0), (1, 2), (2, 1)):
            score = model.score(video[[i]], text[[j]], given["attention_mask"][[j]])
            torch.testing.assert_close(score[0], (logits[i, j] * 0.05).sigmoid(), atol=1e-6, rtol=0)

    @pytest.mark.parametrize("loss", ["both", "video"])
    def test_retrieval_loss_by_hand(self, loss):
        model, given = tiny(VioletForVideoTextRetrieval, retrieval_loss=loss), pairs()
        output = model(**given, return_loss=True)
        of_video, of_text = (-output.logits_per_video.log_softmax(side).diagonal().mean() for side in (1, 0))
        torch.testing.assert_close(output.loss, (of_video + of_text) / 2 if loss == "both" else of_video)
        torch.testing.assert_close(output.logits_per_text, output.logits_per_video.t())
        more = model(given["input_ids"], given["attention_mask"], given["pixel_values"][:2])
        torch.testing.assert_close(more.logits_per_video, output.logits_per_video[:2], atol=1e-5, rtol=0)

    def test_a_choice_is_a_matching_score(self):
        choice, retrieval = (tiny(cls) for cls in (VioletForMultipleChoice, VioletForVideoTextRetrieval))
        given = inputs(VioletForMultipleChoice)
        retrieval.load_state_dict(choice.state_dict())
        logits = choice(**given).logits
        found = retrieval(given["input_ids"][1], given["attention_mask"][1], given["pixel_values"][1:2])
        torch.testing.assert_close(logits[1:2], found.logits_per_video * 0.05, atol=1e-5, rtol=0)

    def test_answers_are_named_and_unknown_ones_left_out(self):
        model, given = tiny(VioletForQuestionAnswering, num_labels=3), pairs()
        loss = model(**given, labels=torch.tensor([0, -100, 2])).loss
        logits = model(**given).logits
        expected = torch.nn.functional.cross_entropy(logits[[0, 2]], torch.tensor([0, 2]))
        torch.testing.assert_close(loss, expected)
        with pytest.raises(ModelInputError, match="labels holds 3"):
            model(**given, labels=torch.tensor([0, 3, 2]))


class TestConfig:
    def test_default_is_the_papers(self):
        config = hf_video.VioletConfig()
        assert (config.video_config.depths, config.hidden_size, config.patch) == ((2, 2, 18, 2), 768, (32, 32))
        with torch.device("meta"):
            assert sum(p.numel() for p in hf_video.VioletModel(config).parameters()) == 158_558_934
            assert sum(p.numel() for p in hf_video.VioletForPreTraining(config).parameters()) == 197_577_489

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"video_config": {"temporal_stride": None}}, "temporal_stride"),
            ({"text_config": {"hidden_size": 60}}, "must be equal"),
            ({"max_framse": 3}, "max_frames"),
            ({"matching_temperature": 0.0}, "above 0"),
            ({"retrieval_loss": "text"}, "'both', 'video'"),
            ({"mask_probability": 1.0}, "above 0 and below 1"),
            ({"text_config": {"vocab_size": 50}}, "mask_token_id=103"),
            ({"num_channels": 4}, "num_channels=4"),
        ],
    )
    def test_refused(self, changes, message):
        video = {**hf_video.VioletConfig().video_config.to_dict(), **changes.pop("video_config", {})}
        with pytest.raises(ConfigError, match=message):
            hf_video.VioletConfig(video_config=video, **changes)


class TestProcessor:
    def processor(self):
        images = hf_video.VioletImageProcessor(size={"height": 32, "width": 32}, num_frames=4)
        return hf_video.VioletProcessor(images, TOKENIZER)

    def test_round_trip(self, tmp_path):
        processor, clip = self.processor(), np.random.default_rng(0).integers(0, 255, (9, 40, 51, 3), dtype=np.uint8)
        made = processor(text=["a ring moving left", "a disc"], videos=[clip, clip], do_sample_frames=True)
        assert made["pixel_values"].shape == (2, 4, 3, 32, 32)
        given = {k: made[k] for k in ("input_ids", "attention_mask", "pixel_values")}
        assert tiny(VioletForVideoTextRetrieval)(**given).logits_per_video.shape == (2, 2)
        processor.save_pretrained(tmp_path)
        tiny(VioletModel).save_pretrained(tmp_path)
        loaded = AutoProcessor.from_pretrained(tmp_path)
        assert type(loaded).__name__ == "VioletProcessor"
        again = loaded(text="a ring moving left", videos=clip, do_sample_frames=True)
        torch.testing.assert_close(again["pixel_values"], made["pixel_values"][:1])

    def test_options(self):
        processor, clip = self.processor(), np.zeros((2, 4, 32, 32, 3), dtype=np.uint8)
        made = processor(text=[["what moves ring", "what moves a disc", "x"], ["a", "b", "c"]], videos=clip)
        assert made["input_ids"].shape == made["attention_mask"].shape == (2, 3, 6)
        flat = TOKENIZER("what moves a disc")["input_ids"]
        assert made["input_ids"][0, 1].tolist() == flat
        with pytest.raises(VideoOptionError, match="one number"):
            processor(text=[["a", "b"], ["c"]], videos=clip)

    @pytest.mark.parametrize("shape", [(40, 60), (60, 40), (41, 60), (50, 50)])
    def test_frames_as_the_authors(self, shape):
        """Against PIL: ⌊difference / 2⌋ black rows on both sides, then 32 × 32, no crop. A level of rounding."""
        from PIL import Image, ImageOps

        height, width = shape
        frame = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
        border = (0, (width - height) // 2) if width > height else ((height - width) // 2, 0)
        picture = ImageOps.expand(Image.fromarray(frame), border).resize((32, 32), Image.Resampling.BILINEAR)
        expected = np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / 255
        made = self.processor().image_processor(frame[None], return_tensors="pt")["pixel_values"][0, 0]
        mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        assert (made * std + mean - torch.from_numpy(expected)).abs().max() < 1.01 / 255

    def test_a_file_is_as_its_frames(self, tmp_path):
        from hf_video.video import VideoReader, write_video

        frames = np.random.default_rng(0).integers(0, 255, (8, 48, 64, 3), dtype=np.uint8)
        path = write_video(tmp_path / "a.mkv", frames, 8, "ffv1")
        processor = self.processor().image_processor
        with VideoReader(path) as reader:
            decoded = reader.get_frames(range(8)).data
        expected = processor(decoded, num_frames=4, return_tensors="pt")["pixel_values"]
        assert torch.equal(processor(path, return_tensors="pt")["pixel_values"], expected)


def test_config_is_read_back():
    config = tiny_config()
    assert type(config)(**config.to_dict()).to_dict() == config.to_dict()
