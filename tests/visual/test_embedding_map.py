"""`hf-video map`: near vectors lie near each other, and a browser shows a video's picture under the mouse."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny
from PIL import Image

from hf_video import cli
from hf_video.base.written_files import write_json
from hf_video.errors import BackendError, DataError, OutputError
from hf_video.features import Features
from hf_video.features.shards import MANIFEST, shard_path, write_shard
from hf_video.visual import embedding_map

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CLASSES = ["archery", "bowling </script><b>", "cricket"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """videos/ with 9 clips, and features/ of them: three heaps, one a class."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "videos").mkdir()
    names = [f"{i} <i>.mp4" for i in range(9)]
    for seed, name in enumerate(names):
        tiny.write_clip(folder / "videos" / name, 8, seed=seed)
    labels = np.repeat([0, 1, 2], 3)
    vectors = 0.1 * np.random.default_rng(0).normal(size=(9, 12)) + np.eye(12)[labels]
    features = Features(vectors.astype(np.float32), names, labels, np.tile([0.0, 1.0], (9, 1)))
    (folder / "features").mkdir()
    write_shard(shard_path(folder / "features", 0, "safetensors"), features)
    write_json(folder / "features" / MANIFEST, {"labels": CLASSES, "settings": {}})
    return folder


def data(path):
    """The points and the legend that a page holds."""
    found = re.search(r"const points = (.*), legend = (.*);\n", path.read_text())
    return json.loads(found[1]), json.loads(found[2])


def test_the_page_holds_the_map(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    page = tmp_path / "map.html"
    command = ["map", str(world / "features"), "--videos", str(world / "videos"), "-o", str(page)]
    assert cli.main(command) == cli.DONE
    out, err = capsys.readouterr()
    assert "9 points" in out
    assert "by PCA" in err
    points, legend = data(page)
    assert [one["name"] for one in legend] == CLASSES
    assert len({one["color"] for one in legend}) == 3
    places, labels = np.array([point[:2] for point in points]), np.array([point[2] for point in points])
    assert places.min() == 0
    assert places.max() == 1
    middles = np.stack([places[labels == one].mean(0) for one in range(3)])
    nearest = np.linalg.norm(places[:, None] - middles, axis=2).argmin(1)
    np.testing.assert_array_equal(nearest, labels)
    for point in points:
        picture = base64.b64decode(point[6])
        assert len(picture) <= 10_000
        assert min(Image.open(io.BytesIO(picture)).size) >= 90
    assert "http" not in page.read_text().replace("http://www.w3.org/2000/svg", "")  # needs nothing else
    assert page.stat().st_size < 80_000


def test_more_vectors_than_points_are_said(world, tmp_path, capsys):
    page = tmp_path / "map.html"
    command = ["map", str(world / "features"), "-o", str(page), "--points", "4", "--method", "pca", "--title", "A < B"]
    assert cli.main(command) == cli.DONE
    assert "5 vectors left out" in capsys.readouterr().err
    points, _ = data(page)
    assert len(points) == 4
    assert not any(point[6] for point in points)
    assert "<title>A &lt; B</title>" in page.read_text()
    assert "4 of 9 vectors" in page.read_text()


def test_a_video_that_is_gone_has_no_picture(world, tmp_path, capsys):
    shutil.copytree(world / "videos", tmp_path / "videos")
    (tmp_path / "videos" / "3 <i>.mp4").unlink()
    page = tmp_path / "map.html"
    command = ["map", str(world / "features"), "--videos", str(tmp_path / "videos"), "-o", str(page)]
    assert cli.main(command) == cli.SOME_FAILED
    assert "3 <i>.mp4" in capsys.readouterr().err
    assert [bool(point[6]) for point in data(page)[0]] == [i != 3 for i in range(9)]


def test_faults(world, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(BackendError, match="umap-learn"):
        embedding_map(world / "features", tmp_path / "map.html", method="umap")
    with pytest.raises(DataError, match="Give the folder"):
        embedding_map(world / "features", tmp_path / "map.html", videos=tmp_path)
    with pytest.raises(OutputError, match=r"\.html"):
        embedding_map(world / "features", tmp_path / "map.png")
    assert not list(tmp_path.iterdir())
    one = Features(np.ones((1, 4), np.float32), ["a"], np.array([-1]), np.full((1, 2), np.nan))
    made = embedding_map(one, tmp_path / "one.html", method="pca")
    assert (made.points, made.method) == (1, "pca")
    assert data(made.path)[0] == [[0.0, 0.0, 0, "a", None, None, ""]]


def test_umap_is_used_where_it_is(world, tmp_path):
    pytest.importorskip("umap")
    made = embedding_map(world / "features", tmp_path / "map.html")
    assert (made.method, made.share) == ("umap", None)


class Browser:
    """Headless Chromium, spoken to through a pipe (its DevTools protocol)."""

    def __init__(self, folder):
        ours, theirs = os.pipe(), os.pipe()
        flags = ["--headless", "--no-sandbox", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
        redirect = f'exec "$0" "$@" 3<&{ours[0]} 4>&{theirs[1]}'
        self.process = subprocess.Popen(
            ["bash", "-c", redirect, CHROMIUM, *flags, "--window-size=1000,700", "about:blank"],
            pass_fds=(ours[0], theirs[1]), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(ours[0])
        os.close(theirs[1])
        self.to, self.back, self.count, self.session = os.fdopen(ours[1], "wb", 0), os.fdopen(theirs[0], "rb"), 0, None

    def call(self, method, **parameters):
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        answer = b""
        while True:
            byte = self.back.read(1)
            assert byte, "the browser has gone"
            if byte != b"\0":
                answer += byte
                continue
            found, answer = json.loads(answer), b""
            if found.get("id") == self.count:
                assert "error" not in found, found
                return found["result"]

    def value(self, script):
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, address):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.navigate", url=address)
        for _ in range(200):
            with contextlib.suppress(AssertionError):  # the blank page went while it was asked
                if self.value("location.protocol !== 'about:' && document.readyState") == "complete":
                    return
            time.sleep(0.05)
        pytest.fail(f"{address} was not loaded in 10 seconds")

    def move(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_picture_is_shown_on_hover(world, tmp_path):
    page = embedding_map(world / "features", tmp_path / "map.html", videos=world / "videos", method="pca").path
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(page.as_uri())
        state = (
            "(() => {const c = document.getElementById('card'), i = c.querySelector('img');"
            "return [getComputedStyle(c).visibility, i.naturalWidth, c.querySelector('b').textContent,"
            "c.querySelector('div').textContent]})()"
        )
        assert browser.value(state)[0] == "hidden"
        assert browser.value("document.querySelectorAll('circle').length") == 9
        middle = (
            "(of => {const boxes = [...document.querySelectorAll(of)].map(one => one.getBoundingClientRect());"
            "return [['left', 'right'], ['top', 'bottom']].map(([low, high]) =>"
            "Math.min(...boxes.map(one => one[low])) / 2 + Math.max(...boxes.map(one => one[high])) / 2)})"
        )
        np.testing.assert_allclose(browser.value(f"{middle}('circle')"), browser.value(f"{middle}('svg')"), atol=3)
        for number in (4, 8):
            box = f"document.querySelectorAll('circle')[{number}].getBoundingClientRect()"
            browser.move(*(browser.value(f"{box}.{a} + {box}.{b} / 2") for a, b in (("x", "width"), ("y", "height"))))
            browser.value("document.querySelector('#card img').decode()")
            shown, width, name, about = browser.value(state)
            assert (shown, name) == ("visible", f"{number} <i>.mp4")
            assert width >= 90
            assert about == f"{CLASSES[number // 3]}, 0 - 1 s"
        browser.move(2, 2)
        assert browser.value(state)[0] == "hidden"
        browser.value("document.querySelector('#legend button').click()")
        hidden = "[...document.querySelectorAll('circle')].filter(c => c.style.display === 'none').length"
        assert browser.value(hidden) == 3
    finally:
        with contextlib.suppress(AssertionError, OSError):
            browser.session = None
            browser.call("Browser.close")
        browser.process.wait(30)
