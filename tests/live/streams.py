"""Servers of live video on loopback, of this process alone: RTSP over TCP, and MPEG-TS or Motion JPEG over HTTP."""

from __future__ import annotations

import io
import re
import socket
import socketserver
import struct
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import tiny
from PIL import Image

FPS = 20
FRAMES = tiny.moving_frames(40)
SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track\r\n"
)


def encode(target, form: str, stopped: threading.Event, *, count: int | None = None, options=None) -> None:
    """Writes `count` frames, or frames without end, in real time."""
    with av.open(target, "w", format=form, options=options or {}) as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width = FRAMES.shape[1:3]
        stream.codec_context.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "g": "5",
            "x264-params": "repeat-headers=1",
        }
        begin, number = time.monotonic(), 0
        while number != count and not stopped.wait(max(begin + number / FPS - time.monotonic(), 0)):
            frame = av.VideoFrame.from_ndarray(FRAMES[number % len(FRAMES)])
            frame.pts = number
            container.mux(stream.encode(frame))
            number += 1


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    block_on_close = False

    def __init__(self, port, handler, *, count=None):
        """`count` frames are sent to each viewer, and `asked` counts these."""
        self.stopped, self.count, self.asked = threading.Event(), count, 0
        super().__init__(("127.0.0.1", port), handler)
        self.port = self.server_address[1]


class _Rtsp(socketserver.StreamRequestHandler):
    """One viewer: packets of FFmpeg's RTP muxer, which writes to a UDP port, between the answers (RFC 2326, 10.12)."""

    def handle(self):
        self.server.asked += 1
        while line := self.rfile.readline().decode():
            method, headers = line.split(" ")[0], {}
            while (header := self.rfile.readline().decode().strip()) != "":
                name, _, value = header.partition(":")
                headers[name.lower()] = value.strip()
            extra = {
                "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
                "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n",
                "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n",
            }.get(method, "")
            self.answer(
                f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\nSession: 1\r\n{extra}\r\n"
                + SDP * (method == "DESCRIBE")
            )
            if method == "PLAY":
                return self.play()
            if method == "TEARDOWN":
                return None
        return None

    def answer(self, text):
        self.wfile.write(text.encode())

    def play(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
            packets.bind(("127.0.0.1", 0))
            packets.settimeout(0.5)
            target = f"rtp://127.0.0.1:{packets.getsockname()[1]}?pkt_size=1200"
            gone = threading.Event()
            writer = threading.Thread(target=self.encode, args=(target, gone), daemon=True)
            writer.start()
            try:
                while writer.is_alive() and not self.server.stopped.is_set():
                    try:
                        packet = packets.recv(65536)
                    except TimeoutError:
                        continue
                    if packet[1] & 0x7F == 96:  # no reports
                        self.wfile.write(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
            except OSError:
                pass
            finally:
                gone.set()
                writer.join()

    def encode(self, target, gone):
        stop = _Either(gone, self.server.stopped)
        encode(target, "rtp", stop, count=self.server.count, options={"payload_type": "96"})


class _Either:
    def __init__(self, *events):
        self.events = events

    def wait(self, seconds):
        return self.events[0].wait(seconds) or any(one.is_set() for one in self.events)


class _Http(BaseHTTPRequestHandler):
    """/live.ts is MPEG-TS, /live.mjpg Motion JPEG, /page.html no video, /private asks for a password."""

    def do_GET(self):
        self.server.asked += 1
        if self.path == "/private":
            return self.send_error(401)
        kinds = {"/live.ts": "video/mp2t", "/live.mjpg": "multipart/x-mixed-replace; boundary=frame"}
        self.send_response(200)
        self.send_header("Content-Type", kinds.get(self.path, "text/html"))
        if self.path not in kinds:
            self.send_header("Content-Length", "28")
        self.end_headers()
        try:
            if self.path == "/live.ts":
                encode(_Unseekable(self.wfile), "mpegts", self.server.stopped, count=self.server.count)
            elif self.path == "/live.mjpg":
                self.motion_jpeg()
            else:
                self.wfile.write(b"<html>no video at all</html>")
        except OSError:
            pass
        return None

    def motion_jpeg(self):
        number, pause = 0, 1 / FPS
        while number != self.server.count and not self.server.stopped.wait(pause):
            file = io.BytesIO()
            Image.fromarray(FRAMES[number % len(FRAMES)]).save(file, "JPEG")
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {file.tell()}\r\n\r\n"
            self.wfile.write(head.encode() + file.getvalue() + b"\r\n")
            number += 1

    def log_message(self, *_):
        pass


class _Unseekable:
    def __init__(self, file):
        self.write = file.write


class _HttpServer(_Server, ThreadingHTTPServer):
    pass


@contextmanager
def serve(kind: str, *, port: int = 0, count: int | None = None):
    """A server whose streams end after `count` frames, or when this ends; `port` and `asked`, the viewers so far."""
    server = _Server(port, _Rtsp, count=count) if kind == "rtsp" else _HttpServer(port, _Http, count=count)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()


def run(kind: str, port: int, count: int) -> None:
    """A server until its process is ended."""
    with serve(kind, port=port, count=count):
        threading.Event().wait()


def address(kind: str, server) -> str:
    return (
        f"rtsp://user:secret@127.0.0.1:{server.port}/live"
        if kind == "rtsp"
        else f"http://user:secret@127.0.0.1:{server.port}/live.{kind}"
    )


PASSWORD = re.compile("secret")
