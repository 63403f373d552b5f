"""Transformers' own video encoders through our doors, torchvision or not."""

from __future__ import annotations

import pytest
import torch
import transformers
from contract import randomise
from stock_models import save_classifier, save_encoder, save_video_text, stock
from tiny import write_clip
from tiny_text import tiny_clip_text, tiny_clip_vision, tiny_tokenizer
from torch.nn.functional import normalize

import hf_video
from hf_video.base.loading import find_processors
from hf_video.errors import ModelInputError, VideoOptionError
from hf_video.retrieval import VideoIndex

NAMES = {"vjepa2": "VJEPA2ForVideoClassification", "videoprism": "VideoPrismForVideoClassification"}


@pytest.fixture(scope="module", params=NAMES)
def saved(request, tmp_path_factory):
    """(the stock model itself, its folder)."""
    folder = save_classifier(tmp_path_factory.mktemp(request.param), request.param)
    return stock(NAMES[request.param]).from_pretrained(folder).eval(), folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mkv", 12)


def stock_scores(model, folder, clip):
    """What the stock class says of the very same pixels."""
    processor = next(one for one in find_processors(model, None, None) if one is not None)
    inputs = processor(clip, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits.flatten(1)
    return dict(zip(model.config.id2label.values(), logits.softmax(-1)[0].tolist(), strict=True))


def test_classification(saved, clip):
    expected = stock_scores(*saved, clip)
    classify = transformers.pipeline("video-classification", model=str(saved[1]))
    found = {one["label"]: one["score"] for one in classify(clip)}
    assert found == pytest.approx(expected, abs=1e-5)
    assert found.keys() == expected.keys()
    windows = classify(clip, windows=0.5, views="1x3" if "videoprism" not in str(saved[1]) else None)
    assert len(windows) == 3
    given = transformers.pipeline("video-classification", model=saved[0])(clip)
    assert {one["label"]: one["score"] for one in given} == pytest.approx(expected, abs=1e-5)


@pytest.fixture(scope="module", params=["videoprism", "xclip"])
def video_text(request, tmp_path_factory):
    """(kind, the stock model of video and text, its folder)."""
    folder = save_video_text(tmp_path_factory.mktemp(request.param), request.param)
    name = {"videoprism": "VideoPrismClipModel", "xclip": "XCLIPModel"}[request.param]
    return request.param, stock(name).from_pretrained(folder).eval(), folder


def by_hand(kind, model, folder, clip, texts):
    """Similarities (texts,) by the stock model's own forward, on the processor's pixels and the tokenizer's ids."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    pixels = (processor.image_processor if kind == "xclip" else processor.video_processor)(clip, return_tensors="pt")
    padding = {"padding": True} if kind == "xclip" else {"padding": "max_length", "max_length": 12}
    tokens = processor.tokenizer(texts, return_tensors="pt", **padding)
    tokens.pop("token_type_ids", None)
    with torch.inference_mode():
        output = model(**pixels, **tokens)
    if kind == "xclip":
        assert output.text_embeds.shape == (1, len(texts), 16)  # made for this video
        return output.logits_per_video[0]
    return output.video_embeds[0] @ output.text_embeds.T


def test_zero_shot_and_retrieval(video_text, clip):
    kind, _, folder = video_text
    labels = ["ring", "square", "the disc moving up"]
    classify = transformers.pipeline("zero-shot-video-classification", model=str(folder))
    logits = by_hand(*video_text, clip, [f"a video of {label}" for label in labels])
    logits = logits if kind == "xclip" else logits / 0.01  # the authors' temperature
    expected = dict(zip(labels, logits.softmax(-1).tolist(), strict=True))
    found = {one["label"]: one["score"] for one in classify(clip, candidate_labels=labels)}
    assert found == pytest.approx(expected, abs=1e-4 if kind == "videoprism" else 1e-5)
    match = transformers.pipeline("video-text-retrieval", model=str(folder))
    table = match([clip, clip], texts=labels).scores
    expected = by_hand(*video_text, clip, labels).tolist()
    assert table.T.tolist() == [pytest.approx(expected, abs=1e-5)] * 2


def test_index_and_search(video_text, clip, tmp_path):
    kind, _, folder = video_text
    index = VideoIndex.create(tmp_path / "index")
    index.update(clip.parent, str(folder), window="0.5s")
    (best, *_) = index.search(video=clip, top_k=1)
    assert best.score > 0.8
    if kind == "xclip":
        with pytest.raises(VideoOptionError, match="made anew for each video"):
            index.search("ring")
    else:
        assert index.search("ring", top_k=1)[0].seconds


@pytest.mark.parametrize("kind", ["vjepa2", "videoprism"])
def test_features_of_encoders(kind, clip, tmp_path):
    folder = save_encoder(tmp_path, kind)
    embed = transformers.pipeline("video-feature-extraction", model=str(folder))
    model = stock({"vjepa2": "VJEPA2Model", "videoprism": "VideoPrismVisionModel"}[kind]).from_pretrained(folder).eval()
    inputs = transformers.AutoVideoProcessor.from_pretrained(folder)(clip, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).last_hidden_state.mean(1)[0]
    assert embed(clip).tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_clips_that_would_be_cut_without_a_word(saved, clip):
    model, folder = saved
    classify = transformers.pipeline("video-classification", model=model)
    if "vjepa2" in str(folder):
        for count in (7, 1):
            with pytest.raises(ModelInputError, match=f"{count} leave a rest"):
                classify(clip, num_frames=count)
        assert classify(clip, num_frames=6)
    else:
        assert classify(clip, num_frames=7)
        assert classify(clip, num_frames=1) != classify(clip)
    processor = find_processors(model, None, None)[1]
    processor.size, processor.crop_size = {"height": 20, "width": 20}, {"height": 20, "width": 20}
    classify = transformers.pipeline("video-classification", model=model, video_processor=processor)
    with pytest.raises(ModelInputError, match="20x20 leave a rest"):
        classify(clip)


def test_other_frame_counts(video_text, clip):
    _, _, folder = video_text
    classify = transformers.pipeline(
        "zero-shot-video-classification", model=str(folder), candidate_labels=["ring", "disc"]
    )
    assert classify(clip, num_frames=6)
    asked = transformers.pipeline(
        "zero-shot-video-classification", model=str(folder), candidate_labels=["ring", "disc"], num_frames=6
    )
    assert asked(clip) == classify(clip, num_frames=6) != classify(clip)


def test_stocks_own_xclip_takes_its_frames_alone(clip, tmp_path):
    """Also where ours doesn't take its place."""
    folder = save_video_text(tmp_path, "xclip")
    model, processor = stock("XCLIPModel").from_pretrained(folder), transformers.AutoProcessor.from_pretrained(folder)
    classify = transformers.pipeline(
        "zero-shot-video-classification",
        model=model.eval(),
        image_processor=processor.image_processor,
        tokenizer=processor.tokenizer,
        candidate_labels=["ring", "disc"],
    )
    with pytest.raises(ModelInputError, match="clips of 4 frames"):
        classify(clip, num_frames=6)


def test_a_model_of_images_and_texts(clip, tmp_path):
    """A plain CLIP averages its frames, and finds events by words."""
    made = transformers.CLIPModel(
        transformers.CLIPConfig(
            vision_config=tiny_clip_vision().to_dict(), text_config=tiny_clip_text().to_dict(), projection_dim=16
        )
    )
    randomise(made).save_pretrained(tmp_path)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPImageProcessorPil(**size).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    labels = ["ring", "square"]
    classify = transformers.pipeline("zero-shot-video-classification", model=str(tmp_path), num_frames=3)
    processor = hf_video.video_clip(tmp_path)[1]
    frames = processor.image_processor(clip, num_frames=3, return_tensors="pt")["pixel_values"][0]
    tokens = processor.tokenizer([f"a video of {label}" for label in labels], return_tensors="pt")
    with torch.inference_mode():
        images = normalize(made.get_image_features(frames).pooler_output, dim=-1)
        texts = normalize(made.get_text_features(tokens.input_ids, tokens.attention_mask).pooler_output, dim=-1)
        video = normalize(images.mean(0), dim=-1)
        expected = (made.logit_scale.exp() * video @ texts.T).softmax(-1).tolist()
    found = {one["label"]: one["score"] for one in classify(clip, candidate_labels=labels)}
    assert [found[label] for label in labels] == pytest.approx(expected, abs=1e-5)
    detect = transformers.pipeline("temporal-action-detection", model=str(tmp_path), candidate_labels=labels)
    events = detect(clip, grid="0.5s/0.25s", threshold=0.01, background=[])
    assert {one.label for one in events} <= set(labels)
    assert events
