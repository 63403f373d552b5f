"""`VideoIndex`: a folder of videos, searchable by sentence, by example, by vector.

index = VideoIndex.create("library.index")
index.update("videos/", "my-videoclip", window="2s/1s")      # again later: only what is new or changed
for moment in VideoIndex.open("library.index").search("a person cleaning a pool"):
    print(moment.path, moment.seconds, moment.score)
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from hf_video.clips.grid import FeatureGrid
from hf_video.clips.overlaps import Stretch, choose
from hf_video.clips.request import Windows, parse_windows
from hf_video.errors import VideoIndexError, VideoOptionError, check_count
from hf_video.features.vectors import unit_length
from hf_video.retrieval.approximate import exact_rows, gather_vectors, open_approximate
from hf_video.retrieval.encoders import Query, VectorEncoder, find_encoder, kind_of_query
from hf_video.retrieval.file_embedding import check_engine, embed_files
from hf_video.retrieval.moments import Moment, image_as_video
from hf_video.retrieval.store import FileRecord, IndexedVideo, IndexSegment, IndexStore, Manifest
from hf_video.retrieval.update_plan import IndexReport, UpdatePlan, find_videos
from hf_video.retrieval.writing import IndexWriter
from hf_video.video.frames.addresses import local_path

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from hf_video.clips.request import WindowsLike
    from hf_video.data.types import VideoSource
    from hf_video.retrieval.encoders import Encoder, Model, Processor

    Still = str | os.PathLike[str] | Image.Image

NO_MODEL = 'A new index needs a model: a folder, a name on the Hub, or "fingerprint".'
LOOK_CLOSER, MOST_COMPARED = 100, 800  # moments that a query's own comparison scores, at first and at most


class VideoIndex:
    """An index in a folder; see the module. Made by `create` and `open`."""

    def __init__(self, store: IndexStore, encoder: Encoder | None = None):
        self._store = store
        self._encoder = encoder
        self._reload()

    @classmethod
    def create(cls, folder: str | os.PathLike[str]) -> VideoIndex:
        """Creates an empty index.

        Args:
            folder: A new or empty one.

        Raises:
            VideoIndexError: The folder holds an index, or other files.
        """
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
        cls,
        folder: str | os.PathLike[str],
        model: Model | Encoder | None = None,
        processor: Processor | None = None,
        *,
        device: str | None = None,
    ) -> VideoIndex:
        """Opens an index.

        Args:
            folder: The index's.
            model: The model that it was made with, or its name; by default it is loaded by the name in the index when
                it is first needed.
            processor: Of a loaded model.
            device: Where the model is put.

        Raises:
            VideoIndexError: There is no index, it is damaged, or it is of another model.
        """
        store = IndexStore(folder)
        known = store.manifest().encoder
        encoder = None
        if model is not None:
            encoder = find_encoder(model, processor, device=device)
            store.check_encoder(known, encoder)
        index = cls(store, encoder)
        index._device = device
        return index

    @classmethod
    def build(
        cls,
        folder: str | os.PathLike[str],
        videos: str | os.PathLike[str],
        model: Model | Encoder | None = None,
        processor: Processor | None = None,
        **options: Any,
    ) -> IndexReport:
        """Opens the index in `folder`, or creates it once model and videos are known to be usable, and updates it.

        The arguments, what is returned and what is raised are those of `update`.
        """
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
        """The number of moments."""
        return sum(int(segment.live.sum()) for segment in self._segments)

    @property
    def windows(self) -> Windows | FeatureGrid | None:
        """Length and step of the moments, or their grid; None before the first update."""
        return self._manifest.moments

    @property
    def snap(self) -> str | None:
        """ "keyframe" where moments show keyframes only, with their seconds; None where frames are exact."""
        return self._manifest.snap

    @property
    def segments(self) -> list[IndexSegment]:
        """The parts of the index with their vectors, read as memory maps."""
        return self._segments

    @property
    def files(self) -> list[FileRecord]:
        """The videos of the index, ordered by path."""
        return sorted((entry.record for entry in self._entries()), key=lambda record: record.path)

    @property
    def identity(self) -> dict[str, Any] | None:
        """The name of the encoder that made the vectors, and hashes of what decides them."""
        return self._manifest.encoder

    @property
    def encoder(self) -> Encoder:
        """The encoder that made the vectors, loaded by the name in the manifest. Raises VideoIndexError where that is
        another one by now, and what loading raises."""
        if self._encoder is None:
            known = self._manifest.encoder
            if known is None:
                raise VideoIndexError(f"{self._store.folder} is empty: update it with a folder of videos and a model.")
            if known["config"] == "ready-made":
                self._encoder = VectorEncoder(known["name"])
            else:
                encoder = find_encoder(known["name"], device=self._device)
                self._store.check_encoder(known, encoder)
                self._encoder = encoder
        return self._encoder

    def vectors(self) -> tuple[list[Moment], np.ndarray]:
        """Returns all N moments (score 0) by path and start, and their vectors (N, D) float32."""
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
        self._approximate = open_approximate(self._store.folder, self._manifest.approximate, self._segments)

    # -- writing ----------------------------------------------------------------------------------------------------

    def update(
        self,
        videos: str | os.PathLike[str],
        model: Model | Encoder | None = None,
        processor: Processor | None = None,
        *,
        window: WindowsLike | None = None,
        workers: int = 1,
        engine: str = "local",
        revision: str | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        snap: str | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> IndexReport:
        """Brings the index up to date with a folder: embeds files that are new or changed, removes those that are gone,
        and keeps all others. Files of other folders in the index are left alone.

        What an interrupted call wrote stays, and the next call does the rest. A file counts as unchanged while its size
        and times are the same, and as copied where its bytes are known.

        Args:
            videos: The folder, searched at any depth.
            model: "fingerprint", a saved model's folder or name on the Hub, or a loaded one; default the index's own.
            processor: Of a loaded model.
            window: Length and step in seconds, such as "2s/1s", or a grid; default the index's own.
            workers: Processes that read and embed.
            engine: "local", or "ray" for a Ray cluster.
            revision: Of the model on the Hub.
            device: Where the model is put.
            batch_size: Views in one forward; None embeds each video on its own, at most 8 views at once.
            snap: "keyframe" decodes keyframes only, for a first index of large archives. A moment goes from its first
                keyframe to the end of its last, and windows that show the same ones are one. Default the index's own.
            on_progress: Called with (done, all) files.

        Returns:
            What was done.

        Raises:
            DataError: There is no such folder, or it has no videos.
            VideoOptionError: There is no model.
            VideoIndexError: The model or the windows are not the index's, or another process writes. The index is then
                as it was.
        """
        check_engine(workers, engine)
        root = os.path.abspath(local_path(videos))
        windows = self._store.choose_windows(self._manifest.moments, window)
        if model is not None:
            encoder = find_encoder(model, processor, revision=revision, device=device, batch_size=batch_size)
        elif self._manifest.encoder is None:
            raise VideoOptionError(NO_MODEL)
        else:
            encoder = self.encoder
        self._store.check_encoder(self._manifest.encoder, encoder)
        snap = self._store.choose_snap(self._manifest, snap, encoder, windows)
        paths, left_out = find_videos(root)
        with self._store.writing():
            self._reload()  # another process may have written since
            self._store.check_encoder(self._manifest.encoder, encoder)
            if self._manifest.encoder is None:
                about = vars(windows) if isinstance(windows, FeatureGrid) else (windows.length, windows.step)
                self._manifest = replace(self._manifest, encoder=encoder.identity, windows=about, snap=snap)
            writer = IndexWriter(self._store, self._manifest, self._segments)
            embed = functools.partial(embed_files, encoder, windows=windows, snap=snap, workers=workers, engine=engine)
            report = UpdatePlan(root, paths, list(self._entries())).apply(writer, embed, on_progress)
            writer.finish()
        self._reload()
        if self._encoder is None:
            self._encoder = encoder
        report.moments, report.left_out, report.snap = len(self), left_out, snap
        return report

    def add(self, path: str, vectors: ArrayLike, seconds: ArrayLike, *, name: str = "vectors") -> None:
        """Adds ready-made vectors of a video, which replace those of that path.

        Args:
            path: The video's.
            vectors: (N, D) of N moments.
            seconds: (N, 2), their starts and ends.
            name: Says which model made the vectors; it must be the same for the whole index.

        Raises:
            VideoIndexError: The index holds vectors of anything else.
        """
        self.add_many([(path, vectors, seconds)], name=name)

    def add_many(self, videos: Iterable[tuple[str, ArrayLike, ArrayLike]], *, name: str = "vectors") -> None:
        """Adds ready-made vectors of several videos, as `add` those of one.

        Args:
            videos: (path, vectors (n, D), seconds (n, 2)) of each, also from a generator.
            name: As in `add`, and so what is raised.
        """
        encoder = VectorEncoder(name)
        with self._store.writing():
            self._reload()
            self._store.check_encoder(self._manifest.encoder, encoder)
            if self._manifest.encoder is None:
                self._manifest = replace(self._manifest, encoder=encoder.identity)
            writer = IndexWriter(self._store, self._manifest, self._segments)
            for path, vectors, seconds in videos:
                writer.replace(IndexedVideo.ready_made(path, vectors, seconds))
            writer.finish()
        self._reload()

    # -- searching --------------------------------------------------------------------------------------------------

    def search(
        self,
        query: VideoSource | Still | ArrayLike | None = None,
        *,
        text: str | None = None,
        video: VideoSource | None = None,
        vector: ArrayLike | None = None,
        image: Still | None = None,
        top_k: int = 10,
        merge: bool = True,
        per_video: int | None = None,
        threshold: float | None = None,
        offset: int = 0,
    ) -> list[Moment]:
        """Finds the moments nearest to one query.

        Args:
            query: A text if it is a string that names no file, an image if it is one of PIL, a vector if it is an array
                of one or two dimensions, else a video.
            text: A sentence, for models of video and text.
            video: An example, anything that `VideoReader` opens; of its windows the nearest counts.
            vector: (D,), or (n, D), of which the nearest counts.
            image: A path or a PIL image, taken as a video of one frame.
            top_k: How many moments.
            merge: Whether moments that overlap and score about the same become one; no two results overlap then.
            per_video: The most moments of one file.
            threshold: The least score.
            offset: How many of the best are left out.

        Returns:
            Moments, the best first.

        Raises:
            VideoOptionError: For no query or several, a kind that this encoder can't take, or a number out of range.
        """
        check_count("top_k", top_k)
        check_count("offset", offset, least=0)
        queries = self._queries(*kind_of_query(query, text=text, video=video, vector=vector, image=image))
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

    def _queries(self, kind: str, query: Any) -> list[Query]:
        if kind == "vector":
            vectors = np.atleast_2d(np.asarray(query, dtype=np.float32))
            dim = self._manifest.dim
            if vectors.ndim != 2 or (dim is not None and vectors.shape[1] != dim) or not np.isfinite(vectors).all():
                raise VideoOptionError(f"A query of shape {vectors.shape} came; give finite vectors of {dim} numbers.")
            return [Query(unit_length(vectors))]
        if not len(self):
            return []
        if kind == "text":
            return [self.encoder.text_query(query)]
        return self.encoder.video_queries(image_as_video(query) if kind == "image" else query, self.windows)

    def _nearest(self, query: Query, top_k: int) -> list[tuple[int, float]]:
        """Returns (row, score) of at least the best `top_k`."""
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
