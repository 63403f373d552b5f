"""`hf-video annotate`: what comes out is decoded again and looked at: upright, unsquashed, in time, in sync."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import clapper
import numpy as np
import pytest
import tiny

from hf_video import cli
from hf_video.base.detection.types import Detection, write_detections
from hf_video.errors import VideoOptionError, VideoWriteError
from hf_video.video import Sound, VideoReader, write_video
from hf_video.visual import annotate_video, draw_on_video

REGULAR = np.arange(51) / 25
IRREGULAR = np.append(0, np.cumsum(np.random.default_rng(0).uniform(0.02, 0.09, 38)))
WINDOWS = [
    {"seconds": (at, at + 1.0), "predictions": [{"label": label, "score": score}, {"label": "none", "score": 0.1}]}
    for at, label, score in ((0.0, "diving", 0.9), (1.0, "eating", 0.5))
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny.save_tiny(tmp_path_factory.mktemp("model")))


def pixels(path):
    with VideoReader(path) as reader:
        return reader.get_frames(slice(None)).data, reader.timestamps, reader.end, reader.metadata


def flashes(frames, seconds):
    return seconds[np.flatnonzero(np.diff(clapper.lit(frames).astype(int)) == 1) + 1]


def is_upright(frame):
    height, width = frame.shape[:2]
    means = [
        frame[rows, columns].reshape(-1, 3).mean(0)
        for rows in (slice(0, height // 8), slice(height // 2, 5 * height // 8))
        for columns in (slice(0, width // 8), slice(7 * width // 8, width))
    ]
    red = [mean[0] - mean[1] for mean in means]
    return red[0] > 120 and max(red[1:]) < 30


def disc(frame):
    """Height and width in pixels of the green disc."""
    green = (frame[..., 1] > 150) & (frame[..., 0] < 110)
    return int(green.any(1).sum()), int(green.any(0).sum())


@pytest.mark.parametrize(
    ("name", "clip", "output"),
    [
        ("phone.mp4", {"rotation": 90}, "labelled.mp4"),
        ("held_left.mov", {"rotation": -90, "audio": "pcm_s16le"}, "labelled.mp4"),
        ("television.mp4", {"aspect": Fraction(4, 3)}, "labelled.mov"),
        ("wide.mkv", {"aspect": Fraction(64, 45), "audio": "libopus"}, "labelled.mkv"),
        ("camera.mp4", {"times": IRREGULAR}, "labelled.mp4"),
        ("camera.mkv", {"times": IRREGULAR, "begin": 1.0, "audio": "libopus"}, "labelled.mkv"),
        ("broadcast.ts", {"begin": 20.0, "audio": "mp2"}, "labelled.mp4"),
        ("old.mov", {"audio": "pcm_s16le"}, "labelled.avi"),
    ],
)
def test_odd_clips_come_out_right(name, clip, output, model, tmp_path, capsys):
    clip = {"times": REGULAR, **clip}
    source = clapper.write(tmp_path / name, **clip)
    code = cli.main(["annotate", str(source), "-m", model, "-o", str(tmp_path / output), "--windows", "1s", "--quiet",
                     "--scale", "2", "--top-k", "1"])  # fmt: skip
    assert code == cli.DONE, capsys.readouterr().err
    with VideoReader(source) as reader:
        times, end = reader.timestamps, reader.end
    frames, seconds, written_end, metadata = pixels(tmp_path / output)
    assert len(frames) == len(times) == len(clip["times"]) - 1
    assert metadata.rotation == 0
    assert metadata.sample_aspect_ratio == 1
    assert frames.shape[1:3] == (240, 2 * round(160 * float(clip.get("aspect", 1))))
    assert all(is_upright(frame) for frame in frames)
    dark = next(frame for frame, lit in zip(frames, clapper.lit(frames), strict=True) if not lit)
    tall, wide = disc(dark)
    assert tall > 100
    assert abs(wide - tall) <= 4
    # Every frame keeps its place among the others (Matroska says milliseconds), and from the sound.
    shifts = seconds - times
    assert np.ptp(shifts) <= (0.0011 if output.endswith(("mkv", "webm")) else 2e-5)
    if name.endswith((".mp4", ".mov")) and output.endswith((".mp4", ".mov")):
        assert np.abs(shifts).max() < 2e-5
    steps = np.diff(times)
    for flash, before in zip(flashes(frames, seconds), flashes(*_square(source)), strict=True):
        beep = min(clapper.first_beeps(tmp_path / output), key=lambda heard: abs(heard - flash))
        asked = before - min(clapper.first_beeps(source), key=lambda heard: abs(heard - before))
        moved = abs((flash - beep) - asked)
        assert moved <= (steps.max() + 1e-6 if output.endswith("avi") else 0.003)  # H.264 in avi is read a frame late
        assert abs(flash - beep) <= steps.max() + 0.04
    assert abs((written_end - seconds[0]) - (end - times[0])) <= steps.max()


def _square(path):
    frames, seconds, *_ = pixels(path)
    return frames, seconds


def test_labels_and_their_bars_are_drawn(tmp_path):
    source = clapper.write(tmp_path / "a.mp4", REGULAR, audio=None)
    colors = {"diving": "#ff0000", "eating": "blue"}
    written = annotate_video(source, WINDOWS, tmp_path / "b.mkv", colors=colors, codec="ffv1", scale=2, top_k=1)
    assert (written.frames, written.size, written.sound) == (50, (120, 160), ())
    frames, seconds, _, _ = pixels(written.path)
    assert np.abs(seconds - REGULAR[:-1]).max() < 0.001
    bar, line = frames[:, 202:210], frames[:, 232]
    first, second = bar[:25], bar[25:]

    def length(rows, channel):  # of the coloured part
        other = [c for c in range(3) if c != channel]
        return int(((rows[..., channel] > 170) & (rows[..., other] < 90).all(-1)).any(0).sum())

    red, blue = length(first[3], 0), length(second[3], 2)
    assert length(first[3], 2) == length(second[3], 0) == 0
    assert red / blue == pytest.approx(0.9 / 0.5, rel=0.1)
    # The line of time: red for the first half, blue for the second, and a mark that moves along.
    assert 0.8 < length(line[:1], 0) / length(line[:1], 2) < 1.25
    marks = [int(np.flatnonzero((row > 240).all(-1))[0]) for row in line]
    assert (np.diff(marks) >= 0).all()
    assert marks[-1] - marks[0] > 200


def test_of_windows_that_overlap_the_nearest_is_shown(tmp_path):
    source = clapper.write(tmp_path / "a.mp4", REGULAR, audio=None)
    labels = ("red", "lime", "blue")
    windows = [
        {"seconds": (i / 2, i / 2 + 1), "predictions": [{"label": one, "score": 1.0}]} for i, one in enumerate(labels)
    ]
    written = annotate_video(source, windows, tmp_path / "b.mkv", colors={one: one for one in labels}, codec="ffv1")
    frames, *_ = pixels(written.path)
    shown = frames[:, 203, 180].argmax(-1)
    np.testing.assert_array_equal(shown, [0] * 19 + [1] * 13 + [2] * 18)  # middles at 0.5, 1.0 and 1.5 s


def test_events_and_boxes(tmp_path):
    source = clapper.write(tmp_path / "a.mp4", REGULAR, aspect=Fraction(2), audio=None)
    boxes = ((0.0, 10.0, 20.0, 40.0, 60.0), (2.0, 50.0, 20.0, 80.0, 60.0))
    events = [Detection("jump", 0.8, 0.0, 1.0), Detection("throw", 0.6, 0.5, 1.5)]
    plain = annotate_video(source, events, tmp_path / "b.mkv", colors=["red", "blue"], codec="ffv1", scale=2)
    frames, *_ = pixels(plain.path)
    line = frames[0, 232]
    assert ((line[:, 0] > 200) & (line[:, 2] < 60)).sum() > ((line[:, 2] > 200) & (line[:, 0] < 60)).sum() > 50
    moving = [Detection("jump", 0.8, 0.0, 2.0, boxes)]
    boxed = annotate_video(source, moving, tmp_path / "c.mkv", colors=["red"], codec="ffv1", scale=1, size=8)
    frames, *_ = pixels(boxed.path)
    for number, left in ((0, 20), (25, 60), (49, 98)):  # pixels of the file are two of the output
        edge = np.flatnonzero((frames[number, 50, :, 0] > 230) & (frames[number, 50, :, 1] < 30))
        assert abs(edge[0] - left) <= 1
        assert abs(edge[-1] - left - 60) <= 1


def test_more_boxes_at_once_than_labels_are_listed(tmp_path):
    """Every box is drawn, and an event without one is listed beside them."""
    source = clapper.write(tmp_path / "a.mp4", REGULAR, audio=None)
    tops = (25.0, 45.0, 65.0, 85.0)
    events = [Detection(f"walk {y}", 1 - y / 100, 0.0, 2.0, ((0.0, 30.0, y, 60.0, y + 9),)) for y in tops]
    annotate_video(source, events, tmp_path / "b.mkv", colors=["red"], codec="ffv1", scale=1, size=6, top_k=2)
    frames, *_ = pixels(tmp_path / "b.mkv")
    red = (frames[0, :, 60, 0] > 230) & (frames[0, :, 60, 1] < 30)  # the right sides of the boxes
    assert all(red[round(y) + 2 : round(y) + 8].all() for y in tops)

    wide = {"source": source, "colors": {"jump": "blue"}, "codec": "ffv1", "scale": 1, "size": 6, "top_k": 1}
    annotate_video(results=[Detection("jump", 0.99, 0.0, 2.0), *events], path=tmp_path / "c.mkv", **wide)
    frames, *_ = pixels(tmp_path / "c.mkv")
    blue = (frames[0, :, 70, 2] > 180) & (frames[0, :, 70, 0] < 80)
    assert blue.sum() >= 8  # the bar of the label, and the line of time below


def test_events_of_a_file(model, tmp_path, capsys):
    source = clapper.write(tmp_path / "match.mp4", REGULAR, audio=None)
    write_detections(tmp_path / "events.json", {"match": [Detection("jump", 0.8, 0.2, 1.0)]})
    command = ["annotate", str(source), "--events", str(tmp_path / "events.json"), "-o", str(tmp_path / "out.gif")]
    assert cli.main(command) == cli.DONE
    assert "out.gif: 50 frames" in capsys.readouterr().out
    for more, word in (
        (["--windows", "2s"], "--windows is for a model"),
        (["--device", "cpu", "--dtype", "bf16"], "--device, --dtype is for a model"),
        (["--threshold", "model"], "for --events give a score"),
        (["--colors", "red,jump=blue"], "a mixture"),
    ):
        assert cli.main(command + more) == cli.WRONG
        assert word in capsys.readouterr().err


@pytest.mark.parametrize("codec", ["h264", "h265", "vp9", "mpeg4", "ffv1", "mjpeg"])
def test_codecs_keep_irregular_times(codec, tmp_path):
    source = clapper.write(tmp_path / "a.mp4", IRREGULAR[:20], size=(64, 64), audio=None)
    options = {"pixel_format": "yuvj420p"} if codec == "mjpeg" else {}
    with VideoReader(source) as reader:
        frames, times = (frame.data[0] for frame in reader), reader.timestamps
        path = write_video(tmp_path / "b.mkv", frames, codec=codec, seconds=np.append(times, reader.end), **options)
    with VideoReader(path) as reader:
        np.testing.assert_allclose(reader.timestamps, times, atol=0.00051)


def test_predictions_of_the_whole_video_are_shown_throughout(model, tmp_path):
    source = tiny.write_clip(tmp_path / "a.mp4")
    command = ["annotate", str(source), "-m", model, "-o", str(tmp_path / "b.mp4"), "--windows", "all"]
    assert cli.main(command) == cli.DONE
    frames, *_ = pixels(tmp_path / "b.mp4")
    assert len(frames) == 24


def test_a_file_object_is_read_for_pictures_and_sound(tmp_path, monkeypatch):
    """Both read it at places of their own; noise, so that it is larger than what is read at once."""
    random = np.random.default_rng(0)
    monkeypatch.setattr(clapper, "picture", lambda *_: random.integers(0, 255, (120, 160, 3), np.uint8))
    source = clapper.write(tmp_path / "a.mkv", REGULAR, audio="pcm_s16le")
    assert source.stat().st_size > 500_000
    given = io.BytesIO(source.read_bytes())
    drawn = [
        draw_on_video(one, tmp_path / name, lambda _: lambda image, _: image, codec="ffv1")
        for one, name in ((source, "b.mkv"), (given, "c.mkv"))
    ]
    (expected, *_), (found, *_) = (pixels(one.path) for one in drawn)
    np.testing.assert_array_equal(found, expected)
    assert clapper.first_beeps(drawn[1].path) == clapper.first_beeps(source)
    assert not given.closed


def test_sound_is_written_once(tmp_path):
    source = clapper.write(tmp_path / "a.mp4", REGULAR)
    sound = Sound(source)
    frames = [clapper.picture(0, 64, 64)] * 25
    write_video(tmp_path / "b.mp4", frames, 25, sound=sound)
    assert sound.tracks == ("aac copied",)
    with pytest.raises(VideoWriteError, match="make a new one"):
        write_video(tmp_path / "c.mp4", frames, 25, sound=sound)
    assert not (tmp_path / "c.mp4").exists()
    assert Sound(frames).start is None


def test_a_silent_source_and_frames_without_sound(tmp_path):
    frames = tiny.moving_frames()
    written = annotate_video(frames, WINDOWS[:1], tmp_path / "a.mp4", fps=8)
    assert (written.frames, written.sound) == (24, ())
    assert len(VideoReader(written.path)) == 24


def test_damaged_frames_are_repeated_where_asked(tmp_path):
    source = clapper.write(tmp_path / "a.mp4", REGULAR)
    data = bytearray(source.read_bytes())
    start = data.index(b"mdat") + len(data) // 3
    data[start : start + 600] = bytes(600)
    source.write_bytes(bytes(data))
    written = annotate_video(source, WINDOWS, tmp_path / "b.mp4", on_error="repeat")
    assert written.frames == 50


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"colors": ["nocolour"]}, "orange"),
        ({"colors": "red"}, "list of colours"),
        ({"font": "no.ttf"}, "TrueType"),
        ({"size": 90, "scale": 1}, "don't fit"),
        ({"top_k": 0}, "top_k"),
    ],
)
def test_options_that_cannot_be(options, word, tmp_path):
    source = tiny.write_clip(tmp_path / "a.mp4")
    with pytest.raises(VideoOptionError, match=word):
        annotate_video(source, WINDOWS, tmp_path / "b.mp4", **options)
    assert not (tmp_path / "b.mp4").exists()


def test_letters_that_the_font_lacks(tmp_path):
    source = tiny.write_clip(tmp_path / "a.mp4")
    windows = [{"seconds": (0, 1), "predictions": [{"label": "射箭", "score": 0.5}]}]
    with pytest.raises(VideoOptionError, match="The font has no"):
        annotate_video(source, windows, tmp_path / "b.mp4")


def test_nothing_is_written_over_the_source_or_left_half_written(tmp_path):
    source = tiny.write_clip(tmp_path / "a.mp4")
    before = source.read_bytes()
    with pytest.raises(VideoWriteError, match="is the video that is read"):
        annotate_video(source, WINDOWS, source)
    with pytest.raises(VideoOptionError, match="windows"):
        annotate_video(source, [{"label": "x"}], tmp_path / "b.mp4")
    with pytest.raises(ZeroDivisionError):
        draw_on_video(source, tmp_path / "b.mp4", lambda video: lambda image, seconds: 1 / 0)
    assert source.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("seconds", "word"),
    [([0, 1], "and more came"), (range(5), "came"), ([0, 1, 1, 2], "greater"), ([-1, 0, 1, 2], "from 0 up")],
)
def test_times_that_do_not_fit(seconds, word, tmp_path):
    with pytest.raises(VideoWriteError, match=word):
        write_video(tmp_path / "a.mp4", np.zeros((3, 32, 32, 3), np.uint8), seconds=seconds)
    assert not list(tmp_path.iterdir())


def test_sound_that_a_webm_cannot_hold_is_encoded_anew(tmp_path):
    source = clapper.write(tmp_path / "a.mp4", REGULAR)
    fast = {"deadline": "realtime", "cpu-used": 8}
    written = annotate_video(source, WINDOWS, tmp_path / "b.webm", codec="vp8", scale=1, size=8, options=fast)
    assert written.sound == ("aac became opus",)
    np.testing.assert_allclose(clapper.first_beeps(written.path), clapper.first_beeps(source), atol=0.003)


def test_sound_that_can_not_be_read_on_is_said(tmp_path, caplog):
    class Breaks:
        def __init__(self, container):
            self.streams, self.close, self.packets = container.streams, container.close, container.demux

        def demux(self, streams):
            for packet in self.packets(streams):
                if packet.pts >= clapper.RATE:
                    raise av.error.OSError(5, "Input/output error")
                yield packet

    source = clapper.write(tmp_path / "a.mp4", REGULAR)
    sound = Sound(source)
    sound._container = Breaks(sound._container)
    written = write_video(tmp_path / "b.mp4", pixels(source)[0], 25, sound=sound)
    sound.close()
    assert len(clapper.first_beeps(written)) == 1
    assert f"The sound of {source} can't be read on after 0.96 s (Input/output error)" in caplog.text


def test_joined_recordings_whose_times_go_back(tmp_path):
    parts = [clapper.write(tmp_path / f"{i}.ts", REGULAR, begin=begin) for i, begin in enumerate((5.0, 0.0))]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    written = annotate_video(joined, WINDOWS, tmp_path / "a.mp4")
    assert (written.frames, written.sound) == (100, ("aac copied",))
    assert len(clapper.first_beeps(written.path)) == 4


def test_a_recording_that_broke_off_keeps_its_last_frames(tmp_path):
    whole = clapper.write(tmp_path / "whole.ts", REGULAR)
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with VideoReader(cut, on_error="repeat") as reader:
        count = len(list(reader))
    assert 20 < count < 50
    written = annotate_video(cut, WINDOWS, tmp_path / "a.mp4", on_error="repeat")
    assert written.frames == count
    assert len(list(VideoReader(written.path))) == count
