"""`AutoProcessor` of a detector's folder: inputs from features and videos, padding, and outputs in seconds."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoProcessor, pipeline

import hf_video
from hf_video.errors import CheckpointError, DataError, VideoOptionError
from hf_video.features.detection_processor import TemporalDetectionProcessor, WindowDetectionProcessor
from hf_video.features.sequence_encoder import SequenceEncoder, save_encoder
from hf_video.features.sequences import FeatureSequence
from hf_video.video import write_video

SMALL = {
    **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 16},
    **{"patch_size": 8, "num_frames": 4},
}
DETECTOR = {
    **{"hidden_size": 8, "neck_size": 8, "head_size": 8, "branch_layers": 2, "max_length": 32, "num_labels": 3},
    **{"feature_stride": 4, "feature_frames": 8, "input_size": 16},
}
SIZES = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}


def randomised(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    frames = np.concatenate([tiny.moving_frames(8, seed=seed) for seed in range(10)])
    return [
        write_video(folder / f"{name}.mkv", frames[first:last], 10, codec="ffv1")
        for name, first, last in (("a", 0, 80), ("b", 12, 60))
    ]


@pytest.fixture(scope="module", params=["actionformer", "tridet"])
def folder(request, tmp_path_factory):
    """A detector with its encoder."""
    path = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    encoder = randomised(hf_video.VideoMAEModel(hf_video.VideoMAEConfig(**SMALL)))
    made = SequenceEncoder(encoder, hf_video.VideoMAEImageProcessor(**SIZES, num_frames=4), grid="8/4")
    facts = save_encoder(made, path)
    if request.param == "tridet":
        config = hf_video.TriDetConfig(**{**DETECTOR, "hidden_size": 16, "neck_size": 16}, num_bins=4, encoder=facts)
        model = randomised(hf_video.TriDetForTemporalActionDetection(config))
    else:
        config = hf_video.ActionFormerConfig(**DETECTOR, num_attention_heads=2, window_size=3, encoder=facts)
        model = randomised(hf_video.ActionFormerForTemporalActionDetection(config))
    model.save_pretrained(path)
    return path


def load(folder):
    return pipeline("temporal-action-detection", model=str(folder), device="cpu")


def rows(events, table):
    return [
        (
            table[one.label],
            pytest.approx(one.score, abs=1e-6),
            *(pytest.approx(v, abs=1e-5) for v in (one.start, one.end)),
        )
        for one in events
    ]


def found_rows(found):
    return [
        (label, score, *segment)
        for label, score, segment in zip(
            found["labels"].tolist(), found["scores"].tolist(), found["segments"].tolist(), strict=True
        )
    ]


@torch.no_grad()
def test_videos_and_features_give_what_the_pipeline_gives(folder, videos):
    processor, detect = AutoProcessor.from_pretrained(folder), load(folder)
    assert type(processor) is TemporalDetectionProcessor
    table = detect.model.config.label2id
    inputs = processor(videos=videos)
    assert inputs["features"].shape == (2, 32, 16)
    assert inputs["mask"].sum(1).tolist() == [19, 11]
    results = processor.post_process_temporal_detection(detect.model(**inputs), inputs.sequences, top_k=5)
    for video, found in zip(videos, results, strict=True):
        assert found_rows(found) == rows(detect(video, top_k=5), table)
        assert len(found["scores"]) == 5
    ready = processor(features=inputs.sequences)
    assert torch.equal(ready["features"], inputs["features"])
    bare = processor(features=inputs.sequences[0].vectors, fps=10)
    assert torch.equal(bare["features"][0], inputs["features"][0])
    above = processor.post_process_temporal_detection(detect.model(**inputs), inputs.sequences, threshold=0.5)
    assert all((one["scores"] >= 0.5).all() for one in above)


def test_padding_is_never_chosen_by_the_batch(folder):
    """Sequences longer than `max_length` are padded to a multiple of their own."""
    processor = AutoProcessor.from_pretrained(folder)

    def features(steps):
        return np.zeros((steps, 16), np.float32)

    multiple = processor.config.length_multiple
    assert processor(features=features(33), fps=10)["features"].shape[1] == -(-33 // multiple) * multiple
    assert processor(features=[features(5), features(31)], fps=10)["features"].shape == (2, 32, 16)
    with pytest.raises(VideoOptionError, match="give them one by one"):
        processor(features=[features(5), features(33)], fps=10)


def test_it_is_saved_and_found_again(folder, videos, tmp_path):
    processor = AutoProcessor.from_pretrained(folder)
    expected = processor(videos=videos[1])
    processor.save_pretrained(tmp_path)
    processor.config.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is TemporalDetectionProcessor
    assert torch.equal(again(videos=videos[1])["features"], expected["features"])


def test_what_is_refused(folder, tmp_path):
    processor = AutoProcessor.from_pretrained(folder)
    with pytest.raises(VideoOptionError, match="one of the two"):
        processor()
    with pytest.raises(VideoOptionError, match="pass fps="):
        processor(features=np.zeros((5, 16), np.float32))
    with pytest.raises(DataError, match="columns"):
        processor(features=np.zeros((5, 8), np.float32), fps=10)
    other = FeatureSequence.from_array(np.zeros((5, 16), np.float32), "8/2", 10)
    with pytest.raises(DataError, match="on the grid"):
        processor(features=other)
    processor.config.encoder = None
    processor.config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="takes ready-made features only"):
        AutoProcessor.from_pretrained(tmp_path)(videos="a.mp4")
    with pytest.raises(Exception, match="none"):
        AutoProcessor.from_pretrained(tmp_path / "none")


@torch.no_grad()
def test_a_detector_of_frames(videos, tmp_path):
    """Windows of all videos in one batch; each video's own are joined."""
    torch.manual_seed(0)
    config = hf_video.AdaTADConfig(
        encoder_config=SMALL,
        detector_config={"hidden_size": 8, "neck_size": 8, "head_size": 8, "branch_layers": 2, "feature_stride": 2},
        num_frames=16,
        image_size=16,
        num_labels=3,
    )
    randomised(hf_video.AdaTADForTemporalActionDetection(config)).save_pretrained(tmp_path)
    hf_video.AdaTADImageProcessor(**SIZES, num_frames=16).save_pretrained(tmp_path)
    processor, detect = AutoProcessor.from_pretrained(tmp_path), load(tmp_path)
    assert type(processor) is WindowDetectionProcessor
    inputs = processor(videos=videos)
    starts = [one.starts for one in inputs.sequences]
    assert starts == [[0, 8, 16, 24], [0, 8]]
    assert inputs["pixel_values"].shape == (6, 16, 3, 16, 16)
    results = processor.post_process_temporal_detection(detect.model(**inputs), inputs.sequences, top_k=4)
    table = detect.model.config.label2id
    for video, found in zip(videos, results, strict=True):
        assert found_rows(found) == rows(detect(video, top_k=4), table)
    with pytest.raises(VideoOptionError, match="give videos="):
        processor(features=np.zeros((5, 16), np.float32))
    processor.save_pretrained(tmp_path / "again")
    config.save_pretrained(tmp_path / "again")
    assert torch.equal(AutoProcessor.from_pretrained(tmp_path / "again")(videos=videos)["mask"], inputs["mask"])
