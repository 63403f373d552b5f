"""VideoCLIP: against stock CLIP and SigLIP, every head, saving and loading, the loss over processes."""

from __future__ import annotations

import copy
import os

import forked
import pytest
import torch
import transformers
from contract import randomise
from tiny_text import tiny_bert, tiny_clip_text, tiny_clip_vision, tiny_tokenizer
from transformers import AutoModel, AutoProcessor

import hf_video
from hf_video.errors import ConfigError, ModelInputError, VideoOptionError
from hf_video.models.s3d import modeling_s3d
from hf_video.models.videoclip.configuration_videoclip import TEMPORAL, VideoCLIPConfig
from hf_video.models.videoclip.modeling_videoclip import VideoCLIPModel

TIMESFORMER = {
    "model_type": "timesformer",
    "image_size": 32,
    "patch_size": 16,
    "num_frames": 4,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
}


def tiny(temporal: str = "mean", layers: int = 2, **changes) -> VideoCLIPModel:
    towers = {"num_hidden_layers": layers}
    config = {"video_config": tiny_clip_vision(**towers), "text_config": tiny_clip_text(**towers), "projection_dim": 64}
    config |= {"temporal": temporal, "temporal_layers": 1, "max_position_embeddings": 16}
    return randomise(VideoCLIPModel(VideoCLIPConfig(**{**config, **changes})))


def with_timesformer(layers: int = 2, **changes) -> VideoCLIPModel:
    video = {**TIMESFORMER, "num_hidden_layers": layers}
    return tiny(video_config=video, text_config=tiny_bert(num_hidden_layers=layers), text_pooling="cls", **changes)


def inputs(pairs: int = 3, frames: int = 4, size: tuple[int, int] = (32, 32)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 50, (pairs, 7), generator=generator)
    ids[:, -1] = 59  # the end of the text
    video = torch.randn(pairs, frames, 3, *size, generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": video}


def facebooks(layers: int = 2) -> VideoCLIPModel:
    """VideoCLIP with an S3D-G that sees two frames at once."""
    s3d = {"model_type": "s3d", "stem_channels": 8, "projection_dim": 24, "num_frames": 2, "image_size": 32}
    bert = {"vocab_size": 60, "max_position_embeddings": 16}
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4}
    options = {"projection_dim": None, "normalize": False, "logit_scale_init_value": None, "loss": "softmax_sum"}
    options |= {
        "end_token_ids": (58, 59),
        "text_config": tiny_bert(num_hidden_layers=layers),
        "text_pooling": "mean_after_first",
        "temporal_config": bert | sizes,
    }
    return tiny("bert", video_config=s3d, segment_frames=2, max_segments=6, **options)


MODELS = {temporal: lambda t=temporal, **changes: tiny(t, **changes) for temporal in TEMPORAL if temporal != "bert"}
MODELS |= {"s3d-bert": facebooks, "3d-patches": lambda **changes: tiny("transformer", patch_frames=3, **changes)}
MODELS |= {"timesformer-bert": with_timesformer}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
class TestEveryKind:
    def test_saved_and_loaded(self, make, tmp_path):
        model, given = make(), inputs()
        model.save_pretrained(tmp_path)
        loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is VideoCLIPModel
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        with torch.no_grad():
            torch.testing.assert_close(loaded(**given).logits_per_text, model(**given).logits_per_text)

    def test_gradient_reaches_every_parameter(self, make):
        model = make().train()
        model(**inputs(), return_loss=True).loss.backward()
        missed = {n for n, p in model.named_parameters() if p.grad is None}
        # the pooler of a text tower that is pooled otherwise; the scale, which "tight" has no use for
        assert {n for n in missed if "pooler" not in n or n.startswith("temporal")} <= {"logit_scale"}

    def test_a_pair_does_not_depend_on_its_batch(self, make):
        model, given = make(), inputs()
        with torch.no_grad():
            whole = model(**given).logits_per_text
            alone = model(**{k: v[1:2] for k, v in given.items()}).logits_per_text
        torch.testing.assert_close(whole[1:2, 1:2], alone, atol=1e-5, rtol=0)

    def test_layer_groups_have_each_parameter_once(self, make):
        model = make()
        names = [name for group in model.layer_groups() for name in group]
        assert sorted(names) == sorted(n for n, _ in model.named_parameters())
        assert any("embeddings" in n for n in model.layer_groups()[0])

    def test_tuple_output(self, make):
        model, given = make(), inputs()
        output = model(**given)
        assert torch.equal(model(**given, return_dict=False)[0], output.logits_per_video)


COMPILED = ("lstm", "s3d-bert")  # by the default tests: a recurrent network, and convolutions under a transformer


@pytest.mark.no_cover
@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] * (k not in COMPILED)) for k in MODELS])
def test_compiles_whole(kind, monkeypatch):
    """Towers of one layer; of S3D's modules those with pooling before them, and the last."""
    mixed = modeling_s3d.MIXED
    monkeypatch.setattr(modeling_s3d, "MIXED", [*(module for module in mixed if module[0]), mixed[-1]])
    model, given = MODELS[kind](layers=1), inputs()
    # PyTorch calls recurrent networks in compiled graphs experimental
    with torch.no_grad(), torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(model, backend="eager", fullgraph=True)(**given)
        torch.testing.assert_close(compiled.logits_per_text, model(**given).logits_per_text)


class TestAgainstStock:
    def clip(self):
        config = transformers.CLIPConfig(
            text_config=tiny_clip_text(intermediate_size=256).to_dict(),
            vision_config=tiny_clip_vision().to_dict(),
            projection_dim=64,
        )
        return randomise(transformers.CLIPModel(config))

    def siglip(self):
        text = {"vocab_size": 60, "max_position_embeddings": 16, "projection_size": 48}
        sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        vision = {"image_size": 32, "patch_size": 16}
        return randomise(
            transformers.SiglipModel(
                transformers.SiglipConfig(text_config={**sizes, **text}, vision_config={**sizes, **vision})
            )
        )

    @pytest.mark.parametrize("kind", ["clip", "siglip"])
    def test_frames_averaged_by_hand(self, kind, tmp_path):
        """Acceptance: mean pooling is stock's model on the frames, averaged by hand."""
        stock, given = getattr(self, kind)(), inputs()
        model = VideoCLIPModel.from_clip(stock)
        with torch.no_grad():
            frames = given["pixel_values"].flatten(0, 1)
            out = stock(input_ids=given["input_ids"], pixel_values=frames)
            mean = out.image_embeds.view(3, 4, -1).mean(1)
            mean = mean / mean.norm(dim=-1, keepdim=True)
            expected = out.text_embeds @ mean.t() * stock.logit_scale.exp()
            expected = expected + stock.logit_bias if kind == "siglip" else expected
            ours = model(given["input_ids"], pixel_values=given["pixel_values"])
        torch.testing.assert_close(ours.logits_per_text, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.video_embeds, mean, atol=1e-5, rtol=0)
        stock.save_pretrained(tmp_path)
        again = VideoCLIPModel.from_clip(tmp_path)
        assert torch.equal(again(**given).logits_per_text, model(**given).logits_per_text)

    @pytest.mark.parametrize("kind", ["clip", "siglip"])
    def test_loss_of_single_frames_is_stocks(self, kind):
        stock, given = getattr(self, kind)(), inputs(frames=1)
        model = VideoCLIPModel.from_clip(stock)
        with torch.no_grad():
            expected = stock(given["input_ids"], pixel_values=given["pixel_values"][:, 0], return_loss=True).loss
            torch.testing.assert_close(model(**given, return_loss=True).loss, expected, atol=1e-5, rtol=1e-5)

    def test_new_heads_start_as_clip4clip_does(self):
        stock = self.clip()
        model = VideoCLIPModel.from_clip(stock, temporal="transformer", temporal_layers=2)
        theirs = stock.text_model.encoder.layers[1].mlp.fc1.weight
        assert torch.equal(model.temporal_head.sequence.encoder.layers[1].mlp.fc1.weight, theirs)
        three = VideoCLIPModel.from_clip(stock, patch_frames=3)  # neighbours start at zero: the image model's patches
        given = inputs()
        plain = VideoCLIPModel.from_clip(stock)(**given).logits_per_text
        torch.testing.assert_close(three(**given).logits_per_text, plain, atol=1e-5, rtol=0)

    def test_no_image_text_model(self):
        with pytest.raises(ModelInputError, match="CLIP, SigLIP"):
            VideoCLIPModel.from_clip(transformers.BertModel(tiny_bert()))


class TestMasksAndSizes:
    @pytest.mark.parametrize("temporal", ["mean", "lstm", "transformer", "tight"])
    def test_padding_changes_nothing(self, temporal):
        model, given = tiny(temporal), inputs()
        mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
        with torch.no_grad():
            padded = model(**given, video_mask=mask).logits_per_text
            short = {**given, "pixel_values": given["pixel_values"][1:2, :2], "input_ids": given["input_ids"][1:2]}
            short["attention_mask"] = given["attention_mask"][1:2]
            torch.testing.assert_close(padded[1:2, 1:2], model(**short).logits_per_text, atol=1e-5, rtol=0)
            garbage = given["pixel_values"].clone()
            garbage[1, 2:] = 1e3
            noisy = model(**{**given, "pixel_values": garbage}, video_mask=mask).logits_per_text
        torch.testing.assert_close(padded, noisy, atol=1e-5, rtol=0)

    def test_other_sizes_and_lengths(self):
        model = tiny("transformer")
        assert model(**inputs(frames=7, size=(48, 64))).logits_per_text.shape == (3, 3)
        with pytest.raises(ModelInputError, match="20 frames"):
            model(**inputs(frames=20))

    def test_order_of_frames_matters_where_it_should(self):
        given = inputs()
        backwards = {**given, "pixel_values": given["pixel_values"].flip(1)}
        for temporal, same in (("mean", True), ("lstm", False), ("transformer", False)):
            model = tiny(temporal)
            a, b = model(**given).logits_per_text, model(**backwards).logits_per_text
            assert torch.allclose(a, b, atol=1e-5) is same, temporal

    def test_bf16(self):
        model, given = tiny("transformer"), inputs()
        exact = model(**given).video_embeds
        low = copy.deepcopy(model).bfloat16()
        given["pixel_values"] = given["pixel_values"].bfloat16()
        assert (low(**given).video_embeds.float() * exact).sum(-1).min() > 0.99

    @pytest.mark.no_cover
    def test_export_with_dynamic_batch(self):
        model, given = tiny("transformer"), inputs()
        batch = torch.export.Dim("batch", min=2, max=64)
        shapes = {name: {0: batch} for name in given}
        program = torch.export.export(model, (), given, dynamic_shapes=shapes)
        more = inputs(5)
        exported = program.module()(**more)
        torch.testing.assert_close(exported["logits_per_text"], model(**more).logits_per_text, atol=1e-5, rtol=0)


class TestErrors:
    def test_configuration(self):
        with pytest.raises(ConfigError, match="temporal='max'"):
            tiny("max")
        with pytest.raises(ConfigError, match="whole clips"):
            with_timesformer(temporal="lstm")
        with pytest.raises(ConfigError, match="does not know"):
            tiny(video_config={"model_type": "resnext"})
        with pytest.raises(ConfigError, match="projection_dim"):
            tiny(projektion_dim=3)

    def test_inputs(self):
        model, given = tiny(), inputs()
        with pytest.raises(ModelInputError, match="input_ids is missing"):
            model(pixel_values=given["pixel_values"])
        with pytest.raises(ModelInputError, match="video_mask has shape"):
            model(**given, video_mask=torch.ones(3, 5))
        with pytest.raises(ModelInputError, match="text i is that of video i"):
            model(**{**given, "input_ids": given["input_ids"][:2], "attention_mask": None}, return_loss=True)
        with pytest.raises(ModelInputError, match="knows no padding"):
            with_timesformer()(**given, video_mask=torch.zeros(3, 4))


def test_temperature_is_clamped_in_training_only():
    model, given = tiny(), inputs()
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    model(**given)
    assert model.logit_scale.item() == 9.0
    model.train()(**given)
    assert model.logit_scale.item() == pytest.approx(4.6052)


class TestProcessor:
    def test_round_trip(self, tmp_path):
        images = hf_video.VideoCLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, num_frames=4
        )
        processor = hf_video.VideoCLIPProcessor(images, tiny_tokenizer())
        clip = torch.randint(0, 255, (9, 40, 50, 3), dtype=torch.uint8).numpy()
        made = processor(text=["a ring moving left", "a disc"], videos=[clip, clip], do_sample_frames=True)
        assert set(made) >= {"input_ids", "attention_mask", "pixel_values"}
        assert made["pixel_values"].shape == (2, 4, 3, 32, 32)
        assert made["input_ids"].shape == (2, 6)
        given = {k: made[k] for k in ("input_ids", "attention_mask", "pixel_values")}
        assert tiny()(**given).logits_per_video.shape == (2, 2)
        tiny().save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        loaded = AutoProcessor.from_pretrained(tmp_path)
        assert type(loaded).__name__ == "VideoCLIPProcessor"
        again = loaded(text="a ring moving left", videos=clip, do_sample_frames=True)
        torch.testing.assert_close(again["pixel_values"], made["pixel_values"][:1])
        with pytest.raises(VideoOptionError, match="Neither"):
            processor()


def _joint_step(rank: int, folder: str, temporal: str, loss: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = tiny(temporal, loss=loss)
    parallel = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=temporal == "tight")
    own = {name: value[2 * rank : 2 * rank + 2] for name, value in inputs(4).items()}
    step = parallel(**own, return_loss=True).loss
    step.backward()
    if rank == 0:
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        torch.save({"loss": step.detach(), "gradients": gradients}, f"{folder}/joint.pt")
    torch.distributed.barrier()
    # Not by way of destructors: the reducer's waits, holding the GIL, for gloo's thread, which at times wants the GIL.
    os._exit(0)


SLOW = [pytest.param(*kind, marks=pytest.mark.slow) for kind in (("tight", "softmax"), ("mean", "sigmoid"))]


@pytest.mark.parametrize(("temporal", "loss"), [("transformer", "softmax"), *SLOW])
def test_two_processes_are_one_joint_batch(tmp_path, temporal, loss):
    """Loss and gradients, as acceptance 4 of video-text training asks."""
    model = tiny(temporal, loss=loss)
    alone = model(**inputs(4), return_loss=True).loss
    alone.backward()
    forked.spawn(_joint_step, str(tmp_path), temporal, loss)
    joint = torch.load(tmp_path / "joint.pt", weights_only=True)
    torch.testing.assert_close(joint["loss"], alone.detach(), atol=1e-5, rtol=0)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(joint["gradients"][name], parameter.grad, atol=1e-5, rtol=1e-5, msg=name)
