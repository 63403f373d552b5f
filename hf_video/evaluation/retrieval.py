"""How well a model finds videos for texts and texts for videos, on a set of captioned videos."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hf_video.data.datasets.captions import CaptionRow
from hf_video.errors import DataError
from hf_video.evaluation.metrics import RetrievalMetrics, retrieval_metrics
from hf_video.pipelines.video_text_retrieval import VideoTextRetrievalPipeline


def evaluate_retrieval(
    model: Any,
    processor: Any,
    rows: Iterable[CaptionRow],
    *,
    batch_size: int = 8,
    num_workers: int = 0,
    at: tuple[int, ...] = (1, 5, 10),
    **reading: Any,
) -> tuple[dict[str, RetrievalMetrics], list[dict[str, Any]]]:
    """`retrieval_metrics` of all captions against all videos of `rows`, each video read once; and the videos that
    could not be read, with their captions left out.

    `processor` joins an image processor and a tokenizer; `reading` are options of `VideoTextRetrievalPipeline`. Raises
    DataError where no video is left.
    """
    rows = list(rows)
    number: dict[str, int] = {}
    videos = [row.source for row in rows if row.name not in number and number.setdefault(row.name, len(number)) >= 0]
    match = VideoTextRetrievalPipeline(model=model, processor=processor, device=model.device)
    found = match(
        videos,
        texts=[row.caption for row in rows],
        batch_size=batch_size,
        num_workers=num_workers,
        bad_files="report",
        top_k=1,
        **reading,
    )
    column = {one["index"]: place for place, one in enumerate(found.columns)}
    kept = [place for place, row in enumerate(rows) if number[row.name] in column]
    if not kept:
        raise DataError(f"None of the {len(videos)} videos could be read. {found['errors'][:1]}")
    own = [column[number[rows[place].name]] for place in kept]
    return retrieval_metrics(found.scores[kept], own, at=at), found["errors"]
