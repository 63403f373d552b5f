"""Moments that sentences describe: peaks of a line of scores, the pipeline, and `hf-video search --moment`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_video_text
import torch
from transformers import pipeline

import hf_video
from hf_video.base.detection.peaks import find_peaks
from hf_video.cli import main
from hf_video.errors import CheckpointError, DataError, HFVideoError, VideoOptionError
from hf_video.features.sequence_encoder import SequenceEncoder, save_encoder
from hf_video.models.moment_detr.features import moment_features
from hf_video.pipelines.video_moment_retrieval import VideoMomentRetrievalPipeline

FPS = 8


def line(moments, duration=60.0, length=2.0, step=1.0):
    """Scores of clips that are the part of each that lies in a moment, and the clips' middles."""
    start = np.arange(0, duration - length + 1e-9, step)
    parts = [height * np.clip(np.minimum(start + length, b) - np.maximum(start, a), 0, length) / length
             for a, b, height in moments]  # fmt: skip
    return np.sum(parts, axis=0), start + length / 2


def spans(found):
    return [(round(one.start, 1), round(one.end, 1)) for one in found]


@pytest.mark.parametrize("scale", [1.0, 1e-3, 100.0])
@pytest.mark.parametrize("shift", [0.0, -0.5, 7.0])
def test_boundaries_are_half_way_up_in_any_unit(scale, shift):
    scores, times = line([(10, 20, 1.0), (35, 41, 0.8)])
    found = find_peaks(scale * scores + shift, times, "a", bounds=(0, 60), smoothing=0)
    assert spans(found) == [(10, 20), (35, 41)]
    inside = scores[(times > 10) & (times < 20)].mean()
    assert found[0].score == pytest.approx(scale * inside + shift)


def test_peaks():
    scores, times = line([(0, 12, 1.0), (50, 60, 0.9)])
    at_the_ends = find_peaks(scores, times, "a", bounds=(0, 60))
    assert [(one.start, one.end) for one in at_the_ends] == [(0, pytest.approx(12, abs=0.3)),
                                                            (pytest.approx(50, abs=0.3), 60)]  # fmt: skip
    low = line([(10, 20, 1.0), (30, 40, 0.3)])
    assert len(find_peaks(*low, "a", bounds=(0, 60))) == 1
    assert len(find_peaks(*low, "a", bounds=(0, 60), least=0.2)) == 2
    assert len(find_peaks(*line([(10, 20, 1), (40, 50, 1)]), "a", bounds=(0, 60), top_k=1)) == 1
    for scores in (np.zeros(9), np.full(9, 0.3), np.array([0.2])):
        (whole,) = find_peaks(scores, np.arange(len(scores)) + 1.0, "a", bounds=(0.5, 12))
        assert (whole.start, whole.end) == (0.5, 12)
    for wrong in ({"level": 0}, {"level": 1}, {"least": 2}, {"smoothing": -1}, {"top_k": 0}):
        with pytest.raises(VideoOptionError):
            find_peaks(*low, "a", bounds=(0, 60), **wrong)


@pytest.mark.parametrize("seed", range(4))
def test_a_long_moment_is_not_cut_by_chance(seed):
    scores, times = line([(15, 80, 1.0)], duration=120)
    noisy = scores + 0.2 * np.random.default_rng(seed).standard_normal(len(scores))
    best = find_peaks(noisy, times, "a", bounds=(0, 120))[0]
    assert best.start == pytest.approx(15, abs=2)
    assert best.end == pytest.approx(80, abs=2)


# -- the pipeline, with a model that sees colours -------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_video_text.save_videoclip(tmp_path_factory.mktemp("videoclip"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """24 seconds of blue, red from 5 to 11, green from 16 to 19."""
    colours = np.tile(np.uint8([20, 20, 220]), (24 * FPS, 1))
    colours[5 * FPS : 11 * FPS] = 220, 20, 20
    colours[16 * FPS : 19 * FPS] = 20, 220, 20
    path = tmp_path_factory.mktemp("clips") / "colours.mp4"
    hf_video.write_video(path, np.broadcast_to(colours[:, None, None], (len(colours), 48, 64, 3)).copy(), FPS)
    return path


COLOURS = {7: (1.0, 0.0, 0.0), 8: (0.0, 1.0, 0.0)}  # "left" and "right" of the tiny tokenizer are red and green


@pytest.fixture
def sees_colours(monkeypatch):
    """VideoCLIP's vectors of clips are their mean colours, those of texts the colours that words stand for."""
    video, text = hf_video.VideoCLIPModel.get_video_features, hf_video.VideoCLIPModel.get_text_features

    def of_video(self, pixel_values, **options):
        found = video(self, pixel_values, **options)
        mean = (pixel_values * 0.27 + 0.45).mean((1, 3, 4))
        found.pooler_output = torch.nn.functional.pad(torch.nn.functional.normalize(mean, dim=-1), (0, 61))
        return found

    def of_text(self, input_ids, *args, **options):
        found = text(self, input_ids, *args, **options)
        rows = [next(COLOURS[int(one)] for one in row if int(one) in COLOURS) for row in input_ids]
        found.pooler_output = torch.nn.functional.pad(torch.tensor(rows), (0, 61))
        return found

    monkeypatch.setattr(hf_video.VideoCLIPModel, "get_video_features", of_video)
    monkeypatch.setattr(hf_video.VideoCLIPModel, "get_text_features", of_text)


def test_moments_without_training(folder, clip, sees_colours):
    find = pipeline("video-moment-retrieval", model=str(folder))
    assert isinstance(find, VideoMomentRetrievalPipeline)
    found = find(clip, sentences=["moving left", "moving right"])
    best = {one.label: (one.start, one.end) for one in reversed(found)}
    assert best["moving left"] == (pytest.approx(5, abs=0.3), pytest.approx(11, abs=0.3))
    assert best["moving right"] == (pytest.approx(16, abs=0.4), pytest.approx(19, abs=0.4))
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert found.query('"moving left" before "moving right"')
    several = find([clip, clip], sentences="left", grid="1s/0.5s", top_k=1, batch_size=4)
    assert several[0] == several[1]
    assert spans(several[0])[0] == (pytest.approx(5, abs=0.2), pytest.approx(11, abs=0.2))
    assert not find(clip, sentences="left", threshold=1.1)


def test_the_command(folder, clip, sees_colours, capsys):
    words = ["search", str(clip), "left", "--moment", "--model", str(folder)]
    assert main([*words, "--top-k", "1", "--json"]) == 0
    (moment,) = json.loads(capsys.readouterr().out)
    assert (moment["path"], moment["start"]) == (str(clip), pytest.approx(5, abs=0.3))
    assert main([*words, "--grid", "1s/0.5s"]) == 0
    assert "4.93-11.07 s" in capsys.readouterr().out.splitlines()[0]


# -- Moment-DETR ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A Moment-DETR of random weights with its encoder beside it."""
    encoder = SequenceEncoder(*hf_video.video_clip(folder), grid="2s")
    path = tmp_path_factory.mktemp("moment-detr")
    sizes = {"video_size": 64 + 2, "text_size": 64, "hidden_size": 32, "num_attention_heads": 4, "num_queries": 4}
    about = save_encoder(encoder, path)
    model = hf_video.MomentDetrForMomentRetrieval(hf_video.MomentDetrConfig(**sizes, encoder=about))
    model.save_pretrained(path)
    return path


def test_moment_detr_from_a_file(trained, clip):
    """The pipeline's moments are those of the model on features that are made by hand."""
    find = pipeline("video-moment-retrieval", model=str(trained))
    found = find(clip, sentences=["moving left", "a disc"], rounding=0)
    assert len(found) == 8
    encoder = find.encoder
    vectors = torch.from_numpy(encoder(clip).vectors)
    assert len(vectors) == 12
    video = moment_features(vectors)[None]
    tokens = find.tokenizer("moving left", return_tensors="pt")
    states = encoder.model.text_model(tokens["input_ids"]).last_hidden_state
    states = states / (states.norm(dim=-1, keepdim=True) + 1e-5)
    with torch.inference_mode():
        (expected,) = find.model.find_moments(find.model(video, states), [24.0], rounding=0)
    got = [(one.start, one.end, one.score) for one in found if one.label == "moving left"]
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-4)
    rounded = find(clip, sentences="moving left")
    assert all(one.start % 2 == 0 and one.end % 2 == 0 for one in rounded)


def test_spans_are_cut_and_rounded_as_asked():
    model = hf_video.MomentDetrForMomentRetrieval(
        hf_video.MomentDetrConfig(video_size=4, text_size=4, hidden_size=8, num_attention_heads=2)
    )
    output = type("Output", (), {"logits": torch.tensor([[[2.0, 0], [3, 0]]]),
                                 "spans": torch.tensor([[[0.5, 0.2], [0.95, 0.3]]])})  # fmt: skip
    official = model.find_moments(output, [140.0], limits=(0, 150))[0]
    assert official[:, :2].tolist() == [[112.0, 150.0], [56.0, 84.0]]  # 150 by QVHighlights, whatever the duration
    assert model.find_moments(output, [140.0])[0][0, :2].tolist() == [112.0, 140.0]
    exact = model.find_moments(output, [145.0], rounding=0)[0]
    np.testing.assert_allclose(exact[:, :2], [[116.0, 145.0], [58.0, 87.0]], rtol=1e-6)


def test_features_are_of_length_one_with_their_place():
    made = moment_features([torch.ones(5, 3), 2 * torch.ones(4, 2)])
    assert made.shape == (4, 7)
    np.testing.assert_allclose(made[1], [3**-0.5] * 3 + [2**-0.5] * 2 + [0.25, 0.5], atol=1e-5)
    assert moment_features(torch.ones(4, 3), 3).shape == (4, 3)
    for streams, width in ((torch.ones(4, 3), 4), ([], None), (torch.ones(0, 3), None), (torch.ones(3), None)):
        with pytest.raises(DataError):
            moment_features(streams, width)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, "sentences is missing"),
        ({"sentences": []}, "sentences"),
        ({"sentences": "left", "windows": "2s"}, "grid="),
        ({"sentences": "left", "grid": "soon"}, "no grid"),
        ({"sentences": "left", "level": 1.5}, "level"),
        ({"sentences": "left", "top_k": 0}, "top_k"),
        ({"sentences": "left", "rounding": 2}, "no rounding"),
        ({"sentence": "left"}, "Did you mean 'sentences'"),
    ],
)
def test_options_that_mean_nothing(folder, clip, options, error):
    find = pipeline("video-moment-retrieval", model=str(folder))
    with pytest.raises(VideoOptionError, match=error):
        find(clip, **options)


def test_models_that_do_not_fit(folder, trained, clip, tmp_path, capsys):
    import tiny

    with pytest.raises(CheckpointError, match="does not score texts"):
        pipeline("video-moment-retrieval", model=str(tiny.save_tiny(tmp_path / "classifier")))
    find = pipeline("video-moment-retrieval", model=str(trained))
    with pytest.raises(VideoOptionError, match="grid"):
        find(clip, sentences="left", grid="1s")
    other = hf_video.MomentDetrForMomentRetrieval(
        hf_video.MomentDetrConfig(video_size=9, text_size=64, hidden_size=32, num_attention_heads=4)
    )
    with pytest.raises(DataError, match="64 columns"):
        VideoMomentRetrievalPipeline(other, encoder=find.encoder)(clip, sentences="left")
    other.save_pretrained(tmp_path / "alone")
    with pytest.raises(HFVideoError, match="encoder"):
        pipeline("video-moment-retrieval", model=str(tmp_path / "alone"))(clip, sentences="left")
    for words in (["left", "--moment"], ["--moment", "--model", str(folder)], ["left", "--grid", "2s"]):
        assert main(["search", str(clip), *words]) == 2
    assert "Traceback" not in capsys.readouterr().err
