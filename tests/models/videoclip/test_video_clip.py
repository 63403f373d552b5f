"""One call from an image-text checkpoint to model and processor: each half against the stock one, files old and new."""

from __future__ import annotations

import contextlib
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from contract import randomise
from PIL import Image
from tiny_text import tiny_clip_text, tiny_clip_vision, tiny_tokenizer
from transformers import (
    AutoImageProcessor,
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
    pipeline,
)

import hf_video
from hf_video.base.loading import check_pair
from hf_video.errors import CheckpointError

TEXTS = ["a ring moving left", "a square"]
OLD = {"feature_extractor_type": "CLIPFeatureExtractor", "do_resize": True, "resample": 3, "do_center_crop": True}
OLD |= {"do_normalize": True, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
NEW = {"image_processor_type": "CLIPImageProcessor", "do_resize": True, "resample": 3, "do_center_crop": True}
NEW |= {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_convert_rgb": True}
NEW |= {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
SIGLIP = {"image_processor_type": "SiglipImageProcessor", "do_resize": True, "resample": 3, "do_normalize": True}
SIGLIP |= {"do_rescale": True, "rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def pixels_of(kind: str, side: int) -> dict:
    if kind == "old":
        return {**OLD, "size": side, "crop_size": side}
    if kind == "siglip":
        return {**SIGLIP, "size": {"height": side, "width": side}}
    return {**NEW, "size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A function (kind, pixels) to a folder with a stock model, its tokenizer and its preprocessor file."""

    def made(kind: str, side: int):
        folder = tmp_path_factory.mktemp(f"{kind}{side}")
        tokenizer = tiny_tokenizer(max_length=9)
        if kind == "siglip":
            # As in SigLIP's files: no mask, padding is read like words.
            tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = ["input_ids"]
            sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
            text = {**sizes, "vocab_size": len(tokenizer), "max_position_embeddings": 9, "projection_size": 48}
            stock = SiglipModel(
                SiglipConfig(text_config=text, vision_config={**sizes, "image_size": side, "patch_size": 8})
            )
        else:
            vision, text = tiny_clip_vision(image_size=side, patch_size=8), tiny_clip_text(len(tokenizer))
            stock = CLIPModel(CLIPConfig(vision_config=vision.to_dict(), text_config=text.to_dict(), projection_dim=64))
        randomise(stock).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(pixels_of(kind, side)))
        return folder, stock, tokenizer

    return made


def frame(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "side"), [("new", 32), ("new", 48), ("old", 40), ("siglip", 32), ("siglip", 24)])
def test_scores_are_the_checkpoints_own(checkpoint, kind, side, tmp_path):
    """A video of one frame is that picture, to the rounding of a resized pixel."""
    folder, stock, tokenizer = checkpoint(kind, side)
    model, processor = hf_video.video_clip(folder, num_frames=3)
    images = AutoImageProcessor.from_pretrained(folder)
    spread = min(processor.image_processor.image_std)
    for picture in (frame(60, 90), frame(70, 50)):
        theirs = images(Image.fromarray(picture), return_tensors="pt").pixel_values
        ours = processor(videos=[[Image.fromarray(picture)]])["pixel_values"][0]
        level = 1 / 255 / spread  # noise by bicubic resizing: one level mostly, more where it overshoots
        assert (ours - theirs).abs().mean() <= level
        assert (ours - theirs).abs().max() <= 4.01 * level
    exact = Image.fromarray(frame(side, side))
    padded = tokenizer(TEXTS, padding="max_length" if kind == "siglip" else True, return_tensors="pt")
    padded.pop("token_type_ids", None)
    expected = stock(pixel_values=images(exact, return_tensors="pt").pixel_values, **padded)
    inputs = processor(text=TEXTS, videos=[[exact]])
    inputs.pop("token_type_ids", None)
    assert torch.equal(inputs["input_ids"], padded["input_ids"])
    torch.testing.assert_close(model(**inputs).logits_per_text, expected.logits_per_text, atol=1e-4, rtol=1e-4)

    for part in (model, processor):
        part.save_pretrained(tmp_path)
    again, reloaded = hf_video.video_clip(tmp_path)
    assert reloaded.text_padding == processor.text_padding == ("max_length" if kind == "siglip" else True)
    both = reloaded(text=TEXTS, videos=[[exact]])
    both.pop("token_type_ids", None)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, both[name]) for name, value in inputs.items())
    # Not bit for bit: where weights lie in memory decides which kernel some processors take.
    torch.testing.assert_close(again(**both).logits_per_text, model(**inputs).logits_per_text, atol=1e-6, rtol=1e-5)
    label = pipeline("zero-shot-video-classification", model=str(tmp_path), device="cpu")
    rows = label(np.stack([frame(side, side)] * 3), candidate_labels=TEXTS, hypothesis_template="{}")
    scores = model(**inputs).logits_per_video[0]
    found = {row["label"]: row["score"] for row in rows}
    order = sorted(TEXTS, key=lambda text: -scores[TEXTS.index(text)])
    assert sorted(TEXTS, key=lambda text: -found[text]) == order


def test_what_a_checkpoint_lacks_is_said(checkpoint):
    folder, _, _ = checkpoint("new", 32)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json.*VideoCLIPImageProcessor"):
        hf_video.video_clip(folder)


class TestPairs:
    """A model beside a processor that was made for another."""

    @pytest.fixture(autouse=True)
    def logged(self, caplog):
        logging.getLogger("transformers").propagate = True
        hf_video.base.loading.logger.warning_once.cache_clear()
        caplog.set_level(logging.WARNING)
        self.log = caplog

    @pytest.fixture
    def model(self, checkpoint):
        return hf_video.video_clip(checkpoint("siglip", 32)[0], num_frames=3)[0]

    def test_its_own_is_fine(self, checkpoint):
        for kind in ("new", "old", "siglip"):
            check_pair(*hf_video.video_clip(checkpoint(kind, 32)[0]))
        assert "preprocessor_config.json" not in self.log.text

    def test_another_size_number_and_statistics_are_named(self, model):
        check_pair(model, hf_video.VideoCLIPImageProcessor())
        for text in ("32x32", "224x224", "num_frames=3", "num_frames=12", "image_mean=[0.5, 0.5, 0.5]", "image_std"):
            assert text in self.log.text
        assert self.log.text.count("(config.json)") == self.log.text.count("(preprocessor_config.json)") == 4

    def test_frames_that_were_asked_for_are_no_disagreement(self, model):
        small = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
        half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        check_pair(model, hf_video.VideoCLIPImageProcessor(**small, **half), num_frames=5)
        assert "preprocessor_config.json" not in self.log.text

    def test_what_cannot_be_taken_is_refused(self):
        small = {"image_size": 32, "patch_size": 8, "num_frames": 4, "hidden_size": 16, "num_attention_heads": 2}
        small |= {"num_hidden_layers": 1, "intermediate_size": 16}
        mae = hf_video.VideoMAEForVideoClassification(hf_video.VideoMAEConfig(**small))
        with pytest.raises(CheckpointError, match=r"VideoMAEImageProcessor.*can't take.*8x8"):
            check_pair(mae, hf_video.VideoMAEImageProcessor(crop_size={"height": 33, "width": 33}))
        with pytest.raises(CheckpointError, match="5 frames"):
            check_pair(mae, hf_video.VideoMAEImageProcessor(crop_size={"height": 32, "width": 32}, num_frames=5))
        flow = hf_video.I3DModel(hf_video.I3DConfig(stem_channels=8, num_channels=2, num_frames=10, image_size=40))
        with pytest.raises(CheckpointError, match="2 channels"):
            check_pair(flow, hf_video.I3DImageProcessor())

    def test_every_way_in_asks(self, checkpoint, tmp_path):
        from hf_video.evaluation.classification import evaluate_videos
        from hf_video.features.extraction import extract_features
        from hf_video.training.runs.video_text import load_pair

        folder, _, tokenizer = checkpoint("new", 32)
        model, _ = hf_video.video_clip(folder, num_frames=3)
        wrong = hf_video.VideoCLIPProcessor(hf_video.VideoCLIPImageProcessor(num_frames=3), tokenizer)
        task = hf_video.ZeroShotVideoClassificationPipeline
        ways = (
            lambda: task(model=model, processor=wrong, tokenizer=tokenizer, image_processor=wrong.image_processor),
            lambda: extract_features(model, wrong.image_processor, []),
            lambda: load_pair(model, wrong, {"data": {}, "model": {}}),
            lambda: evaluate_videos(model, wrong.image_processor, SimpleNamespace(multi_label=True), protocol="1x1"),
        )
        for way in ways:
            hf_video.base.loading.logger.warning_once.cache_clear()
            self.log.clear()
            with contextlib.suppress(Exception):  # what comes after the check is not asked here
                way()
            assert "224x224" in self.log.text, way


@pytest.mark.parametrize("model_type", [name for name in hf_video.MODELS if name not in ("s3d", "violet", "videoclip")])
def test_defaults_of_every_model_fit_together(model_type, caplog):
    logging.getLogger("transformers").propagate = True
    row = hf_video.MODELS[model_type]
    config = row.load(row.config)()
    with torch.device("meta"):
        model = row.load(row.auto["AutoModel"])(config)
    check_pair(model, row.load(row.image_processor)())
    check_pair(model, row.load(row.video_processor)())
    assert not caplog.text
