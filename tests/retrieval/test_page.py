"""The search page: its server over HTTP, and (slow, where Playwright and Chromium are) the page in a real browser."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from library import textured, write_library
from PIL import Image
from trained import train_videoclip

import hf_video
from hf_video.data.moving_glyphs import moving_glyphs
from hf_video.errors import VideoIndexError
from hf_video.retrieval import VideoIndex
from hf_video.retrieval import page as page_module
from hf_video.video import VideoReader, write_video

pytest.importorskip("pyarrow")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_an_empty_index_is_not_served(tmp_path):
    with pytest.raises(VideoIndexError, match="empty"):
        page_module.serve(VideoIndex.create(tmp_path / "index"))


# -- the server --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(address, folder of clips): prints of eleven clips, one of them long."""
    folder = tmp_path_factory.mktemp("served")
    write_library(folder / "clips", 10, frames=24, size=96)
    write_video(folder / "clips/below <b>.mp4", textured(9, seed=3), fps=24)
    index = VideoIndex.build(folder / "index", folder / "clips", "fingerprint")
    assert index.videos == 11
    index = VideoIndex.open(folder / "index")
    (folder / "made").mkdir()
    server = page_module.SearchServer(index, ("127.0.0.1", 0), folder / "made")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", folder / "clips"
    server.shutdown()
    server.server_close()


def ask(address, path, body=None, **headers):
    request = urllib.request.Request(f"{address}{path}", data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def search(address, body, **asked):
    code, _, answer = ask(address, f"/search?{urlencode(asked)}", body)
    return code, json.loads(answer) if code == 200 else answer.decode()


def test_results_are_those_of_the_index_grouped_by_video(served):
    address, clips = served
    body = (clips / "below <b>.mp4").read_bytes()
    code, found = search(address, body, kind="video", page=0)
    assert code == 200
    best = found["videos"][0]
    assert best["name"] == "below <b>.mp4"
    assert (best["begin"], best["end"], best["gone"]) == (0, pytest.approx(9, abs=0.1), False)
    assert [one["start"] for one in best["moments"]] == sorted(one["start"] for one in best["moments"])
    expected = VideoIndex.open(clips.parent / "index").search(video=body, top_k=page_module.MOST_MOMENTS)
    mine = [moment for moment in expected if moment.path == str(clips / "below <b>.mp4")]
    assert sorted((one.start, one.end) for one in mine) == [(one["start"], one["end"]) for one in best["moments"]]
    order = list(dict.fromkeys(Path(moment.path).name for moment in expected))
    _, second = search(address, body, kind="video", page=1)
    names = [video["name"] for video in (*found["videos"], *second["videos"])]
    assert names == order
    assert (found["total"], found["first"], second["first"]) == (len(order), 1, 9)
    assert len(found["videos"]) == page_module.VIDEOS_OF_A_PAGE
    _, strict = search(address, body, kind="video", page=0, threshold=best["moments"][0]["score"] - 0.01)
    assert strict["total"] < found["total"]
    assert all(one["score"] >= best["moments"][0]["score"] - 0.01 for v in strict["videos"] for one in v["moments"])


def test_an_image_finds_its_video(served):
    address, clips = served
    with VideoReader(clips / "clip4.mkv") as reader:
        frame = reader.get_frames([12]).data[0]
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "png")
    _, found = search(address, data.getvalue(), kind="image", page=0)
    assert found["videos"][0]["name"] == "clip4.mkv"


def test_pictures_and_clips(served):
    address, clips = served
    _, found = search(address, (clips / "clip2.mkv").read_bytes(), kind="video", page=0)
    video = found["videos"][0]
    code, headers, data = ask(address, f"/picture?video={video['video']}&at=1")
    assert (code, headers["Content-Type"]) == (200, "image/jpeg")
    with VideoReader(clips / "clip2.mkv", shortest_edge=180) as reader:
        expected = reader.get_frames_at([1.0]).data[0].astype(int)
    assert np.abs(np.asarray(Image.open(io.BytesIO(data))).astype(int) - expected).mean() < 12
    path = f"/clip?video={video['video']}&start=1&end=2"
    code, headers, data = ask(address, path)
    assert (code, headers["Content-Type"], int(headers["Content-Length"])) == (200, "video/mp4", len(data))
    with VideoReader(data) as reader:
        assert len(reader) == 8
    code, headers, part = ask(address, path, Range="bytes=100-199")
    assert (code, part, headers["Content-Range"]) == (206, data[100:200], f"bytes 100-199/{len(data)}")


@pytest.mark.parametrize(
    ("path", "body", "code", "message"),
    [
        ("/nothing", None, 404, "nothing here"),
        ("/../../etc/hostname", None, 404, "nothing here"),
        ("/picture?video=99&at=1", None, 404, "nothing here"),
        ("/picture?video=-1&at=1", None, 404, "nothing here"),
        ("/picture?video=0&at=nan", None, 422, "at='nan' must be a number"),
        ("/search?kind=text", b"a disc", 422, "text"),
        ("/search?kind=dance", b"a", 422, "by text, video or image; 'dance' came"),
        ("/search?kind=image", b"no image", 422, "no image that can be read"),
        ("/search?kind=video", b"no video", 422, "not a video"),
        ("/search?kind=video&threshold=high", b"x", 422, "threshold='high' must be a number"),
        ("/search?kind=video", b"", 422, "0 MiB came"),
        ("/search?kind=video&page=-1", b"x", 422, "page=-1 must be 0 or more"),
    ],
)
def test_what_is_wrong_is_a_sentence(served, path, body, code, message):
    found, _, answer = ask(served[0], path, body)
    assert found == code
    assert message in answer.decode()


def test_a_fault_of_our_own_is_not_taken_for_nothing_there(served, monkeypatch, capsys):
    monkeypatch.setattr(page_module.SearchServer, "picture", lambda *_: {}["no such key"])
    code, _, answer = ask(served[0], "/picture?video=0&at=0")
    assert (code, b"fault of hf-video" in answer) == (500, True)
    assert "no such key" in capsys.readouterr().err


@pytest.mark.parametrize(("path", "host"), [("/nothing", "localhost"), ("/search?kind=video", "elsewhere.example")])
def test_what_is_refused_unread_is_not_taken_for_the_next_request(served, path, host):
    with socket.create_connection(urlsplit(served[0]).netloc.split(":")) as browser:
        browser.settimeout(5)
        browser.sendall(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\n".encode())
        answer = b""
        while part := browser.recv(4096):  # to the end of the connection
            answer += part
        assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 403"))


def test_a_file_that_is_gone_is_said(served, tmp_path):
    address, clips = served
    body = (clips / "clip7.mkv").read_bytes()
    search(address, body, kind="video", page=0)
    away = (clips / "clip8.mkv").rename(tmp_path / "clip8.mkv")
    try:
        code, found = search(address, away.read_bytes(), kind="video", page=0)
        (video,) = [one for one in found["videos"] if one["name"] == "clip8.mkv"]
        assert code == 200
        code, _, answer = ask(address, f"/picture?video={video['video']}&at=1")
        assert code == 422
        assert "clip8.mkv" in answer.decode()
    finally:
        away.rename(clips / "clip8.mkv")


def test_other_names_for_this_machine_are_refused(served):
    """A site whose name leads to 127.0.0.1 must not read the answers."""
    code, _, answer = ask(served[0], "/", Host="elsewhere.example:7860")
    assert (code, answer) == (403, b"This page is for this machine only.")
    code, headers, answer = ask(served[0], "/", Host="localhost:7860")
    assert code == 200
    assert headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert b"of 11 videos" in answer


# -- the page in a browser ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """`hf-video serve` on reels of eight glyphs, three seconds each, with a model that knows their names."""
    folder = tmp_path_factory.mktemp("served")
    model = train_videoclip(folder / "model")
    (folder / "clips").mkdir()
    clips = moving_glyphs(96, 1000, num_frames=24, speed=4)
    for number in range(12):
        scenes = clips[number * 8 : number * 8 + 8]
        write_video(folder / "clips" / f"reel-{number:02}.mp4", np.concatenate([s.frames for s in scenes]), 8)
    VideoIndex.build(folder / "index", folder / "clips", str(model), window="3s")
    command = [sys.executable, "-m", "hf_video.cli", "serve", folder / "index", "--port", "0", "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(hf_video.__file__).parents[1])}
    server = subprocess.Popen(
        [str(word) for word in command], env=environment, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        line = next(line for line in server.stdout if "Search page" in line)
        yield line.split()[2], clips, folder
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_tab(browser, address, width=1280, height=860):
    tab = browser.new_page(viewport={"width": width, "height": height})
    tab.set_default_timeout(120_000)
    tab.faults = []
    tab.on("pageerror", lambda error: tab.faults.append(str(error)))
    tab.goto(address)
    return tab


def until(tab, condition):
    """Waits until an expression is true in the page, whose policy forbids what Playwright's own waiting does."""
    for _ in range(600):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(100)
    raise AssertionError(condition)


def find(tab, text):
    tab.get_by_label("What is to be seen?").fill(text)
    tab.keyboard.press("Enter")
    tab.get_by_text("the nearest first").wait_for()
    until(tab, "[...document.images].slice(0, 2).every(i => i.complete && i.naturalWidth > 0)")


@pytest.mark.slow
def test_type_see_play(address, browser, tmp_path):
    url, clips, folder = address
    tab = open_tab(browser, url)
    find(tab, "a blue disc")
    first = tab.locator("li.video").first
    number = int(first.locator("h2").inner_text()[5:7])
    second = [s for s in range(8) if (clips[number * 8 + s].color, clips[number * 8 + s].shape) == ("blue", "disc")]
    best = max(first.locator(".moments button").all(), key=lambda b: float(b.inner_text().split()[-1]))
    assert second, "the nearest reel has a blue disc"
    starts = [3 * s for s in second]
    minute, rest = best.inner_text().split("–")[0].split(":")
    assert any(start <= int(minute) * 60 + int(rest) < start + 3 for start in starts)
    assert [tab.evaluate(f"score({{score: {one}}})") for one in (-0.004, -0.006, 0.25)] == ["0.00", "-0.01", "0.25"]
    assert first.locator(".line span").count() == first.locator(".moments button").count()
    best.click()
    until(tab, "[...document.querySelectorAll('video')].some(v => v.readyState >= 2 && v.currentTime > 0.2)")
    assert best.get_attribute("aria-pressed") == "true"
    assert first.locator(".line span.chosen").count() == 1
    for media in tab.locator(".media").all()[:3]:  # square pictures are whole
        frame, shown = media.bounding_box(), media.locator("img, video").bounding_box()
        assert shown["height"] <= frame["height"] + 1
    picture = Path(os.environ.get("SCREENSHOT", tmp_path / "search.png"))
    tab.screenshot(path=picture)
    assert picture.stat().st_size > 10_000
    names = tab.locator("li.video h2").all_inner_texts()
    tab.get_by_role("button", name="Next", exact=True).click()
    tab.get_by_text("Videos 9 to").wait_for()
    assert not set(tab.locator("li.video h2").all_inner_texts()) & set(names)
    assert tab.get_by_role("button", name="Previous", exact=True).is_enabled()
    assert tab.evaluate("document.activeElement.closest('.moments') !== null"), "the keyboard is at the results"
    tab.get_by_label("Least score").fill("0.99")
    tab.get_by_role("button", name="Search", exact=True).click()
    tab.get_by_text("Nothing was found with that score.").wait_for()
    tab.get_by_label("Least score").fill("")
    tab.get_by_label("Or an example").set_input_files(folder / "clips/reel-03.mp4")
    tab.get_by_role("button", name="Search", exact=True).click()
    tab.get_by_text("There are words and an example").wait_for()
    tab.get_by_label("What is to be seen?").fill("")
    tab.get_by_role("button", name="Search", exact=True).click()
    tab.get_by_text("the nearest first").wait_for()
    assert tab.locator("li.video h2").first.inner_text() == "reel-03.mp4"
    assert not tab.faults
    tab.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 420, 320])
def test_nothing_lies_beside_the_screen(address, browser, tmp_path, width):
    tab = open_tab(browser, address[0], width=width)
    find(tab, "a red ring")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.locator(".moments button").first.click()
    until(tab, "[...document.querySelectorAll('video')].some(v => v.readyState >= 2)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    if "SCREENSHOT" in os.environ:
        tab.screenshot(path=Path(os.environ["SCREENSHOT"]).with_name(f"search-{width}.png"))
    tab.close()


# What `test_accessibility` checks in the page: contrast of every text (WCAG 1.4.3: 4.5, large text 3), of the borders
# of fields and buttons (1.4.11: 3), sizes of what is pressed (2.5.8: 24 pixels), ids that stand once, one h1 and no
# level left out, landmarks, language and title.
RULES = """() => {
  const faults = [];
  const seen = e => e.checkVisibility({checkOpacity: true, checkVisibilityCSS: true}) && e.getClientRects().length;
  const parse = c => { const n = c.match(/[\\d.]+/g).map(Number); return {rgb: n.slice(0, 3), a: n[3] ?? 1}; };
  const light = c => { const [r, g, b] = c.map(v => { v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126*r + 0.7152*g + 0.0722*b; };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05); };
  const ground = e => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor); if (c.a === 1) return c.rgb; } return [255, 255, 255]; };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const e = node.parentElement;
    if (!node.data.trim() || e.closest("script, style") || !seen(e)) continue;
    if (e.closest("button:disabled")) continue;  // 1.4.3 leaves these out
    const style = getComputedStyle(e), size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    const found = ratio(parse(style.color).rgb, ground(e));
    if (found < least) faults.push(`contrast ${found.toFixed(2)} of "${node.data.trim().slice(0, 40)}"`);
  }
  for (const e of document.querySelectorAll("input, button, a, select, textarea")) {
    if (!seen(e)) continue;
    const box = e.getBoundingClientRect(), style = getComputedStyle(e);
    if (Math.min(box.width, box.height) < 24) faults.push(`${e.outerHTML.slice(0, 80)} is ${box.width}x${box.height}`);
    const own = parse(style.backgroundColor).rgb, outside = ground(e.parentElement);
    if (!e.disabled && Math.max(ratio(parse(style.borderTopColor).rgb, outside), ratio(own, outside)) < 3)
      faults.push(`border of ${e.outerHTML.slice(0, 80)}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  if (new Set(ids).size !== ids.length) faults.push("an id stands twice");
  const levels = [...document.querySelectorAll("h1, h2, h3")].filter(seen).map(e => +e.tagName[1]);
  if (levels.filter(n => n === 1).length !== 1 || levels.some((n, i) => n > (levels[i - 1] ?? 0) + 1))
    faults.push("headings " + levels);
  for (const one of ["header", "main", "[role=search]", "[role=status]"])
    if (document.querySelectorAll(one).length !== 1) faults.push("landmark " + one);
  if (!document.documentElement.lang || !document.title) faults.push("language or title");
  return faults;
}"""
NAMED = {"button", "textbox", "searchbox", "spinbutton", "link", "image", "img", "Video", "video", "list", "group"}


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 420])
def test_accessibility(address, browser, width):
    """`RULES`; names of controls, pictures and groups, as Chromium computes them for screen readers; and the order
    and the visibility of the focus as Tab goes through the page."""
    tab = open_tab(browser, address[0], width=width)
    assert tab.evaluate(RULES) == []
    find(tab, "a green square")
    tab.locator(".moments button").first.click()
    until(tab, "[...document.querySelectorAll('video')].some(v => v.readyState >= 2)")
    assert tab.evaluate(RULES) == []
    nodes = tab.context.new_cdp_session(tab).send("Accessibility.getFullAXTree")["nodes"]
    found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    assert {"button", "image", "searchbox", "spinbutton", "list"} <= {role for role, _ in found}
    assert [role for role, name in found if role in NAMED and not name.strip()] == []
    assert len({name for role, name in found if role == "group"}) == tab.locator("li.video").count()
    tab.evaluate("document.querySelectorAll('video').forEach(v => v.remove())")
    tab.evaluate("document.body.tabIndex = -1; document.body.focus()")  # Tab begins at the top
    order = []
    for _ in range(200):
        tab.keyboard.press("Tab")
        place, outline = tab.evaluate(
            """() => { const all = [...document.querySelectorAll("input, button, video")], e = document.activeElement;
            return [all.indexOf(e), e === document.body ? "" : getComputedStyle(e).outlineStyle]; }"""
        )
        if place < 0 or (order and place <= order[-1]):
            break
        assert outline != "none", "the focus can be seen"
        order.append(place)
    reachable = tab.locator("input:visible, button:visible:not([disabled])").count()
    assert len(order) == reachable
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.id") == "text"
    button = tab.locator("li.video").nth(1).locator(".moments button").first
    button.focus()
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("document.activeElement.previousElementSibling === null") is False
    tab.keyboard.press("ArrowLeft")
    assert button.evaluate("e => e === document.activeElement")
    assert not tab.faults
    tab.close()
