"""Features equal what the model gives for the pipeline's own clips, for ours and stock models; bad files are named."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
import transformers

import hf_video
from hf_video.data.rows import VideoRow, VideoRows
from hf_video.errors import CheckpointError, EmptyFileError, VideoOptionError
from hf_video.features.extraction import Features, extract_features
from hf_video.pipelines.video_classification import VideoClassificationPipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    paths = [tiny.write_clip(root / f"{i}.mkv", 16 + 8 * i, seed=i) for i in range(3)]
    return VideoRows([VideoRow(str(p), i % 2, p.name) for i, p in enumerate(paths)], ["a", "b"])


@pytest.fixture(scope="module")
def model(folder):
    return hf_video.VideoMAEForVideoClassification.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def processor(folder):
    return transformers.AutoImageProcessor.from_pretrained(folder)


def by_hand(model, processor, path):
    with torch.inference_mode():
        inputs = processor(path, return_tensors="pt")["pixel_values"]
        return model.get_video_features(inputs).embedding.numpy()


def test_one_vector_for_each_video(model, processor, rows):
    features = extract_features(model, processor, rows, batch_size=2)
    expected = np.concatenate([by_hand(model, processor, row.source) for row in rows])
    np.testing.assert_allclose(features.embeddings, expected, atol=1e-5)
    assert features.names == [row.name for row in rows]
    assert features.labels.tolist() == [0, 1, 0]
    np.testing.assert_allclose(features.seconds, [(0, 2), (0, 3), (0, 4)])
    assert features.embeddings.dtype == np.float32
    assert not features.skipped


def test_the_classifier_reads_them(model, processor, rows):
    """embedding -> classifier is what the pipeline answers."""
    features = extract_features(model, processor, rows[:1])
    with torch.inference_mode():
        scores = model.classifier(torch.from_numpy(features.embeddings)).softmax(-1)[0]
    best = VideoClassificationPipeline(model=model, image_processor=processor)(rows[0].source, top_k=1)[0]
    assert scores.max().item() == pytest.approx(best["score"], abs=1e-5)


def test_windows_and_views(model, processor, rows):
    features = extract_features(model, processor, rows, windows="1s", views="2x3")
    assert features.names == ["0.mkv"] * 2 + ["1.mkv"] * 3 + ["2.mkv"] * 4
    np.testing.assert_allclose(features.seconds[2:5], [(0, 1), (1, 2), (2, 3)])
    assert len(np.unique(features.embeddings, axis=0)) == 9


def test_workers_change_nothing(model, processor, rows):
    alone, helped = (extract_features(model, processor, rows, num_workers=n) for n in (0, 2))
    np.testing.assert_array_equal(alone.embeddings, helped.embeddings)


def test_bad_files_are_named(model, processor, rows, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video")
    bad = [VideoRow(str(tmp_path / name), None, name) for name in ("empty.mp4", "text.mp4", "gone.mp4")]
    features = extract_features(model, processor, [bad[0], rows[0], *bad[1:]])
    assert features.names == ["0.mkv"]
    assert [(one.name, one.kind) for one in features.skipped] == [
        ("empty.mp4", "empty"),
        ("text.mp4", "not a video"),
        ("gone.mp4", "missing"),
    ]
    with pytest.raises(EmptyFileError):
        extract_features(model, processor, bad, on_error="raise")
    nothing = extract_features(model, processor, bad)
    assert len(nothing) == 0
    assert nothing.embeddings.shape == (0, 0)
    assert len(nothing.skipped) == 3


def test_options_are_checked(model, processor, rows):
    with pytest.raises(VideoOptionError, match="'skip', 'raise'"):
        extract_features(model, processor, rows, on_error="ignore")


def test_the_mode_is_put_back(model, processor, rows):
    model.train()
    try:
        extract_features(model, processor, rows[:1])
        assert model.training
    finally:
        model.eval()


def test_a_pretraining_model_gives_its_encoders_features(processor, rows, model):
    from hf_video.models.videomae.modeling_videomae import VideoMAEForPreTraining

    config = hf_video.VideoMAEConfig.from_dict({**model.config.to_dict(), "use_mean_pooling": False})
    whole = VideoMAEForPreTraining(config).eval()
    np.testing.assert_allclose(
        extract_features(whole, processor, rows[:1]).embeddings, by_hand(whole.videomae, processor, rows[0].source)
    )


class TestStock:
    """Plain transformers' own classes."""

    def test_a_classifier_gives_what_it_reads(self, folder, model, processor, rows):
        stock = transformers.models.videomae.modeling_videomae.VideoMAEForVideoClassification.from_pretrained(folder)
        ours, theirs = (extract_features(m, processor, rows).embeddings for m in (model, stock))
        np.testing.assert_allclose(theirs, ours, atol=1e-4)

    def test_an_encoder_gives_the_mean_of_its_tokens(self, folder, processor, rows):
        stock = transformers.models.videomae.modeling_videomae.VideoMAEModel.from_pretrained(folder).eval()
        inputs = processor(rows[0].source, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            expected = stock(inputs).last_hidden_state.mean(1).numpy()
        np.testing.assert_allclose(extract_features(stock, processor, rows[:1]).embeddings, expected, atol=1e-6)

    def test_a_model_without_features_is_refused(self, processor, rows):
        class Nothing(transformers.PreTrainedModel):
            config_class = hf_video.VideoMAEConfig

            def __init__(self, config):
                super().__init__(config)
                self.weight = torch.nn.Parameter(torch.zeros(1))

            def forward(self, pixel_values):
                return type("Output", (), {})()

        config = hf_video.VideoMAEConfig(num_frames=4)
        with pytest.raises(CheckpointError, match="no features"):
            extract_features(Nothing(config), processor, rows[:1])


def test_join_keeps_the_order():
    def part(n, start):
        return Features(np.full((n, 2), start, np.float32), [f"{start}"] * n, np.arange(n), np.zeros((n, 2)))

    joined = Features.join([part(2, 1), part(1, 5)])
    assert joined.embeddings[:, 0].tolist() == [1, 1, 5]
    assert joined.names == ["1", "1", "5"]
