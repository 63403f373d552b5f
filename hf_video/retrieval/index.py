"""`VideoIndex`: a folder of videos, searchable by sentence, by example, by vector.

index = VideoIndex.create("library.index")
index.update("videos/", "my-videoclip", window="2s/1s")      # again later: only what is new or changed
for moment in VideoIndex.open("library.index").search("a person cleaning a pool"):
    print(moment.path, moment.seconds, moment.score)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from hf_video.base.written_files import check_sum
from hf_video.clips.overlaps import Stretch, choose
from hf_video.clips.windows import Windows, parse_windows
from hf_video.errors import VideoIndexError, VideoOptionError, check_count
from hf_video.retrieval.approximate import FaissIndex, exact_rows, faiss_module, gather_vectors
from hf_video.retrieval.encoders import Query, VectorEncoder, find_encoder
from hf_video.retrieval.file_embedding import check_engine, embed_files
from hf_video.retrieval.moments import Moment, image_as_video
from hf_video.retrieval.store import FileRecord, IndexedVideo, IndexStore, Manifest
from hf_video.retrieval.update_plan import IndexReport, UpdatePlan, find_videos
from hf_video.retrieval.writing import IndexWriter
from hf_video.video.frames.addresses import local_path

DEFAULT_WINDOW = "2s/1s"
NO_MODEL = 'A new index needs a model: a folder, a name on the Hub, or "fingerprint".'
LOOK_CLOSER, MOST_COMPARED = 100, 800  # moments that a query's own comparison scores, at first and at most


class VideoIndex:
    """An index in a folder; see the module. Made by `create` and `open`."""

    def __init__(self, store: IndexStore, encoder: Any = None):
        self._store = store
        self._encoder = encoder
        self._reload()

    @classmethod
    def create(cls, folder: str | os.PathLike[str]) -> VideoIndex:
        """A new, empty index. Raises VideoIndexError where there is one, or other files."""
        store = IndexStore(folder)
        if store.exists():
            raise VideoIndexError(f"{folder} is a search index already: use VideoIndex.open, or another folder.")
        if store.folder.is_file() or (store.folder.is_dir() and any(p.name != ".lock" for p in store.folder.iterdir())):
            raise VideoIndexError(f"{folder} holds other things: choose a new folder for the index.")
        with store.writing():
            store.commit(Manifest())
        return cls(store)

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], model: Any = None, processor: Any = None, *, device: str | None = None
    ) -> VideoIndex:
        """An index that is there. Without a `model` the one that it was made with is loaded by its name, when it is
        first needed. Raises VideoIndexError for no index, a damaged one, or one of another model."""
        store = IndexStore(folder)
        known = store.manifest().encoder
        encoder = None
        if model is not None:
            encoder = find_encoder(model, processor, device=device)
            _check_same(store, known, encoder)
        index = cls(store, encoder)
        index._device = device
        return index

    @classmethod
    def build(
        cls,
        folder: str | os.PathLike[str],
        videos: str | os.PathLike[str],
        model: Any = None,
        processor: Any = None,
        **options: Any,
    ) -> IndexReport:
        """Opens the index in `folder`, or creates it once it is sure that model and videos can be used, and updates it;
        `options` are those of `update`."""
        if IndexStore(folder).exists():
            return cls(IndexStore(folder)).update(videos, model, processor, **options)
        if model is None:
            raise VideoOptionError(NO_MODEL)
        check_engine(options.get("workers", 1), options.get("engine", "local"))
        find_videos(os.path.abspath(local_path(videos)))
        of_model = {name: options.get(name) for name in ("revision", "device", "batch_size")}
        encoder = find_encoder(model, processor, **of_model)
        encoder.identity  # noqa: B018 - loads it
        parse_windows(options.get("window"))
        return cls.create(folder).update(videos, encoder, **options)

    _device: str | None = None

    # -- what is known ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Moments."""
        return sum(int(segment.live.sum()) for segment in self._segments)

    @property
    def windows(self) -> Windows | None:
        return None if self._manifest.windows is None else Windows(*self._manifest.windows)

    @property
    def files(self) -> list[FileRecord]:
        """The videos that count, by path."""
        return sorted((entry.record for entry in self._entries()), key=lambda record: record.path)

    @property
    def identity(self) -> dict[str, Any] | None:
        """Which encoder made the vectors."""
        return self._manifest.encoder

    @property
    def encoder(self) -> Any:
        """What made the vectors, loaded by the name in the manifest. Raises VideoIndexError where that is another one
        by now, and what loading raises."""
        if self._encoder is None:
            known = self._manifest.encoder
            if known is None:
                raise VideoIndexError(f"{self._store.folder} is empty: update it with a folder of videos and a model.")
            if known["config"] == "ready-made":
                self._encoder = VectorEncoder(known["name"])
            else:
                encoder = find_encoder(known["name"], device=self._device)
                _check_same(self._store, known, encoder)
                self._encoder = encoder
        return self._encoder

    def vectors(self) -> tuple[list[Moment], np.ndarray]:
        """All moments (score 0) by path and start, and their vectors (N, D) float32."""
        entries = sorted(self._entries(), key=lambda entry: entry.record.path)
        moments = [Moment(e.record.path, float(a), float(b), 0.0) for e in entries for a, b in e.seconds]
        width = self._manifest.dim or 0
        parts = [np.asarray(entry.vectors) for entry in entries if len(entry.vectors)]
        return moments, np.concatenate([np.zeros((0, width), np.float32), *parts])

    def _entries(self) -> Iterator[IndexedVideo]:
        for segment in self._segments:
            yield from segment.entries()

    def _reload(self) -> None:
        for attempt in (1, 2):  # a writer may delete joined segments between the two steps
            self._manifest = self._store.manifest()
            try:
                self._segments = [self._store.read_segment(name, self._manifest) for name in self._manifest.segments]
                break
            except VideoIndexError:
                if attempt == 2 or self._store.manifest().segments == self._manifest.segments:
                    raise
        self._approximate: FaissIndex | None = None
        facts = self._manifest.approximate
        if facts is not None and faiss_module() is not None:
            try:
                if "crc32" in facts:
                    check_sum(self._store.folder / facts["file"], facts["crc32"])
                self._approximate = FaissIndex(self._store.folder, facts, self._segments)
            except (RuntimeError, OSError, ValueError) as error:
                raise VideoIndexError(
                    f"{facts['file']} in {self._store.folder} can't be read ({error}): the index is damaged."
                ) from error

    # -- writing ----------------------------------------------------------------------------------------------------

    def update(
        self,
        videos: str | os.PathLike[str],
        model: Any = None,
        processor: Any = None,
        *,
        window: Any = None,
        workers: int = 1,
        engine: str = "local",
        revision: str | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> IndexReport:
        """Brings the index up to what is in the folder `videos` now: files that are new or changed are embedded, those
        that are gone disappear, all others stay. Files of other folders in the index are left alone.

        Args:
            model: "fingerprint", a saved model's folder or name on the Hub, or a loaded one with its `processor`;
                default: the index's own.
            window: Length and step in seconds, `"2s/1s"` or as in `hf_video.clips.windows`; default the index's own.
            workers: Processes that read and embed. engine: "local", or "ray" for a Ray cluster.
            revision, device, batch_size: Of the model; without a `batch_size` each video is embedded on its own, so
                that its vectors don't depend on the others.
            on_progress: Called with (done, all) files.

        It may be killed at any moment: what was written by then stays, and the next call does the rest. A file counts
        as unchanged while its size and times are the same, and as copied where its bytes are known.

        Raises DataError (no folder, no videos in it), VideoOptionError (no model), VideoIndexError (another model,
        other windows, another writer): the index is then as it was.
        """
        check_engine(workers, engine)
        root = os.path.abspath(local_path(videos))
        windows = self._windows(window)
        if model is not None:
            encoder = find_encoder(model, processor, revision=revision, device=device, batch_size=batch_size)
        elif self._manifest.encoder is None:
            raise VideoOptionError(NO_MODEL)
        else:
            encoder = self.encoder
        identity = encoder.identity
        _check_same(self._store, self._manifest.encoder, encoder)
        paths, left_out = find_videos(root)
        with self._store.writing():
            self._reload()  # another process may have written since
            _check_same(self._store, self._manifest.encoder, encoder)
            if self._manifest.encoder is None:
                self._manifest = replace(self._manifest, encoder=identity, windows=(windows.length, windows.step))
            writer = IndexWriter(self._store, self._manifest, self._segments)
            report = UpdatePlan(root, paths, list(self._entries())).apply(
                writer,
                lambda todo: embed_files(encoder, todo, windows, workers=workers, engine=engine),
                on_progress,
            )
            writer.finish()
        self._reload()
        if self._encoder is None:
            self._encoder = encoder
        report.moments, report.left_out = len(self), left_out
        return report

    def add(self, path: str, vectors: Any, seconds: Any, *, name: str = "vectors") -> None:
        """Ready-made vectors (N, D) of moments with (start, end) `seconds` (N, 2) of a video, which replace those of
        that path. `name` says whose they are. Raises VideoIndexError for an index of anything else."""
        self.add_many([(path, vectors, seconds)], name=name)

    def add_many(self, videos: Iterable[tuple[str, Any, Any]], *, name: str = "vectors") -> None:
        """As `add`, of several videos (path, vectors, seconds), which may come from a generator."""
        encoder = VectorEncoder(name)
        with self._store.writing():
            self._reload()
            _check_same(self._store, self._manifest.encoder, encoder)
            if self._manifest.encoder is None:
                self._manifest = replace(self._manifest, encoder=encoder.identity)
            writer = IndexWriter(self._store, self._manifest, self._segments)
            for path, vectors, seconds in videos:
                writer.replace(_ready(path, vectors, seconds))
            writer.finish()
        self._reload()

    def _windows(self, window: Any) -> Windows:
        known = self.windows
        windows = parse_windows(window) or known or parse_windows(DEFAULT_WINDOW)
        if known is not None and windows != known:
            raise VideoIndexError(
                f"{self._store.folder} was made with windows of {known.length:g}s/{known.step:g}s, and "
                f"{windows.length:g}s/{windows.step:g}s came: leave it out, or choose another folder."
            )
        return windows

    # -- searching --------------------------------------------------------------------------------------------------

    def search(
        self,
        query: Any = None,
        *,
        text: str | None = None,
        video: Any = None,
        vector: Any = None,
        image: Any = None,
        top_k: int = 10,
        merge: bool = True,
        per_video: int | None = None,
        threshold: float | None = None,
        offset: int = 0,
    ) -> list[Moment]:
        """The `top_k` moments nearest to a query, the best first, after the first `offset` of them.

        Give one of `text` (a sentence, for models of video and text), `video` (an example: anything `VideoReader`
        opens; each moment is scored by the nearest of its windows), `image` (a path or a PIL image, seen as a video of
        one frame) and `vector` (D,) or several (n, D), of which the nearest counts. A plain `query` is a text if it is
        a string that names no file, an image if it is one of PIL, a vector if it is an array of one or two dimensions,
        else a video.

        With `merge` no two moments overlap: windows that do, and score about the same, become one, and the next best
        fill the places that this leaves free. `per_video` is the most moments of one file, `threshold` the least score.

        Raises VideoOptionError for none or several queries, a kind that this encoder does not understand, or a number
        out of its range.
        """
        check_count("top_k", top_k)
        check_count("offset", offset, least=0)
        queries = self._queries(query, text, video, vector, image)
        closer = any(one.compare is not None for one in queries)
        count = max(offset + top_k, LOOK_CLOSER if closer else 0)
        while True:
            found: dict[int, float] = {}
            for one in queries:
                for row, score in self._nearest(one, count):
                    found[row] = max(score, found.get(row, -np.inf))
            ranked = [Stretch(*vars(m).values()) for m in self._moments(found)]
            good = ranked if threshold is None else [one for one in ranked if one.score >= threshold]
            chosen = choose(good, offset + top_k, joining=top_k, merge=merge, per_video=per_video)
            ended = count >= (min(len(self), MOST_COMPARED) if closer else len(self)) or len(good) < len(ranked)
            if len(chosen) >= offset + top_k or ended:
                return [Moment(*one) for one in chosen[offset:]]
            count *= 4

    def _queries(self, query: Any, text: Any, video: Any, vector: Any, image: Any) -> list[Query]:
        if query is not None:
            kind = getattr(query, "ndim", None)
            if isinstance(query, str) and not os.path.isfile(query):
                text = query if text is None else (text, query)
            elif kind in (1, 2):
                vector = query if vector is None else (vector, query)
            elif isinstance(query, Image.Image):
                image = query if image is None else (image, query)
            else:
                video = query if video is None else (video, query)
        given = [one for one in (text, video, vector, image) if one is not None]
        if len(given) != 1 or isinstance(given[0], tuple):
            raise VideoOptionError("Give one query: a text, an example video, an image or a vector.")
        if vector is not None:
            return [Query(self._checked(vector))]
        if not len(self):
            return []
        if text is not None:
            return [self.encoder.text_query(text)]
        return self.encoder.video_queries(video if image is None else image_as_video(image), self.windows)

    def _checked(self, vector: Any) -> np.ndarray:
        vectors = np.atleast_2d(np.asarray(vector, dtype=np.float32))
        dim = self._manifest.dim
        if vectors.ndim != 2 or (dim is not None and vectors.shape[1] != dim) or not np.isfinite(vectors).all():
            raise VideoOptionError(f"A query of shape {vectors.shape} came; give finite vectors of {dim} numbers.")
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _nearest(self, query: Query, top_k: int) -> list[tuple[int, float]]:
        """(row, score) of at least the best `top_k`."""
        count = min(top_k if query.compare is None else max(LOOK_CLOSER, top_k), len(self))
        if not count:
            return []
        if self._approximate is None:
            rows, scores = exact_rows(self._segments, query.vectors, count)
        else:
            rows, scores = self._approximate.best_rows(self._segments, query.vectors, count)
        if query.compare is not None:
            scores = query.compare(gather_vectors(self._segments, rows))
        return list(zip(rows.tolist(), scores.tolist(), strict=True))

    def _moments(self, found: dict[int, float]) -> list[Moment]:
        firsts = np.concatenate([[0], np.cumsum([len(segment.live) for segment in self._segments])])
        moments = []
        for row, score in found.items():
            number = int(np.searchsorted(firsts, row, side="right")) - 1
            segment, place = self._segments[number], row - firsts[number]
            start, end = segment.seconds[place]
            moments.append(Moment(segment.files[segment.owner[place]].path, float(start), float(end), float(score)))
        return sorted(moments, key=lambda m: (-m.score, m.path, m.start))


# --- updating --------------------------------------------------------------------------------------------------------


def _ready(path: str, vectors: Any, seconds: Any) -> IndexedVideo:
    vectors, seconds = np.asarray(vectors, np.float32), np.asarray(seconds, np.float64)
    if vectors.ndim != 2 or seconds.shape != (len(vectors), 2) or not np.isfinite(vectors).all():
        raise VideoOptionError(
            f"Vectors of shape {vectors.shape} and seconds of shape {seconds.shape} came; finite (N, D) and (N, 2) are "
            "needed."
        )
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return IndexedVideo(FileRecord(os.fspath(path), 0, 0, 0, "", moments=len(vectors)), vectors, seconds)


def _check_same(store: IndexStore, known: dict[str, Any] | None, encoder: Any) -> None:
    """Raises VideoIndexError where an index was made by another encoder; a name may change, what it names may not."""
    identity = encoder.identity
    if known is None:
        return
    ready = "ready-made" in (known["config"], identity["config"])
    changed = [name for name in {*known, *identity} if known.get(name) != identity.get(name)]
    changed = changed if ready else [name for name in changed if name != "name"]
    if changed:
        raise VideoIndexError(
            f"{store.folder} was made with {known['name']!r} and {identity['name']!r} came, whose "
            f"{', '.join(sorted(changed))} differ: vectors of two models can't be compared. Use "
            "the same model, or another folder for the index. Nothing was changed."
        )
