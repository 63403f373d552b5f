"""Evaluates text-to-video and video-to-text retrieval on captioned videos."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hf_video.data.datasets.captions import CaptionRow
from hf_video.errors import DataError
from hf_video.evaluation.video_text_metrics import RetrievalMetrics, retrieval_metrics
from hf_video.pipelines.video_text_retrieval import VideoTextRetrievalPipeline

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


def evaluate_retrieval(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    rows: Iterable[CaptionRow],
    *,
    batch_size: int = 8,
    num_workers: int | None = None,
    at: tuple[int, ...] = (1, 5, 10),
    **reading: Any,
) -> tuple[dict[str, RetrievalMetrics], list[dict[str, Any]]]:
    """Evaluates the retrieval of all videos by all captions, and of captions by videos; each video is read once.

    Args:
        model: A model of video and text.
        processor: It joins an image processor and a tokenizer.
        rows: Captions with their videos (`hf_video.data.load_captions`).
        batch_size: Clips in one forward.
        num_workers: Processes that read. None: a thread of this one reads ahead; 0: nothing is read ahead.
        at: The k of recall at k.
        **reading: Options of `VideoTextRetrievalPipeline`.

    Returns:
        `retrieval_metrics`, and the videos that could not be read, as `error_entry` with a "name", whose captions are
        left out.

    Raises:
        DataError: No video can be read.
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
