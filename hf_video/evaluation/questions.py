"""Evaluates the answers to questions about videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_video.data.datasets.questions import QuestionRow
from hf_video.errors import DataError
from hf_video.evaluation.video_text_metrics import QuestionMetrics, question_answering_metrics
from hf_video.pipelines.video_question_answering import VideoQuestionAnsweringPipeline

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

TOP_K = 5  # answers that are looked at


def evaluate_questions(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    rows: Sequence[QuestionRow],
    *,
    batch_size: int = 8,
    num_workers: int | None = None,
    **reading: Any,
) -> tuple[QuestionMetrics, list[dict[str, Any]]]:
    """Evaluates a model's answers to questions; each video is decoded once for all of its questions.

    A question whose answer the model doesn't know (it is not in `config.id2label`) counts as answered wrongly.

    Args:
        model: A question-answering model.
        processor: It joins an image processor and a tokenizer.
        rows: Questions with their videos (`hf_video.data.load_questions`).
        batch_size: Clips in one forward.
        num_workers: Processes that read. None: a thread of this one reads ahead; 0: nothing is read ahead.
        **reading: Options of `VideoQuestionAnsweringPipeline`.

    Returns:
        `question_answering_metrics`, and the videos that could not be read, as `error_entry` with a "name", whose
        questions are left out.

    Raises:
        DataError: No video can be read.
    """
    by_video: dict[tuple[str, int], list[QuestionRow]] = {}
    for row in rows:  # those with other numbers of choices apart, which do not stack
        by_video.setdefault((row.name, len(row.choices)), []).append(row)
    videos = list(by_video.values())
    ask = VideoQuestionAnsweringPipeline(model=model, processor=processor, device=model.device)
    asked: list[dict[str, Any]] = []
    for video in videos:
        choices = {"choices": [list(row.choices) for row in video]} if video[0].choices else {}
        asked.append({"video": video[0].source, "question": [row.question for row in video], **choices})
    found = ask(asked, batch_size=batch_size, num_workers=num_workers, bad_files="report", top_k=TOP_K, **reading)
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
