"""Pixels that aren't square: said in the metadata, and shown as a player shows them where that is asked for."""

from __future__ import annotations

import json
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from hf_video import cli
from hf_video.retrieval.moments import Moment, moment_frames, sheet, write_moment
from hf_video.video import VideoReader, resize_frames

FRAMES = np.repeat(np.add.outer(np.arange(48) * 4, np.arange(64) * 1)[None, ..., None], 6, axis=0).astype(np.uint8)
FRAMES = np.concatenate([FRAMES, FRAMES // 2, 255 - FRAMES], axis=-1)


def write(path, aspect):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for pixels in FRAMES:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov", "avi", "ts"])
@pytest.mark.parametrize(("aspect", "width"), [((4, 3), 85), ((8, 9), 57), ((1, 1), 64), ((16, 15), 68)])
def test_said_and_applied(ending, aspect, width, tmp_path):
    path = write(tmp_path / f"a.{ending}", Fraction(*aspect))
    with VideoReader(path) as plain, VideoReader(path, square_pixels=True) as square:
        assert plain.metadata.sample_aspect_ratio == square.metadata.sample_aspect_ratio == Fraction(*aspect)
        assert (plain.metadata.height, plain.metadata.width) == (48, 64)
        own = plain.get_frames([0, 3]).data
        assert own.shape == (2, 48, 64, 3)
        assert np.array_equal(square.get_frames([0, 3]).data, resize_frames(own, (48, width)))
        assert next(iter(square)).data.shape == (1, 48, width, 3)
    with VideoReader(path, square_pixels=True, shortest_edge=24) as small:
        expected = (24, int(width * 24 / 48))
        assert small.get_frames([1]).data.shape[1:3] == expected
    with VideoReader(path, square_pixels=True, scaler="swscale") as other:
        assert other.get_frames([1]).data.shape[1:3] == (48, width)


def test_a_quarter_turn_makes_the_width_the_height(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", Fraction(4, 3))
    quarter = (0, 1, -1, 0)
    monkeypatch.setattr("hf_video.video.frames.pixels.display_matrix", lambda frame: quarter)
    monkeypatch.setattr("hf_video.video.decode.encoded.clockwise_degrees", lambda frame: 90)
    with VideoReader(path, square_pixels=True) as reader:
        assert (reader.metadata.height, reader.metadata.width) == (64, 48)
        assert reader.metadata.sample_aspect_ratio == Fraction(3, 4)
        assert reader.get_frames([0]).data.shape == (1, 64, 36, 3)


def test_a_shape_that_is_damage_is_said_and_not_applied(tmp_path):
    with VideoReader(write(tmp_path / "a.mp4", Fraction(17)), square_pixels=True) as reader:
        assert reader.metadata.sample_aspect_ratio == 17
        assert reader.get_frames([0]).data.shape == (1, 48, 64, 3)


def test_stills_have_square_pixels():
    with VideoReader(FRAMES, square_pixels=True) as reader:
        assert reader.metadata.sample_aspect_ratio == 1
        assert np.array_equal(reader.get_frames([0]).data, FRAMES[:1])


def test_what_people_see_is_as_wide_as_a_player_shows_it(tmp_path, capsys):
    path = write(tmp_path / "a.mp4", Fraction(2))
    moment = Moment(str(path), 0.0, 0.6, 1.0)
    assert moment_frames(moment, count=2, shortest_edge=24).shape == (2, 24, 64, 3)
    assert sheet([moment]).height < sheet([Moment(str(write(tmp_path / "b.mp4", Fraction(1))), 0.0, 0.6, 1.0)]).height
    write_moment(moment, tmp_path / "part.mp4")
    with VideoReader(tmp_path / "part.mp4") as part:
        assert (part.metadata.height, part.metadata.width) == (48, 128)
    assert cli.main(["info", str(path)]) == 0
    assert "64x48, pixels 2," in capsys.readouterr().out
    assert cli.main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["sample_aspect_ratio"] == "2"


@pytest.mark.parametrize(
    ("form", "ending"), [("argb", "mov"), ("yuva444p10le", "mov"), ("rgba", "mov"), ("bgra", "mkv")]
)
def test_opacity_of_encoded_video(form, ending, tmp_path):
    """qtrle, ProRes 4444, PNG and FFV1 with opacity lie on the background."""
    codec = {"argb": "qtrle", "yuva444p10le": "prores_ks", "rgba": "png", "bgra": "ffv1"}[form]
    share = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    colour = np.full((48, 64, 3), (200, 40, 10), np.uint8)
    with av.open(str(tmp_path / f"a.{ending}"), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, form
        rgba = np.dstack([colour, share])
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=form)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    most = 4 if codec == "prores_ks" else 0.51
    for background in ((255, 255, 255), (0, 60, 200)):
        expected = colour * (share / 255)[..., None] + np.array(background) * (1 - share / 255)[..., None]
        with VideoReader(tmp_path / f"a.{ending}", background=background) as reader:
            assert np.abs(reader.get_frames([1]).data[0] - expected).max() <= most


def test_a_palette_with_opacity(tmp_path):
    image = Image.fromarray(FRAMES[0]).quantize(16)
    image.info["transparency"] = 5
    image.save(tmp_path / "a.png")
    with av.open(str(tmp_path / "a.png")) as still, av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream_from_template(still.streams.video[0])
        for packet in still.demux(video=0):
            if packet.size:
                packet.stream, packet.pts = stream, 0
                container.mux(packet)
    expected = np.asarray(image.convert("RGB")).copy()
    expected[np.asarray(image) == 5] = (1, 2, 3)
    with VideoReader(tmp_path / "a.mov", background=(1, 2, 3)) as reader:
        assert np.array_equal(reader.get_frames([0]).data[0], expected)


@pytest.mark.parametrize("codec", ["libvpx-vp9", "libvpx"])
def test_opacity_of_webm(codec, tmp_path):
    """VP8 and VP9 keep it beside the pictures."""
    path = tmp_path / "a.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"auto-alt-ref": "0", "b": "2M", "g": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
        for number in range(12):
            rgba = np.zeros((48, 64, 4), np.uint8)
            rgba[:, 4 * number : 4 * number + 16] = 200, 40, 10, 255
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format="yuva420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoReader(path, background=(0, 90, 250)) as reader:
        assert (len(reader), reader.metadata.codec) == (12, codec.removeprefix("libvpx-").replace("libvpx", "vp8"))
        everything = np.concatenate([frames.data for frames in reader])
        for number, frame in enumerate(everything.astype(int)):
            assert np.abs(frame[:, 4 * number + 3 : 4 * number + 13] - (200, 40, 10)).max() < 30
            assert np.abs(frame[:, 4 * number + 19 :] - (0, 90, 250)).max() < 12
        for picked in ([11], [7, 0, 3], [5, 6]):
            assert np.array_equal(reader.get_frames(picked).data, everything[picked])
    with VideoReader(path, snap="keyframe") as reader:
        assert reader.get_frames([6]).indices.tolist() == [5]
        assert np.array_equal(reader.get_frames([6]).data, VideoReader(path).get_frames([5]).data)
