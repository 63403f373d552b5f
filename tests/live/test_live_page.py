"""The page beside a live video: what it serves, to whom, and how it looks in a browser."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import socket
import struct
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import streams
from PIL import Image

from hf_video.cli.verbs.watch import address as parsed
from hf_video.errors import VideoOptionError
from hf_video.live import LivePage, Watch

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def get(page, path):
    with urllib.request.urlopen(page.address + path, timeout=30) as answer:
        return answer.read()


def test_what_is_served(classify):
    with streams.serve("rtsp") as server:
        watch = Watch(classify, streams.address("rtsp", server), windows="0.4s", seconds=60)
        with watch, LivePage(watch, port=0) as page:
            before = json.loads(get(page, "state.json"))
            assert (before["seconds"], before["labels"]) == (None, [])
            result = next(iter(watch))
            state = json.loads(get(page, "state.json"))
            assert state["labels"] == [[one["label"], one["score"]] for one in result.predictions]
            assert state["seconds"] == list(result.seconds)
            assert state["note"] == ""
            assert Image.open(io.BytesIO(get(page, "picture.jpg"))).size == (80, 48)
            text = get(page, "").decode()
            assert '<html lang="en">' in text
            assert 'role="status"' in text
            assert not streams.PASSWORD.search(text + json.dumps(state))
            for path in ("nothing", "../page.py", "page.html"):
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    get(page, path)
            watch.video.broken = "it ended"
            assert "broke off (it ended)" in json.loads(get(page, "state.json"))["note"]


def test_another_sites_page_reads_nothing(classify, clip, capsys):
    """A name of theirs may be made to stand for this machine (DNS rebinding)."""
    with Watch(classify, clip, realtime=True) as watch, LivePage(watch, port=0) as page:
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
        for host, code in (("evil.example", 403), ("localhost", 200), ("[::1]:80", 200), ("[::1", 403)):
            connection.request("GET", "/state.json", headers={"Host": host})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == code
        connection.close()
        assert capsys.readouterr().err == ""
        with pytest.raises(VideoOptionError, match="No page can be served"):
            LivePage(watch, port=page.port)


def test_a_browser_that_goes_away_is_no_error(classify, clip, monkeypatch, capsys):
    asked, gone = threading.Event(), threading.Event()

    def late(page):
        asked.set()
        gone.wait(30)
        return b"0" * 10_000_000

    monkeypatch.setattr(LivePage, "picture", late)
    with Watch(classify, clip, realtime=True) as watch, LivePage(watch, port=0) as page:
        browser = socket.create_connection(("127.0.0.1", page.port))
        browser.sendall(b"GET /picture.jpg HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert asked.wait(30)
        browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        browser.close()
        gone.set()
        assert get(page, "state.json")
        for thread in threading.enumerate():
            if "process_request_thread" in thread.name:
                thread.join(30)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("8000", "127.0.0.1", 8000),
        (":8000", "127.0.0.1", 8000),
        ("0.0.0.0", "0.0.0.0", 7861),
        ("camera.local:80", "camera.local", 80),
        ("[::1]:81", "::1", 81),
        ("[::1]", "::1", 7861),
        ("::1", "::1", 7861),
        ("fe80::aff:fe12", "fe80::aff:fe12", 7861),
    ],
)
def test_addresses(text, host, port):
    assert parsed(text) == (host, port)


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6(classify, clip, host):
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        pytest.skip("no address ::1 here")
    with Watch(classify, clip, realtime=True) as watch:
        with LivePage(watch, host, 0) as page:
            assert page.is_local
            assert page.address == f"http://[::1]:{page.port}/"
            assert json.loads(get(page, "state.json"))["source"] == str(clip)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_it_is_seen(classify, tmp_path):
    """Labels and picture at the widths of a screen and of a telephone, nothing wider than either."""
    playwright = pytest.importorskip("playwright.sync_api")
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    with streams.serve("ts") as server, playwright.sync_playwright() as driver:
        watch = Watch(classify, streams.address("ts", server), windows="1s/0.5s", seconds=120, top_k=5)
        with watch, LivePage(watch, port=0) as page:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            tab = browser.new_page(viewport={"width": 1280, "height": 860})
            tab.set_default_timeout(60_000)
            errors = []
            tab.on("pageerror", lambda error: errors.append(str(error)))
            results = iter(watch)
            next(results)
            tab.goto(page.address)
            for width in (1280, 420):
                tab.set_viewport_size({"width": width, "height": 860})
                next(results)
                tab.wait_for_function("document.querySelectorAll('#labels li').length === 5")
                tab.wait_for_function("document.getElementById('picture').naturalWidth > 0")
                tab.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
                tab.screenshot(path=folder / f"watch-{width}.png")
            assert not errors
            browser.close()
