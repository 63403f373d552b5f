"""Windows of files in real time, and of streams on loopback: the newest first, counted, over breaks, to a clean end."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import time
from fractions import Fraction

import av
import numpy as np
import pytest
import streams
import tiny

from hf_video.errors import NotAVideoError, NoVideoStreamError, VideoOptionError, VideoSourceError
from hf_video.video import LiveVideo, VideoReader
from hf_video.video.live import live_video
from hf_video.video.live.source import live_media, without_password

KINDS = ("ts", "mjpg", "rtsp")


def assert_counted(live, windows):
    """Frames that were shown are those of the windows, and all others were dropped."""
    shown = {int(index) for window in windows for index in window.indices}
    assert live.frames_shown == len(shown)
    assert live.frames_read == live.frames_shown + live.frames_dropped


def assert_without_gaps(windows):
    assert all((np.diff(window.indices) == 1).all() and (np.diff(window.seconds) > 0).all() for window in windows)
    ends = [window.seconds[-1] for window in windows]
    assert ends == sorted(ends)


def test_windows_of_a_file_are_its_frames(clip):
    live = LiveVideo(clip, window=0.5, step=0.25, realtime=True)
    windows = list(live)
    with VideoReader(clip) as reader:
        for window in windows:
            np.testing.assert_array_equal(window.data, reader.get_frames(window.indices).data)
            np.testing.assert_allclose(window.seconds, reader.timestamps[window.indices], atol=1e-6)
    assert_counted(live, windows)
    assert windows[-1].indices[-1] == 23
    assert len(windows[0]) == 10
    assert live.latency(0.0) >= 1.1  # it was shown at its own speed


def test_a_slow_watcher_sees_the_newest(clip):
    live, windows = LiveVideo(clip, window=0.2, realtime=True), []
    for window in live:
        windows.append(window)
        time.sleep(0.5)
    assert_counted(live, windows)
    assert_without_gaps(windows)
    assert live.frames_dropped >= 6  # at most three windows of four frames, and the last one
    assert windows[-1].indices[-1] == 23


def test_frames_at_a_rate_are_those_on_screen(clip):
    windows = list(LiveVideo(clip, window=0.5, fps=8, realtime=True, shortest_edge=24))
    seconds = np.concatenate([window.seconds for window in windows])
    with VideoReader(clip, shortest_edge=24) as reader:
        np.testing.assert_array_equal(
            np.concatenate([window.data for window in windows]), reader.get_frames_at(seconds).data
        )
    np.testing.assert_allclose(seconds * 8, np.round(seconds * 8), atol=1e-6)


def test_turned_and_anamorphic(tmp_path):
    path = tmp_path / "phone.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 80, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        stream.set_display_rotation(90)
        for frame in tiny.moving_frames(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    for square in (False, True):
        live = LiveVideo(path, realtime=True, square_pixels=square)
        (window,) = live
        with VideoReader(path, square_pixels=square) as reader:
            np.testing.assert_array_equal(window.data, reader.get_frames(slice(None)).data)
    assert live.picture().shape == window.data.shape[1:] == (80, 36, 3)


def test_a_decoder_that_is_too_slow_goes_on_with_a_keyframe(clip, monkeypatch, tmp_path):
    path = streams_file(tmp_path / "keyframes.ts", 40)
    convert = live_video.FrameConverter.to_rgb
    monkeypatch.setattr(live_video, "MOST_BEHIND", 0.3)
    monkeypatch.setattr(
        live_video.FrameConverter, "to_rgb", lambda self, frame: time.sleep(0.12) or convert(self, frame)
    )
    live = LiveVideo(path, window=0.2, realtime=True)
    windows = list(live)
    assert_counted(live, windows)
    assert_without_gaps(windows)
    assert live.frames_read >= 38
    assert live.frames_dropped >= 5


def streams_file(path, count):
    """With a keyframe at every fifth frame."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.height, stream.width, stream.pix_fmt = 48, 80, "yuv420p"
        stream.codec_context.options = {"g": "5", "bf": "0"}
        for frame in tiny.moving_frames(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    return path


def test_packets_that_can_not_be_decoded_are_counted(tmp_path):
    path = streams_file(tmp_path / "damaged.mp4", 20)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for start, size in packets[6:8]:
        data[start : start + size] = b"\xff" * size
    path.write_bytes(data)
    live = LiveVideo(path, window=0.2, realtime=True)
    assert_counted(live, list(live))
    assert (live.packets_damaged, live.frames_read) == (2, 18)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_breaks_is_opened_again(kind, monkeypatch):
    monkeypatch.setattr(live_video, "FIRST_WAIT", 0.1)
    said, windows = [], []
    with streams.serve(kind, count=20) as server:
        address = streams.address(kind, server)
        with LiveVideo(address, window=0.4, step=0.2, on_event=said.append, seconds=60) as live:
            for window in live:
                windows.append(window)
                if live.reconnections:
                    break
            waiting = sum(not held.shown for held in live._frames)
            assert live.frames_read == live.frames_shown + live.frames_dropped + waiting
    assert server.asked >= 2
    assert_without_gaps(windows)
    assert sum("broke off" in one for one in said) >= 1
    assert any("there again" in one for one in said)
    assert not streams.PASSWORD.search(" ".join([*said, live.label, repr(live)]))


GSTREAMER = """
import sys, gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GLib, GstRtspServer
Gst.init(None)
assert Gst.ElementFactory.find("x264enc") and Gst.ElementFactory.find("rtph264pay")
server, factory = GstRtspServer.RTSPServer(service=sys.argv[1]), GstRtspServer.RTSPMediaFactory(shared=True)
picture = "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=20/1"
factory.set_launch(f"( {picture} ! x264enc tune=zerolatency key-int-max=20 ! rtph264pay name=pay0 pt=96 )")
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print("serving", flush=True)
GLib.MainLoop().run()
"""


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_gstreamers_server_is_watched_over_a_restart(transport):
    """A server that isn't ours; its first packet has no time."""
    python = shutil.which("python3", path="/usr/bin")

    def start():
        server = subprocess.Popen([python, "-c", GSTREAMER, "18571"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if server.stdout.readline() != b"serving\n":
            pytest.skip("Debian's gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-ugly and python3-gi are not here")
        return server

    server, windows = start(), []
    try:
        source = "rtsp://127.0.0.1:18571/live"
        with LiveVideo(source, window=0.5, transport=transport, timeout=3, seconds=120) as live:
            for window in live:
                windows.append(window)
                if len(windows) == 4:
                    server.kill()
                    server.wait()
                    server = start()
                if live.reconnections and len(windows) > 8:
                    break
        assert live.reconnections == 1
        assert_without_gaps(windows)
        assert windows[-1].data.shape[1:] == (120, 160, 3)
    finally:
        server.kill()
        server.wait()


def test_it_waits_longer_and_longer_for_a_server_that_is_gone(monkeypatch, caplog):
    monkeypatch.setattr(live_video, "FIRST_WAIT", 0.05)
    with streams.serve("ts", count=10) as server:
        live = iter(LiveVideo(streams.address("ts", server), window=0.2, retry=1.0))
        next(live)
        server.shutdown()
        server.server_close()
        with caplog.at_level(logging.WARNING), pytest.raises(VideoSourceError, match="isn't back: can't be opened"):
            list(live)
    told = [record.message for record in caplog.records]
    last = max((number for number, text in enumerate(told) if "there again" in text), default=-1)
    waits = [text.split()[-2] for text in told[last + 1 :]]
    assert len(waits) >= 2
    assert waits == ["0.05", "0.1", "0.2", "0.4"][: len(waits)]
    assert not streams.PASSWORD.search(caplog.text)


def test_without_retry_the_end_is_the_end():
    with streams.serve("ts", count=12) as server:
        live = LiveVideo(streams.address("ts", server), window=0.2, retry=0)
        windows = list(live)
        assert_counted(live, windows)
        assert live.frames_read == 12
        assert server.asked == 1


def test_it_ends_after_some_seconds_or_when_it_is_closed():
    with streams.serve("ts") as server:
        began = time.monotonic()
        windows = list(LiveVideo(streams.address("ts", server), window=0.2, seconds=1))
        assert windows
        assert time.monotonic() - began > 1
        live = LiveVideo(streams.address("ts", server), window=60)
        live.close()
        assert list(live) == []


def test_what_is_no_stream(clip, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    for source, error, message in (
        (99, VideoSourceError, "/dev/video99 is no camera of this machine; it has"),
        ("99", VideoSourceError, "/dev/video99"),
        ("/dev/null", VideoSourceError, "can't be opened"),
        (tmp_path, VideoSourceError, "is a folder"),
        (tmp_path / "nothing.mp4", VideoSourceError, "does not exist"),
        (tmp_path / "text.mp4", NotAVideoError, "not a video"),
        ("udp://user:secret@127.0.0.1:9", VideoSourceError, "of addresses only rtsp://"),
        ("rtsp://user:secret@no-such-host.invalid/live", VideoSourceError, "'no-such-host.invalid' is not found"),
        ("rtsp://user:secret@127.0.0.1:99999/live", VideoSourceError, "no address"),
        ("rtsp://user:secret@127.0.0.1:9/live", VideoSourceError, "refused"),
        ("http://user:secret@127.0.0.1:9/live", VideoSourceError, "refused"),
        (clip, VideoOptionError, "a recording, not live: realtime=True"),
    ):
        with pytest.raises(error, match=message) as raised:
            LiveVideo(source)
        assert not streams.PASSWORD.search(str(raised.value))
    with streams.serve("ts") as server:
        address = streams.address("ts", server)
        for path, error, message in (
            ("private", VideoSourceError, "Write the address as"),
            ("page.html", NotAVideoError, "not a video"),
        ):
            with pytest.raises(error, match=message):
                LiveVideo(address.replace("live.ts", path))
    for options, message in (
        ({"window": 0}, "window=0"),
        ({"window": 1, "step": 2}, "step=2"),
        ({"fps": -1}, "fps=-1"),
        ({"retry": -1}, "retry=-1"),
        ({"seconds": 0}, "seconds=0"),
        ({"transport": "smoke"}, "transport='smoke'"),
    ):
        with pytest.raises(VideoOptionError, match=message):
            LiveVideo(clip, realtime=True, **options)


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.ts"
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4410), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(NoVideoStreamError):
        LiveVideo(path, realtime=True)


def test_a_window_that_memory_can_not_hold(clip, monkeypatch):
    monkeypatch.setattr(live_video, "MOST_BYTES", 48 * 80 * 3 * 8)
    with pytest.raises(VideoOptionError, match="1 GiB: shorten it"):
        list(LiveVideo(clip, window=0.5, realtime=True))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://user:p@ss@host:8554/live?a=b@c", "rtsp://***@host:8554/live?a=b@c"),
        ("http://host/live@2x", "http://host/live@2x"),
        ("http://token@host", "http://***@host"),
        ("rtsp://user:p/w@host/live", "rtsp://***@host/live"),
        ("rtsp://user:12/3@host/live is broken", "rtsp://***@host/live is broken"),
        ("rtsp://host:8554/live", "rtsp://host:8554/live"),
        ("http://host/video?user=me&pwd=secret&channel=2", "http://host/video?user=me&pwd=***&channel=2"),
        ("http://host/video?accessToken=secret", "http://host/video?accessToken=***"),
    ],
)
def test_passwords_are_masked(text, shown):
    assert without_password(text) == shown


@pytest.mark.parametrize("address", ["rtsp://user:se/cret@host/live", "rtsp://user:1/secret@host.invalid/live"])
def test_an_address_that_is_none_is_told_without_its_password(address):
    with pytest.raises(VideoSourceError) as told:
        LiveVideo(address)
    assert "cret" not in str(told.value)


def test_a_camera_that_may_not_be_opened(monkeypatch):
    def refused(*_, **__):
        raise av.error.PermissionError(errno.EACCES, "Permission denied", "/dev/null")

    monkeypatch.setattr(av, "open", refused)
    with pytest.raises(VideoSourceError, match=r"Permission denied\. Cameras are for the group 'video'"):
        LiveVideo("/dev/null")


def test_a_file_may_have_a_number_for_a_name(tmp_path, monkeypatch, clip):
    monkeypatch.chdir(tmp_path)
    os.symlink(clip, "7")
    assert live_media("./7").kind == "path"
