"""X-CLIP for other frame counts than the configuration's; with its own it is transformers' model to the last bit."""

from __future__ import annotations

import warnings

import pytest
import torch
import transformers
from contract import assert_close
from stock_models import save_video_text, stock

from hf_video.errors import ModelInputError, VideoOptionError
from hf_video.models.xclip import modeling_xclip
from hf_video.models.xclip.modeling_xclip import XCLIPModel

TEXT = {"input_ids": torch.tensor([[5, 6, 2], [7, 2, 2], [8, 9, 2]]), "attention_mask": torch.ones(3, 3).long()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_video_text(tmp_path_factory.mktemp("xclip"), "xclip")  # for 4 frames


@pytest.fixture(scope="module")
def model(folder):
    return transformers.AutoModel.from_pretrained(folder).eval()


@pytest.fixture
def told(monkeypatch):
    found = []
    monkeypatch.setattr(modeling_xclip, "warn_of_frames", lambda *frames: found.append(frames))
    return found


def clips(frames: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, frames, 3, 16, 16, generator=torch.Generator().manual_seed(frames))


@torch.no_grad()
def test_with_its_own_frames_it_is_stock(folder, model, told):
    assert type(model) is XCLIPModel
    theirs = stock("XCLIPModel").from_pretrained(folder).eval()
    names = ("logits_per_video", "text_embeds", "video_embeds")
    options = {"output_hidden_states": True, "output_attentions": True}
    ours, expected = (one(pixel_values=clips(4), **TEXT, **options) for one in (model, theirs))
    assert list(ours) == list(expected)
    assert_close([ours[name] for name in names], [expected[name] for name in names], atol=0)
    for part in ("vision_model_output", "text_model_output", "mit_output"):
        assert list(ours[part]) == list(expected[part])
    assert_close(ours.vision_model_output.hidden_states, expected.vision_model_output.hidden_states, atol=0)
    features = [one.get_video_features(clips(4)).pooler_output for one in (model, theirs)]
    assert_close(*features, atol=0)
    assert not told


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 3, 6, 16])
def test_another_number_is_a_stock_model_of_it_with_interpolated_positions(folder, model, frames, told):
    config = transformers.XCLIPConfig.from_pretrained(folder)
    config.vision_config.num_frames = frames
    theirs = stock("XCLIPModel")(config).eval()
    weights = stock("XCLIPModel").from_pretrained(folder).state_dict()
    learnt = weights["mit.position_embedding"].transpose(1, 2)
    resized = torch.nn.functional.interpolate(learnt, size=frames, mode="linear").transpose(1, 2)
    theirs.load_state_dict({**weights, "mit.position_embedding": resized})
    expected = theirs(pixel_values=clips(frames), **TEXT)
    found = model(pixel_values=clips(frames), **TEXT)
    assert_close(found.logits_per_video, expected.logits_per_video, atol=1e-6)
    assert_close(found.video_embeds, expected.video_embeds, atol=1e-6)
    assert_close(
        model.get_video_features(clips(frames)).pooler_output,
        theirs.get_video_features(clips(frames)).pooler_output,
        atol=1e-6,
    )
    assert set(told) == {(4, frames)}
    # And back: nothing of it stays.
    stock_answer = stock("XCLIPModel").from_pretrained(folder).eval()(pixel_values=clips(4), **TEXT)
    assert_close(model(pixel_values=clips(4), **TEXT).logits_per_video, stock_answer.logits_per_video, atol=0)


@torch.no_grad()
def test_loaded_for_another_number(folder, model, tmp_path, told):
    """Interpolated once; what is saved is a stock model of that number."""
    loaded, info = transformers.AutoModel.from_pretrained(folder, num_frames=6, output_loading_info=True)
    assert not info["missing_keys"]
    assert loaded.config.vision_config.num_frames == 6
    assert told == [(4, 6)]
    expected = model(pixel_values=clips(6), **TEXT).logits_per_video
    assert_close(loaded.eval()(pixel_values=clips(6), **TEXT).logits_per_video, expected, atol=1e-6)
    loaded.save_pretrained(tmp_path)
    again = stock("XCLIPModel").from_pretrained(tmp_path).eval()
    assert_close(again(pixel_values=clips(6), **TEXT).logits_per_video, expected, atol=1e-6)
    assert transformers.AutoModel.from_pretrained(folder, num_frames=4).config.vision_config.num_frames == 4
    assert told == [(4, 6), (4, 6)]
    with pytest.raises(VideoOptionError, match="num_frames=0"):
        transformers.AutoModel.from_pretrained(folder, num_frames=0)


def test_gradients_with_checkpointing_and_another_count_between(folder):
    """What is run a second time counts the frames that it had the first time."""
    grads = []
    for checkpointing in (False, True):
        model = transformers.AutoModel.from_pretrained(folder).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        loss = model(pixel_values=clips(6), **TEXT).logits_per_video.square().mean()
        with torch.no_grad():
            model(pixel_values=clips(2, batch=3), **TEXT)
        loss.backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    assert all(grads[0][name] is not None for name in ("mit.position_embedding", "visual_projection.weight"))
    assert_close(*grads, atol=1e-6)


def test_what_is_no_clip(model):
    with pytest.raises(ModelInputError, match="must be clips"):
        model(pixel_values=clips(4)[0], **TEXT)
    with pytest.raises(ModelInputError, match="nothing came"):
        model(**TEXT)


def test_it_says_that_positions_are_interpolated(model, caplog):
    modeling_xclip.logger.warning_once.cache_clear()
    with torch.no_grad(), warnings.catch_warnings():
        model(pixel_values=clips(5), **TEXT)
    assert "positions for 4 frames, and clips have 5: they are interpolated" in caplog.text


def test_random_weights_start_as_stocks(folder):
    torch.manual_seed(0)
    config = transformers.XCLIPConfig.from_pretrained(folder)
    ours, theirs = XCLIPModel(config), stock("XCLIPModel")(config)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if one.ndim >= 2 and one.numel() >= 100:
            assert one.std().item() == pytest.approx(other.std().item(), rel=0.35), name
