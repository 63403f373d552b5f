"""How many questions about videos a model answers rightly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hf_video.data.datasets.questions import QuestionRow
from hf_video.errors import DataError
from hf_video.evaluation.metrics import QuestionMetrics, question_answering_metrics
from hf_video.pipelines.video_question_answering import VideoQuestionAnsweringPipeline

BEST = 5  # answers that are looked at


def evaluate_questions(
    model: Any,
    processor: Any,
    rows: Sequence[QuestionRow],
    *,
    batch_size: int = 8,
    num_workers: int = 0,
    **reading: Any,
) -> tuple[QuestionMetrics, list[dict[str, Any]]]:
    """`question_answering_metrics` of a model's answers to `rows`, each video decoded once for all of its questions;
    and the videos that could not be read, `{"name", "error", "message"}`, whose questions are left out.

    A question whose answer the model doesn't know (it is not in `config.id2label`) counts as answered wrongly.
    `processor` joins an image processor and a tokenizer; `reading` are options of `VideoQuestionAnsweringPipeline`.
    Raises DataError where no video can be read.
    """
    videos = list(_by_video(rows))
    ask = VideoQuestionAnsweringPipeline(model=model, processor=processor, device=model.device)
    asked = [_asked(video) for video in videos]
    found = ask(asked, batch_size=batch_size, num_workers=num_workers, bad_files="report", top_k=BEST, **reading)
    answers, kept, unread = [], [], []
    for video, result in zip(videos, found, strict=True):
        if isinstance(result, dict):
            unread.append({"name": video[0].name, **result})
            continue
        answers += [[one["answer"] for one in best] for best in result]
        kept += video
    if not kept:
        raise DataError(f"None of the {len(videos)} videos could be read. {unread[:1]}")
    measured = question_answering_metrics(
        answers, [row.answer for row in kept], [row.question for row in kept], top5=not kept[0].choices
    )
    return measured, unread


def _by_video(rows: Iterable[QuestionRow]) -> Iterable[list[QuestionRow]]:
    """The questions of each video; those with other numbers of choices apart, which do not stack."""
    videos: dict[Any, list[QuestionRow]] = {}
    for row in rows:
        videos.setdefault((row.name, len(row.choices)), []).append(row)
    return videos.values()


def _asked(rows: list[QuestionRow]) -> dict[str, Any]:
    asked = {"video": rows[0].source, "question": [row.question for row in rows]}
    return {**asked, "choices": [list(row.choices) for row in rows]} if rows[0].choices else asked
