"""The page in a real browser: type, see, play. Slow, and only where Gradio, Playwright and Chromium are."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from trained import train_videoclip, write_glyphs

from hf_video.errors import BackendError, VideoIndexError
from hf_video.retrieval import VideoIndex
from hf_video.retrieval import page as page_module

pytest.importorskip("pyarrow")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_without_gradio_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(BackendError, match="demo"):
        page_module.serve(VideoIndex.create(tmp_path / "index"))


@pytest.mark.slow
def test_an_empty_index_is_not_served(tmp_path):
    pytest.importorskip("gradio")
    with pytest.raises(VideoIndexError, match="empty"):
        page_module.serve(VideoIndex.create(tmp_path / "index"))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """`hf-video serve` on an index of glyphs, with a model that knows their names."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("served")
    model = train_videoclip(folder / "model")
    VideoIndex.build(folder / "index", write_glyphs(folder / "clips", 96), str(model))
    port = free_port()
    command = [sys.executable, "-m", "hf_video.cli", "serve", folder / "index", "--port", port, "--device", "cpu"]
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen([str(word) for word in command], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert server.poll() is None, "the server ended"
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        yield url
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_only_the_page_is_served(address):
    for path, code in (("nothing", 404), ("gradio_api/file=/etc/hostname", 403), ("gradio_api/file=setup.cfg", 403)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/{path}", timeout=30)
        assert refused.value.code == code


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_type_see_play(address, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 860})
        tab.set_default_timeout(120_000)
        errors = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(address)
        tab.get_by_label("What is to be seen?").fill("a blue disc")
        tab.get_by_role("button", name="Search", exact=True).click()
        tab.get_by_text("the nearest first").wait_for()
        captions = tab.locator(".grid-container .caption-label")
        captions.first.wait_for()
        names = captions.all_inner_texts()
        assert len(names) >= 6
        assert "blue-disc" in names[0], names
        thumbnails = tab.locator(".grid-container img")
        assert thumbnails.first.evaluate("image => image.naturalWidth") > 0
        thumbnails.first.click()
        tab.get_by_text("blue-disc", exact=False).last.wait_for()
        tab.wait_for_function("[...document.querySelectorAll('video')].some(v => v.src && v.readyState >= 2)")
        tab.evaluate(
            "[...document.querySelectorAll('video')].filter(v => v.src).forEach(v => {v.muted = true; v.play()})"
        )
        tab.wait_for_function("[...document.querySelectorAll('video')].some(v => v.currentTime > 0.3)")
        picture = Path(os.environ.get("SCREENSHOT", tmp_path / "search.png"))
        tab.screenshot(path=picture)
        assert picture.stat().st_size > 10_000
        tab.get_by_role("button", name="Next", exact=True).click()
        tab.get_by_text("13 to").wait_for()
        assert captions.all_inner_texts() != names
        assert tab.get_by_role("button", name="Previous", exact=True).is_enabled()
        tab.set_viewport_size({"width": 420, "height": 860})  # a telephone: nothing beside the screen, nothing cut
        tab.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
        tab.wait_for_function("(e => e.scrollHeight <= e.clientHeight + 2)(document.querySelector('.grid-wrap'))")
        assert not errors
        browser.close()
