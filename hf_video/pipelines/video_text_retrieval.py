"""`pipeline("video-text-retrieval")`: texts and videos, ranked for each other."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import ModelOutput

from hf_video.clips.overlaps import Stretch, choose
from hf_video.clips.read import WindowSample, each, videos_of
from hf_video.errors import VideoOptionError, check_count
from hf_video.pipelines import matching
from hf_video.pipelines.base import VideoPipeline
from hf_video.video.frames.types import Videos, VideoSource


class Matches(dict):
    """`text_to_video`, `video_to_text` and `errors`, as they go to JSON; `scores` float32 (texts, stretches) of all
    pairs, `columns` the stretch of each column, `{"video", "index", "seconds"}`."""

    def __init__(self, lists: dict[str, Any], scores: np.ndarray, columns: list[dict[str, Any]]):
        super().__init__(lists)
        self.scores = scores
        self.columns = columns


class VideoTextRetrievalPipeline(VideoPipeline):
    """Ranks videos for texts and texts for videos, by any model of video and text.

        match = pipeline("video-text-retrieval", model="folder or Hub name")
        found = match(["a.mp4", "b.mp4"], texts=["a dog catching a ball", "archery"], top_k=3)
        found["text_to_video"][0]     # {"text": "a dog ...", "videos": [{"score", "video", "index", "seconds"}, ...]}
        found["video_to_text"][0]     # {"video": "a.mp4", "index", "seconds", "texts": [{"score", "text"}, ...]}
        found.scores                  # (texts, videos)

    Videos are one or many, in every form that `VideoClassificationPipeline` takes; a generator is read to its end. With
    `windows` every window stands for itself, and its seconds are told. `video` is the path or URL, or the number of a
    video that has none; `index` is always that number. Scores are dot products of vectors (cosines, where the model
    gives unit vectors), or what a model without vectors says of the pair; higher is better. Views are averaged. With
    `bad_files="report"` videos that can't be read are left out of the lists and named in `errors`.

    For a collection that is searched again and again, `hf_video.retrieval` keeps an index on disk.

    Options, of the pipeline or of a call: `texts`, a text or a list; `top_k`, the length of each list, default all; of
    the videos for a text `merge` (default with `top_k`: no two stretches of one video overlap, and others fill the
    places that this leaves free), `per_video`, the most stretches of one, and `threshold`, the least score; and those
    of `VideoClassificationPipeline` for reading.

    Raises VideoOptionError (texts), CheckpointError (no tokenizer, a model without text) and what
    `VideoClassificationPipeline` raises.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        matching.check_matches(self.model)
        self.tokenizer = matching.find_tokenizer(self.model, self.tokenizer)

    def _options(
        self,
        *,
        texts: str | list[str] | None = None,
        top_k: int | None = None,
        merge: bool | None = None,
        per_video: int | None = None,
        threshold: float | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        check_count("top_k", top_k, optional=True)
        check_count("per_video", per_video, optional=True)
        asked = {} if texts is None else {"texts": matching.texts_of("texts", texts)}
        answer = {"top_k": top_k, "merge": merge, "per_video": per_video, "threshold": threshold}
        return asked, {name: value for name, value in answer.items() if value is not None}

    def _ask(self, *, texts: list[str] | None = None) -> dict[str, Any]:
        if texts is None:
            raise VideoOptionError("texts is missing: pass a text or a list of them.")
        tokens = matching.tokenize(self.tokenizer, texts, self.model)
        if not matching.is_dual_encoder(self.model):
            return {"tokens": tokens}
        return {"vectors": matching.text_vectors(self.model, tokens)}

    def _forward(self, model_inputs: dict[str, torch.Tensor], **asked: Any) -> ModelOutput:
        """Scores (clips, texts)."""

        def scores(**clips: torch.Tensor) -> torch.Tensor:
            function = matching.similarity if "vectors" in asked else matching.pair_logits
            return function(self.model, clips, **asked)

        return ModelOutput(logits=self._run(scores, model_inputs))

    def postprocess(self, model_outputs: ModelOutput, **_: Any) -> np.ndarray:
        """Scores (views, texts) of one stretch to their mean, float32 (texts,)."""
        return model_outputs["logits"].float().mean(0).numpy()

    def _window(self, rows: torch.Tensor, seen: WindowSample, repeated: set[int], **answer: Any) -> dict[str, Any]:
        spans = seen.sample.spans
        seconds = (float(min(a for a, _ in spans)), float(max(b for _, b in spans)))
        return {"seconds": seconds, "scores": self.postprocess(ModelOutput(logits=rows))}

    def __call__(
        self,
        inputs: VideoSource | Videos,
        *,
        batch_size: int | None = None,
        num_workers: int | None = None,
        **options: Any,
    ) -> Matches:
        """All texts with all videos. See the class."""
        kind, videos = videos_of(inputs)
        videos, names = [videos] if kind == "one" else videos, _Names()
        if kind == "stream":
            videos = names.noted(each(videos))
        else:
            names.extend(videos)
        _, asked, answer = self._sanitize_parameters(**options)
        texts = {**self._forward_params, **asked}.get("texts")
        results = self._all(videos, batch_size, num_workers, **options)
        results = list(results if kind == "stream" else self._with_bar(results, len(videos)))
        return _matches(texts, results, names, **{"top_k": None, **self._postprocess_params, **answer})


class _Names(list):
    """What each video is called: its path, or None."""

    def noted(self, videos: Iterable[Any]) -> Iterable[Any]:
        for video in videos:
            self.append(video)
            yield video

    def append(self, video: VideoSource) -> None:
        super().append(os.fspath(video) if isinstance(video, (str, os.PathLike)) else None)

    def extend(self, videos: Iterable[Any]) -> None:
        for video in videos:
            self.append(video)


def _matches(
    texts: list[str], results: list[Any], names: list[str | None], *, top_k: int | None, **choice: Any
) -> Matches:
    columns, scores, errors = [], [], []
    for index, result in enumerate(results):
        video = {"video": index if names[index] is None else names[index], "index": index}
        if isinstance(result, dict) and "error" in result:
            errors.append({**video, **result})
            continue
        for window in result if isinstance(result, list) else [{"predictions": result}]:
            found = window["predictions"]
            columns.append({**video, "seconds": window.get("seconds", found["seconds"])})
            scores.append(found["scores"])
    table = np.stack(scores, axis=1) if scores else np.zeros((len(texts), 0), dtype=np.float32)
    lists = {
        "text_to_video": [
            {"text": text, "videos": _stretches(row, columns, top_k, **choice)}
            for text, row in zip(texts, table, strict=True)
        ],
        "video_to_text": [
            {**column, "texts": [{"score": float(row[i]), "text": texts[i]} for i in _order(row, top_k)]}
            for column, row in zip(columns, table.T, strict=True)
        ],
        "errors": errors,
    }
    return Matches(lists, table, columns)


def _stretches(
    scores: np.ndarray,
    columns: list[dict[str, Any]],
    top_k: int | None,
    *,
    merge: bool | None = None,
    per_video: int | None = None,
    threshold: float | None = None,
    **_: Any,
) -> list[dict[str, Any]]:
    """The best stretches of videos for one text."""
    ranked = [
        Stretch(columns[i]["index"], *columns[i]["seconds"], float(scores[i]))
        for i in _order(scores, None)
        if threshold is None or scores[i] >= threshold
    ]
    merge = top_k is not None if merge is None else merge
    names = {column["index"]: column["video"] for column in columns}
    return [
        {"score": score, "video": names[index], "index": index, "seconds": (start, end)}
        for index, start, end, score in choose(ranked, top_k, merge=merge, per_video=per_video)
    ]


def _order(scores: np.ndarray, top_k: int | None) -> list[int]:
    """Numbers of the highest, best first; equal ones in their own order."""
    return np.argsort(-scores, kind="stable")[:top_k].tolist()
