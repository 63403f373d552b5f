"""A map of embeddings as one HTML file: a point for each vector, near ones side by side, and a picture of the video
under the mouse."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import import_module
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm
from transformers.utils import logging

from hf_video.base.written_files import atomic_write, check_output_file, read_json
from hf_video.errors import BackendError, DataError, VideoError, check_choice, check_count
from hf_video.features.extraction import Features
from hf_video.features.shards import MANIFEST, load_features
from hf_video.video.reader import VideoReader
from hf_video.video.time_lines import COLOURS

METHODS = ("auto", "umap", "pca")
_SHORT_SIDE, _QUALITY, _MOST_BYTES = 96, 75, 10_000  # of a picture: pixels, JPEG's quality at first, bytes
_UNLABELLED = (150, 150, 150)


@dataclass(frozen=True)
class EmbeddingMap:
    """A map that was written: its `path`, the number of `points`, how many vectors were `left_out` because there are
    more than a map holds, the `method` ("umap" or "pca") with the `share` of all variance that PCA's two axes show
    (None for UMAP), and the names of videos that could not be read for a picture, `without_picture`."""

    path: Path
    points: int
    left_out: int
    method: str
    share: float | None
    without_picture: tuple[str, ...]


def embedding_map(
    features: Features | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    videos: str | os.PathLike[str] | None = None,
    labels: Sequence[str] | None = None,
    method: str = "auto",
    points: int = 2000,
    title: str | None = None,
    seed: int = 0,
) -> EmbeddingMap:
    """Draws embeddings on a page that needs nothing else: points in the colours of their labels, and the video's
    picture, name and seconds on hover, tap or focus. A click on a label hides its points.

    Args:
        features: A folder that `embed_videos` wrote, or what `extract_features` returned.
        path: The .html file to write.
        videos: The folder in which the names of the features are found; a picture is the frame in the middle of what a
            vector stands for, at most 10 KB. None makes no pictures, unless the names are paths themselves.
        labels: The class names. Default: those of the folder's manifest.
        method: "umap" (needs umap-learn), "pca", or "auto": UMAP where it is installed, else PCA.
        points: Most vectors on the map; of more, so many are drawn by `seed`. With pictures a point takes about 5 KB.
        title: Of the page. Default: the folder's name.
        seed: Of UMAP, and of the choice among more vectors.

    Returns:
        What was written.

    Raises:
        DataError: There are no features, or the first videos are not below `videos`.
        BackendError: umap-learn was asked for and is not installed.
        OutputError: The file can't be written.
    """
    check_choice("method", method, METHODS)
    check_count("points", points, least=1)
    check_output_file(path, suffixes=(".html", ".htm"))
    if not isinstance(features, Features):
        folder = Path(features)
        features = load_features(folder)
        title = folder.resolve().name if title is None else title
        if labels is None and (folder / MANIFEST).exists():
            labels = read_json(folder / MANIFEST).get("labels")
    if not len(features):
        raise DataError("There is no vector to draw: no video could be read when the features were made.")
    kept = np.arange(len(features))
    if len(kept) > points:
        kept = np.sort(np.random.default_rng(seed).choice(len(kept), points, replace=False))
    places, used, share = _places(features.embeddings[kept], method, seed)
    names = [features.names[i] for i in kept]
    pictures, missing = _pictures(names, features.seconds[kept], None if videos is None else Path(videos))
    classes = sorted(set(features.labels[kept].tolist()))
    rows = [
        [round(float(x), 4), round(float(y), 4), classes.index(label), name, *map(_second, seconds), picture]
        for (x, y), label, name, seconds, picture in zip(
            places, features.labels[kept].tolist(), names, features.seconds[kept].tolist(), pictures, strict=True
        )
    ]
    legend = [
        {"name": _label(label, labels), "color": "#{:02x}{:02x}{:02x}".format(*_color(place, label))}
        for place, label in enumerate(classes)
    ]
    how = "UMAP" if share is None else f"PCA; its two axes show {share:.0%} of the variance"
    drawn = f"{len(kept):,} of {len(features):,} vectors" if len(kept) < len(features) else f"{len(kept):,} vectors"
    page = Template(_PAGE).substitute(
        title=escape(title or "Embeddings"),
        note=escape(f"{drawn}, by {how}. Near points have similar embeddings."),
        points=_json(rows),
        legend=_json(legend),
    )
    with atomic_write(Path(path)) as draft:
        draft.write_text(page, encoding="utf-8", errors="surrogateescape")
    return EmbeddingMap(Path(path), len(kept), len(features) - len(kept), used, share, tuple(missing))


def _places(vectors: np.ndarray, method: str, seed: int) -> tuple[np.ndarray, str, float | None]:
    """(N, 2) from 0 to 1, the method, and for PCA the share of variance."""
    vectors = np.asarray(vectors, np.float64)
    umap: Any = None
    if method != "pca":
        try:
            umap = import_module("umap")
        except ImportError as error:
            if method == "umap":
                raise BackendError(f"UMAP can't be imported ({error}): pip install umap-learn, or use PCA.") from error
    share = None
    if umap is not None and len(vectors) > 3:
        neighbours = min(15, len(vectors) - 1)
        places = umap.UMAP(n_neighbors=neighbours, metric="cosine", n_jobs=1, random_state=seed).fit_transform(vectors)
    else:
        umap, centred = None, vectors - vectors.mean(0)
        left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
        places = np.zeros((len(vectors), 2))
        places[:, : min(2, left.shape[1])] = (left * sizes)[:, :2]
        share = float((sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-300))
    low, high = places.min(0), places.max(0)
    return (places - low) / np.maximum((high - low).max(), 1e-12), "pca" if umap is None else "umap", share


def _pictures(names: list[str], seconds: np.ndarray, videos: Path | None) -> tuple[list[str], list[str]]:
    """A JPEG in base64 for each point, empty where there is none; and the names of videos that can't be read."""
    paths = [os.path.join(videos, name) if videos is not None else name for name in names]
    if videos is None and not any(map(os.path.exists, paths)):
        return [""] * len(names), []
    if not any(map(os.path.exists, paths)):
        raise DataError(f"{paths[0]} is not there, nor is any other of the videos. Give the folder that was embedded.")
    found, missing = [], list[str]()
    shown = logging.is_progress_bar_enabled()
    for name, path, (start, end) in tqdm(
        zip(names, paths, seconds, strict=True), total=len(names), desc="pictures", disable=None if shown else True
    ):
        try:
            found.append(base64.b64encode(_jpeg(path, (start + end) / 2)).decode("ascii"))
        except VideoError:
            found.append("")
            missing.append(name)
    return found, list(dict.fromkeys(missing))


def _jpeg(path: str, second: float) -> bytes:
    with VideoReader(path, shortest_edge=_SHORT_SIDE, square_pixels=True, on_error="repeat") as reader:
        times = reader.timestamps
        number = int(np.clip(np.searchsorted(times, second, side="right") - 1, 0, len(times) - 1))
        frame = Image.fromarray(reader.get_frames(number).data[0])
    frame.thumbnail((2 * _SHORT_SIDE, 2 * _SHORT_SIDE))
    for quality in (_QUALITY, 50, 25, 10):
        file = io.BytesIO()
        frame.save(file, "JPEG", quality=quality)
        if file.tell() <= _MOST_BYTES:
            break
    return file.getvalue()


def _second(value: float) -> float | None:
    return round(value, 2) if np.isfinite(value) else None


def _label(label: int, labels: Sequence[str] | None) -> str:
    if label < 0:
        return "no label"
    return str(labels[label]) if labels is not None and label < len(labels) else f"label {label}"


def _color(place: int, label: int) -> tuple[int, ...]:
    """The first ten classes have the colours of all our pictures, others hues in between."""
    if label < 0:
        return _UNLABELLED
    if place < len(COLOURS):
        return COLOURS[place]
    import colorsys

    return tuple(round(255 * part) for part in colorsys.hls_to_rgb(place * 0.618034 % 1, 0.42, 0.55))


def _json(values: object) -> str:
    """JSON that may stand in a page: nothing in it ends the script."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 0; color: #1e2024; background: #fafaf8; display: flex;
  flex-direction: column; min-height: 100vh; }
header { padding: 12px 16px 4px; } h1 { font-size: 19px; margin: 0; } p { margin: 2px 0; color: #60646a; }
main { flex: 1; display: flex; flex-wrap: wrap; gap: 8px; padding: 4px 16px 16px; }
svg { flex: 1 1 480px; min-height: 320px; height: calc(100vh - 96px); background: #fff; border: 1px solid #dededa; }
circle { stroke: #fff; stroke-width: .5; cursor: pointer; opacity: .85; }
@media (max-width: 720px) { svg { height: 60vh; } circle { r: 14px; } }
circle:hover, circle:focus { stroke: #1e2024; stroke-width: 2; opacity: 1; outline: none; }
#legend { flex: 0 1 200px; max-height: calc(100vh - 96px); overflow: auto; }
#legend button { display: flex; align-items: center; gap: 8px; width: 100%; border: 0; background: none; font: inherit;
  color: inherit; text-align: left; padding: 3px 4px; cursor: pointer; overflow-wrap: anywhere; }
#legend button[aria-pressed=false] { color: #757575; text-decoration: line-through; }
#legend i { flex: none; width: 12px; height: 12px; border-radius: 50%; }
#card { position: fixed; visibility: hidden; pointer-events: none; background: #fff; border: 1px solid #b9b9b4;
  box-shadow: 0 2px 10px #0003; padding: 6px; max-width: 210px; font-size: 13px; overflow-wrap: anywhere; }
#card img { display: block; max-width: 100%; margin-bottom: 4px; } #card [hidden] { display: none; }
</style></head><body>
<header><h1>$title</h1><p>$note</p></header>
<main><svg id="map" role="group" aria-label="Map of embeddings"></svg>
<div id="legend"></div></main>
<div id="card" role="status"><img alt="" hidden><b></b><div></div></div>
<script>
const points = $points, legend = $legend;
const map = document.getElementById('map'), card = document.getElementById('card');
const [picture, name, about] = card.children;
function show(circle) {
  const [x, y, label, title, start, end, jpeg] = points[circle.dataset.i];
  picture.hidden = !jpeg;
  if (jpeg) picture.src = 'data:image/jpeg;base64,' + jpeg;
  name.textContent = title;
  about.textContent = legend[label].name + (start === null ? '' : ', ' + start + ' - ' + end + ' s');
  const box = circle.getBoundingClientRect();
  card.style.left = Math.max(4, Math.min(box.right + 8, innerWidth - 224)) + 'px';
  card.style.top = Math.max(4, Math.min(box.top - 20, innerHeight - 200)) + 'px';
  card.style.visibility = 'visible';
}
// Places go from 0 to 1 on the longer side alone: the picture is as large as they are.
const [wide, high] = [0, 1].map(side => 1000 * Math.max(.05, ...points.map(point => point[side])));
map.setAttribute('viewBox', [-20, 980 - high, wide + 40, high + 40].join(' '));
const hide = () => { card.style.visibility = 'hidden'; };
points.forEach(([x, y, label, title], i) => {
  const circle = document.createElementNS('http://www.w3.org/2000/svg', 'circle');
  const attributes = {cx: 1000 * x, cy: 1000 * (1 - y), r: points.length > 500 ? 6 : 9, fill: legend[label].color,
    tabindex: 0, 'data-i': i, 'data-label': label, role: 'img', 'aria-label': title + ', ' + legend[label].name};
  for (const key in attributes) circle.setAttribute(key, attributes[key]);
  map.append(circle);
});
for (const event of ['mouseover', 'focusin', 'click'])
  map.addEventListener(event, ({target}) => target.tagName === 'circle' ? show(target) : hide());
map.addEventListener('mouseleave', hide);
map.addEventListener('focusout', hide);
legend.forEach(({name, color}, label) => {
  const button = document.createElement('button'), dot = document.createElement('i');
  dot.style.background = color;
  button.append(dot, name);
  button.setAttribute('aria-pressed', true);
  button.addEventListener('click', () => {
    const shown = button.getAttribute('aria-pressed') !== 'true';
    button.setAttribute('aria-pressed', shown);
    for (const circle of map.querySelectorAll('[data-label="' + label + '"]'))
      circle.style.display = shown ? '' : 'none';
  });
  document.getElementById('legend').append(button);
});
</script></body></html>
"""
