"""Every protocol against a loop written by hand: frames, crops, statistics, model and averaging in plain torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluation_models import CONFIGS, make, write_rows
from tiny import moving_frames

import hf_video
from hf_video.errors import VideoArrayError, VideoError, VideoOptionError
from hf_video.evaluation import published_sampling as published
from hf_video.evaluation.classification import evaluate_videos
from hf_video.evaluation.protocol import Protocol
from hf_video.evaluation.protocols import dataset_name, find_protocol, paper_protocol
from hf_video.evaluation.ten_crops import ten_crop_processor
from hf_video.video import transforms
from hf_video.video.flow import estimation as flow
from hf_video.video.frames.types import VideoMetadata

N, FPS = 72, 20  # frames of whole milliseconds, so that the rate in the file is exact
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
SLOWFAST = ([0.45] * 3, [0.225] * 3)
HALF = ([0.5] * 3, [0.5] * 3)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("clips"), 2, frames=N, fps=FPS)


# -- by hand -----------------------------------------------------------------------------------------------------------


def slowfast_clip(count, rate, start_of, clips):
    """SlowFast's temporal_sampling: linspace over the clip, in frames of the file."""
    length = count * rate * FPS / 30
    room = max(N - length, 0)
    starts = [start_of(room, k, clips) for k in range(clips)]
    return [torch.linspace(s, s + length - 1, count).clamp(0, N - 1).long().tolist() for s in starts]


def tenths(room, k, clips):
    return room * k / clips


def offsets(room, k, clips):
    return k * (room // (clips - 1))


def videomae_dense(count=4, stride=4, clips=5):
    kept = list(range(0, N, stride))
    starts = [int(k * max((len(kept) - count) / (clips - 1), 0)) for k in range(clips)]
    return [kept[s : s + count] for s in starts]


def videomae_shifted(count=4, clips=2):
    tick = N / count
    places = sorted(int(tick * (x + j / clips)) for x in range(count) for j in range(clips))
    return [places[k::clips] for k in range(clips)]


def segments(count=4):
    size = (N - 1) / count
    return [[(int(np.round(size * i)) + int(np.round(size * (i + 1)))) // 2 for i in range(count)]]


def dmvr(count=4, stride=2, clips=4):
    starts = np.linspace(0, N - count * stride, clips).astype(int)
    return [[s + i * stride for i in range(count)] for s in starts]


def mmaction(count, stride, clips):
    interval = (N - count * stride + 1) / clips
    return [[int(k * interval + interval / 2) + i * stride for i in range(count)] for k in range(clips)]


def whole_at_25():
    count = round(N / FPS * 25)
    return [torch.linspace(0, count * FPS / 25 - 1, count).clamp(0, N - 1).long().tolist()]


def normal(pixels, statistics, scale=255.0):
    mean, std = (torch.tensor(s, dtype=torch.float64) for s in statistics)
    return ((pixels.double() / scale - mean) / std).movedim(-1, -3)


def resized(frames, size):
    frames = torch.from_numpy(frames)
    return transforms.resize_short_side(frames, size) if isinstance(size, int) else transforms.resize(frames, size)


def cropped(frames, side, crops):
    """`crops` squares along the longer side (frames here are wide)."""
    height, width = frames.shape[-3:-1]
    top, room = (height - side) // 2, width - side
    lefts = [room // 2] if crops == 1 else [0, room // 2, room]
    return [frames[..., top : top + side, left : left + side, :] for left in lefts]


# name -> frames of the clips, size, crop, crops, statistics, averaging
BY_HAND = {
    ("videomae", "paper"): (videomae_dense, 40, 32, 3, IMAGENET, "softmax"),
    ("videomae", "paper:ucf101"): (videomae_dense, 40, 32, 3, IMAGENET, "softmax"),
    ("videomae", "paper:ssv2"): (videomae_shifted, 40, 32, 3, IMAGENET, "softmax"),
    ("timesformer", "paper"): (
        *(lambda: slowfast_clip(4, 64, tenths, 1), 32, 32, 3),
        *(SLOWFAST, "sum"),
    ),
    ("timesformer", "paper:ssv2"): (segments, 32, 32, 3, SLOWFAST, "sum"),
    ("vivit", "paper"): (dmvr, 40, 32, 3, HALF, "logits"),
    ("mvit", "paper"): (lambda: slowfast_clip(4, 4, offsets, 5), 40, 32, 1, SLOWFAST, "softmax"),
    ("mvit", "paper:ssv2"): (segments, 32, 32, 3, SLOWFAST, "softmax"),
    ("mvit-large", "paper"): (lambda: slowfast_clip(4, 4, offsets, 5), 32, 32, 3, SLOWFAST, "softmax"),
    ("video_swin", "paper"): (lambda: mmaction(4, 2, 4), 32, 32, 3, IMAGENET, "softmax"),
    ("video_swin", "paper:ssv2"): (segments, 32, 32, 3, IMAGENET, "softmax"),
    ("i3d", "paper"): (whole_at_25, 40, 32, 1, HALF, "logits"),
    ("i3d-resnet", "paper"): (lambda: slowfast_clip(4, 3, tenths, 10), 40, 40, 3, HALF, "softmax"),
    ("slowfast", "paper"): (lambda: slowfast_clip(8, 2, tenths, 10), 40, 40, 3, SLOWFAST, "softmax"),
    ("x3d", "paper"): (lambda: slowfast_clip(4, 5, tenths, 10), 40, 40, 3, SLOWFAST, "softmax"),
    ("videomae", "1x1"): (lambda: [[9, 27, 45, 63]], 40, 32, 1, IMAGENET, "softmax"),
    ("videomae", "center"): (lambda: [[28, 32, 36, 40]], 40, 32, 1, IMAGENET, "softmax"),
    ("timesformer", "1x3"): (lambda: [[9, 27, 45, 63]], 40, 32, 3, SLOWFAST, "softmax"),
}


def combined(logits, average):
    return {"softmax": logits.softmax(-1).mean(0), "logits": logits.mean(0), "sum": logits.sum(0)}[average]


@pytest.mark.parametrize(("name", "protocol"), BY_HAND, ids="-".join)
def test_views_equal_a_loop_by_hand(name, protocol, rows):
    clips, size, side, crops, statistics, average = BY_HAND[name, protocol]
    model, processor = make(name)
    report = evaluate_videos(model, processor, rows, protocol=protocol, batch_size=3)
    assert report.protocol.views == len(clips()) * crops
    for video, scores in enumerate(report.scores):
        frames = moving_frames(N, seed=video)
        views = [normal(v, statistics) for c in clips() for v in cropped(resized(frames[c], size), side, crops)]
        with torch.no_grad():
            expected = combined(torch.cat([model(view[None]).logits for view in views]), average)
        np.testing.assert_allclose(scores, expected, atol=1e-6, rtol=1e-6)
        probabilities = torch.from_numpy(scores)
        if average != "softmax":
            probabilities = (probabilities / (len(views) if average == "sum" else 1)).softmax(-1)
        np.testing.assert_allclose(report.probabilities[video], probabilities, atol=1e-6)


def vjepa2_clips(count, stride, clips):
    """VideoDataset.loadvideo_decord with overlapping clips, the random start in the middle."""
    found, length, part = [], count * stride, N // clips
    for k in range(clips):
        if part > length:
            start = (part - length) // 2
            places = np.clip(np.linspace(start, start + length, count), start, start + length - 1)
            found.append(places.astype(int) + k * part)
        else:
            last = min(length, N) - 1
            places = [*np.linspace(0, last, last // stride), *[last] * (count - last // stride)]
            step = (N - length) // (clips - 1) if length < N else 0
            found.append(np.clip(places, 0, last - 1).astype(int) + k * step)
    return [places.tolist() for places in found]


@pytest.mark.parametrize(
    ("dataset", "count", "stride", "clips"),
    [("ssv2", 4, 4, 2), ("diving48", 32, 2, 4), ("kinetics", 16, 4, 8), ("jester", 32, 2, 4), ("coin", 16, 4, 8)],
)
def test_vjepa2_by_hand(dataset, count, stride, clips, rows):
    """ClipAggregation and AttentiveClassifier: the tokens of all clips of a crop go through the pooler together, and
    the probabilities of the crops are averaged."""
    model, processor = make("vjepa2")
    report = evaluate_videos(model, processor, rows, protocol=f"paper:{dataset}", batch_size=5)
    assert report.protocol.views == clips * 3
    for video, scores in enumerate(report.scores):
        frames = resized(moving_frames(N, seed=video), 32)
        views = [[normal(v, IMAGENET) for v in cropped(frames[c], 32, 3)] for c in vjepa2_clips(count, stride, clips)]
        with torch.no_grad():
            logits = []
            for crop in zip(*views, strict=True):
                tokens = [model.vjepa2(view[None], skip_predictor=True).last_hidden_state for view in crop]
                logits.append(model.classifier(model.pooler(torch.cat(tokens, dim=1))))
            alone = torch.cat([model(view[None]).logits for crops in views for view in crops])
        np.testing.assert_allclose(scores, torch.cat(logits).softmax(-1).mean(0), atol=1e-6, rtol=1e-6)
        assert np.abs(scores - alone.softmax(-1).mean(0).numpy()).max() > 1e-5  # not the mean over clips


def test_a_probe_is_tested_on_what_it_learnt():
    config = hf_video.VJEPA2Config(frames_per_clip=64, num_labels=174)
    ssv2 = paper_protocol(config)
    assert (ssv2.name, ssv2.clips, ssv2.num_frames, ssv2.options["stride"]) == ("paper:ssv2", 2, 64, 2)
    assert paper_protocol(hf_video.VJEPA2Config(num_labels=48)).name == "paper:diving48"
    assert paper_protocol(hf_video.VJEPA2Config(num_labels=7)).name == "paper:ssv2"
    assert "tokens of the clips are classified together" in ssv2.describe()


def test_only_a_model_of_tokens_joins_clips(rows):
    model, processor = make("videomae")
    with pytest.raises(VideoOptionError, match="VideoMAEForVideoClassification of hf_video can't"):
        evaluate_videos(model, processor, rows, protocol=Protocol("mine", clips=2, joined=True))


def test_c3d_by_hand(rows):
    """BGR less a mean, not divided; a fixed size."""
    model, processor = make("c3d")
    report = evaluate_videos(model, processor, rows, protocol="paper")
    for video, scores in enumerate(report.scores):
        frames = resized(moving_frames(N, seed=video), (40, 64))[..., 4:36, 16:48, :].flip(-1).double()
        pixels = (frames - torch.tensor([90.0, 98, 102])).movedim(-1, 1)
        with torch.no_grad():
            logits = torch.cat([model(pixels[c][None]).logits for c in mmaction(16, 1, 10)])
        np.testing.assert_allclose(scores, logits.softmax(-1).mean(0), atol=1e-6)


def five(values):
    """(…, 40, 64) -> corners and centre of 32x32, as bryanyzhu's test code lists them."""
    return [values[..., t : t + 32, x : x + 32] for t, x in ((0, 0), (0, 32), (4, 16), (8, 0), (8, 32))]


def test_two_streams_25_by_10_by_hand(rows):
    pytest.importorskip("cv2", reason="OpenCV is an extra: pip install hf_video[flow]")
    model, processor = make("two_stream")
    report = evaluate_videos(model, processor, rows, protocol="paper", batch_size=16)
    assert report.protocol.views == 250
    for video, scores in enumerate(report.scores):
        frames = resized(moving_frames(N, seed=video), (40, 64))
        step = (N - 1 - 3 + 1) // 25  # of N - 1 fields
        places = [i * step for i in range(25)]
        pixels = normal(frames[places], IMAGENET)
        fields = torch.from_numpy(flow.optical_flow(frames.numpy(), bound=20))
        stacks = torch.stack([fields[p : p + 3] for p in places])  # (25, 3, H, W, 2)
        mirrored = stacks.flip(-2).clone()
        mirrored[..., 0] = 255 - mirrored[..., 0]
        values = [(s.double() / 255 - 0.5) / 0.226 for s in (stacks, mirrored)]
        values = [v.movedim(-1, 2).flatten(1, 2) for v in values]  # x1, y1, x2, y2, …
        colours = [*five(pixels), *five(pixels.flip(-1))]
        # A mirrored frame's corners change places: what is cut is mirrored, not where.
        flows = [*five(values[0]), *[five(values[1])[i] for i in (1, 0, 2, 4, 3)]]
        colours[5:] = [colours[5:][i] for i in (1, 0, 2, 4, 3)]
        with torch.no_grad():
            pairs = zip(colours, flows, strict=True)
            logits = [model(pixel_values=c[:, None], flow_values=f[:, None]).logits.mean(0) for c, f in pairs]
        np.testing.assert_allclose(scores, torch.stack(logits).mean(0), atol=1e-6, rtol=1e-5)


def test_one_stream_by_hand(rows):
    model, processor = make("two_stream-rgb")
    report = evaluate_videos(model, processor, rows, protocol="paper", batch_size=64)
    frames = resized(moving_frames(N, seed=0), (40, 64))
    pixels = normal(frames[[i * ((N - 1) // 24) for i in range(25)]], IMAGENET)
    views = [v[:, None] for v in (*five(pixels), *five(pixels.flip(-1)))]
    with torch.no_grad():
        logits = torch.stack([model(pixel_values=v).logits.mean(0) for v in views])
    np.testing.assert_allclose(report.scores[0], logits.mean(0), atol=1e-6, rtol=1e-5)


def test_two_stream_i3d_sees_the_whole_video():
    config = hf_video.TwoStreamConfig(
        **{f"{stream}_config": {"model_type": "i3d", "stem_channels": 8} for stream in ("spatial", "temporal")},
        **{"fusion": "sum_logits", "num_frames": 8, "flow_length": 1},
    )
    protocol = paper_protocol(config)
    assert (protocol.name, protocol.views, protocol.sampler) == ("paper:kinetics", 1, published.WholeVideo)


# -- frames ------------------------------------------------------------------------------------------------------------


class Video:
    """Something with a clock."""

    def __init__(self, count, fps):
        self.timestamps = np.arange(count) / fps
        self.metadata = VideoMetadata(num_frames=count, fps=fps, duration=count / fps, height=8, width=8)


WITH_PROTOCOL = [name for name in CONFIGS if name != "videoprism_vision_model"]  # its authors publish none


@pytest.mark.parametrize("total", [1, 2, 3, 7, 40, 301])
def test_samplers_never_leave_the_video(total):
    for name in WITH_PROTOCOL:
        model_config = make_config(name)
        protocol = paper_protocol(model_config)
        reading, _ = protocol.request(model_config, hf_video.VideoMAEImageProcessor())
        sample = reading.sampling.choose(Video(total, 25), reading.views)
        assert sample.num_clips == protocol.clips
        assert 0 <= sample.indices.min() <= sample.indices.max() < total
        assert sample.seconds.shape == sample.indices.shape


def make_config(name):
    entry = hf_video.MODELS[name.partition("-")[0]]
    return entry.load(entry.config)(**CONFIGS[name])


def test_published_samplers_at_published_sizes():
    # 300 frames, 16x4 clips at 30 fps: SlowFast's use_offset starts at k * floor(236 / 4).
    mvit = paper_protocol(hf_video.MViTConfig.preset("v2_s_16x4"))
    reading, _ = mvit.request(hf_video.MViTConfig.preset("v2_s_16x4"), hf_video.MViTImageProcessor())
    sample = reading.sampling.choose(Video(300, 30.0), reading.views)
    assert sample.indices[:, 0].tolist() == [0, 59, 118, 177, 236]
    assert sample.indices[4, -1] == 299
    assert published.centered_clips(300, 32, stride=2, num_clips=4)[:, 0].tolist() == [29, 88, 148, 207]
    assert published.centered_clips(20, 16, stride=2)[0].tolist() == [(2 * i) % 20 for i in range(16)]
    assert published.linspaced_clips(250, 32, stride=2, num_clips=4)[:, 0].tolist() == [0, 62, 124, 186]
    assert published.linspaced_clips(250, 32, stride=2)[0, 0] == 93
    vjepa2 = published.clips_of_parts(300, 16, stride=4, num_clips=8)  # of Kinetics: parts of 37 frames, clips of 64
    assert vjepa2[:, 0].tolist() == [33 * k for k in range(8)]
    assert vjepa2[0].tolist() == [0, 4, 9, 13, 18, 22, 27, 31, 36, 40, 45, 49, 54, 58, 62, 62]
    assert published.whole_steps(250, 1, num_clips=25).ravel().tolist() == [i * 10 for i in range(25)]
    assert published.whole_steps(250, 1, num_clips=25, flow_length=10).ravel().tolist() == [i * 9 for i in range(25)]
    whole = published.WholeVideo(64, options={"target_fps": 25}).choose(Video(300, 30.0), None)
    assert whole.indices.shape == (1, 250)


def test_a_long_video_is_not_seen_whole():
    with pytest.raises(VideoError, match="10x1"):
        published.WholeVideo(64, options={"target_fps": 25}).choose(Video(3000, 30.0), None)


# -- names -------------------------------------------------------------------------------------------------------------


def test_every_model_type_has_a_paper_in_words():
    for name in WITH_PROTOCOL:
        protocol = paper_protocol(make_config(name))
        words = protocol.describe()
        assert protocol.source in words
        assert "clip" in words
        assert protocol.to_dict()["in_words"] == words
    words = paper_protocol(make_config("timesformer")).describe()
    assert words == (
        "1 clip of 4 frames (frames 64 apart at 30 a second, from the start) x 3 crops along the longer side, the "
        "shorter side resized to the crop's; score: the sum of the views' logits; after facebookresearch/TimeSformer"
    )
    assert find_protocol("5x3", None).describe() == (
        "5 clips (frames as the processor's file says) x 3 crops along the longer side; score: the mean of the views' "
        "probabilities"
    )


def test_published_rates():
    def rate(config):
        return paper_protocol(config).options["rate"]

    assert rate(hf_video.TimesformerConfig(num_frames=8)) == 32
    assert rate(hf_video.TimesformerConfig(num_frames=16)) == 16
    assert rate(hf_video.TimesformerConfig(num_frames=96)) == 4
    assert rate(hf_video.MViTConfig.preset("v1_b_16x4")) == 4
    assert rate(hf_video.MViTConfig.preset("v2_b_32x3")) == 3
    large = paper_protocol(hf_video.MViTConfig.preset("v2_l_40x3"))
    assert (large.clips, large.crops, large.options["rate"], large.geometry) == (5, 3, 3, "resize to crop")
    assert paper_protocol(hf_video.MViTConfig.preset("v2_s_16x4", num_labels=174)).name == "paper:ssv2"
    processor = hf_video.X3DImageProcessor(sampler_options={"rate": 12})
    assert paper_protocol(hf_video.X3DConfig.preset("xs"), processor=processor).options["rate"] == 12


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("papers", "no protocol 'papers'"),
        ("5x2", "no protocol"),
        ("0x3", "no protocol"),
        ("paper:epic", "paper:kinetics, paper:ssv2"),
        ("", "no protocol"),
    ],
)
def test_names_that_there_are_not(protocol, message):
    with pytest.raises(VideoOptionError, match=message):
        find_protocol(protocol, make_config("videomae"))


def test_other_refusals():
    with pytest.raises(VideoOptionError, match="'bert'"):
        paper_protocol(type("Config", (), {"model_type": "bert"})())
    with pytest.raises(VideoOptionError, match=r'VideoGLUE.*"1x1"'):
        paper_protocol(make_config("videoprism_vision_model"))
    with pytest.raises(VideoOptionError, match="average='mean'"):
        Protocol("mine", average="mean")
    with pytest.raises(VideoOptionError, match="clips=0"):
        Protocol("mine", clips=0)
    with pytest.raises(VideoOptionError, match="crop_size"):
        ten_crop_processor(hf_video.VideoMAEImageProcessor(do_center_crop=False))
    process = ten_crop_processor(hf_video.VideoMAEImageProcessor(size=32, crop_size=40))
    with pytest.raises(VideoArrayError, match="40x40"):
        process(moving_frames(2), 10)


def test_spellings_of_data_sets():
    for name in ("Kinetics-400", "k600", "kinetics", "K710", "kinetics_700"):
        assert dataset_name(name) == "kinetics"
    for name in ("something-something-v2", "SSv2", "sth-v2"):
        assert dataset_name(name) == "ssv2"
    assert dataset_name("UCF-101") == "ucf101"
