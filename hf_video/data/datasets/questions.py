"""Questions about videos with their answers: data for training and evaluating models that answer.

    splits = load_questions("questions.csv")                     # {"train": VideoRows of QuestionRow, ...}
    answers = most_frequent_answers(splits["train"])
    data = QuestionDataset(splits["train"], processor.image_processor, answers=answers)
    batch = QuestionCollator(processor.tokenizer)([data[0], data[1]])   # pixel_values, input_ids, ..., labels

A row is a question: a video with three of them is three rows of one `source`.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_video.data.datasets.captions import flattened, normalize_text, tokenized
from hf_video.data.datasets.collate import VideoCollator
from hf_video.data.datasets.dataset import VideoDataset
from hf_video.data.rows import Skipped, SourceListing, VideoRow, VideoRows
from hf_video.data.sources.files import split_name
from hf_video.data.sources.labels import AnnotationReader, RecordReader
from hf_video.data.sources.load import load_listing, rows_by_split
from hf_video.data.sources.tables import LIST_ENDINGS, pick_column
from hf_video.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hf_video.data.types import DataSource, FrameProcessor

QUESTION_COLUMNS = ("question", "query", "q")
ANSWER_COLUMNS = ("answer", "label", "target", "a")
CHOICES_COLUMNS = ("choices", "options", "candidates")
NUMBERED_CHOICE = re.compile(r"^(?:a|option_?|choice_?)(\d+)$", re.IGNORECASE)  # TGIF-QA: a1 … a5; VIOLET: option_0 …
TABLES = ("questions", "qa", "metadata")  # in a folder, the list of its questions
IGNORE_INDEX = -100  # the label of an answer that the model doesn't know


@dataclass(frozen=True, slots=True)
class QuestionRow(VideoRow):
    """A video, a question about it and its answer; for multiple choice also the texts to choose from, of which the
    answer is one. `label` is None."""

    question: str = ""
    answer: str = ""
    choices: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All that is said of the video here."""
        return " | ".join((self.question, self.answer, *self.choices))


def load_questions(
    source: DataSource,
    *,
    videos: str | os.PathLike[str] | None = None,
    video_column: str = "video",
    question_column: str = "question",
    answer_column: str = "answer",
    split: str | None = None,
    test_size: float = 0.0,
    seed: int = 0,
    group_pattern: str | None = None,
    inspect: str | None = "open",
    num_frames: int = 4,
    cache_dir: str | os.PathLike[str] | None = None,
) -> dict[str, VideoRows]:
    """Lists the questions of a source by split.

    Args:
        source: A CSV, TSV, JSON, JSONL or Parquet list with a column of videos, one of questions and one of answers;
            for multiple choice also `choices` (in JSON a list of texts; in a table such a list as text, or texts with
            "|" between them) or a column for each (a1 … a5, as TGIF-QA has them, option_0 …). MSRVTT-QA's and MSVD-QA's
            JSON; a folder with `questions.csv` (or .jsonl, .json) or with a list for each split (`train_qa.json`,
            `test_qa.json`); a `datasets` data set or its name on the Hub; or a dict of these by split.
        videos: The folder that names in a list are relative to; default the list's own. Names without an ending
            ("video7012", and the number 7012) are looked up there.
        video_column, question_column, answer_column: Their names, where they are not usual ones.
        split, test_size, seed, group_pattern, inspect, num_frames, cache_dir: As in `load_captions`: all questions of
            a video are on one side of an automatic split.

    The answer to a choice is its text, or its number from 0: the latter where all answers of the source are such
    numbers, and not all of them texts that can be chosen.

    Returns:
        The `QuestionRow`s of each split. What is not used (a missing file, an empty answer, one that is no choice, a
        video that can't be read) is in the first split's `skipped`.

    Raises:
        DataError: Nothing is left, the source has no videos, questions or answers, or some questions have choices and
            others have not.
    """
    listing = load_listing(
        source,
        QuestionReader(video_column, question_column, answer_column),
        videos=videos,
        split=split,
        test_size=test_size,
        seed=seed,
        group_pattern=group_pattern,
        prepare=_find_answers,
        inspect=inspect,
        num_frames=num_frames,
        cache_dir=cache_dir,
    )
    return rows_by_split(
        listing, lambda one: (QuestionRow(one.source, None, one.name, one.group, *said) for said in one.annotations)
    )


# -- sources ----------------------------------------------------------------------------------------------------------


class QuestionReader(AnnotationReader):
    """Questions about videos with their answers and choices, (question, answer, choices): columns of them."""

    noun = "questions"

    def __init__(self, video_column: str, question_column: str, answer_column: str):
        super().__init__(video_column, question_column, answer_column)
        self.question_column, self.answer_column = question_column, answer_column

    def bind(self, columns: list[str], owner: str) -> tuple[list[str], RecordReader]:
        question = pick_column(columns, self.question_column, QUESTION_COLUMNS, owner)
        answer = pick_column([c for c in columns if c != question], self.answer_column, ANSWER_COLUMNS, owner)
        if question is None or answer is None:
            what = "question" if question is None else "answer"
            names = ", ".join(map(str, columns))
            raise DataError(f"{owner} has the columns {names}, and none of {what}s: pass {what}_column=.")
        together = pick_column(columns, CHOICES_COLUMNS[0], CHOICES_COLUMNS)
        numbered = sorted(filter(NUMBERED_CHOICE.match, columns), key=lambda name: int(NUMBERED_CHOICE.match(name)[1]))
        apart = [] if together else [name for name in numbered if name not in (question, answer)]

        def read(record: Mapping[str, Any], place: str) -> list[Any] | str:
            asked, given = normalize_text(record.get(question)), _text(record.get(answer))
            if not asked or not given:
                return f"its {question if not asked else answer!r} is empty"
            several = _several(record.get(together)) if together else [_text(record.get(name)) for name in apart]
            return [(asked, given, tuple(filter(None, several)))]

        return [question, answer, *([together] if together else apart)], read

    def find_list(self, root: Path) -> Path | dict[str, Path]:
        files = sorted(path for path in root.iterdir() if path.suffix.lower() in LIST_ENDINGS)
        table = next((path for name in TABLES for path in files if path.stem.lower() == name), None)
        if table is not None:
            return table
        of_splits = [path for path in files if path.stem.endswith(("_qa", "_questions"))]
        parts = {split: path for path in of_splits if (split := split_name(path.stem.partition("_")[0]))}
        if not parts:
            raise DataError(
                f"{root} holds no list of questions: give questions.csv, or train_qa.json and test_qa.json."
            )
        return parts


def _text(value: object) -> str:
    """Numbers are answers too."""
    return normalize_text(str(value)) if isinstance(value, (str, int, float)) and value == value else ""


def _several(given: object) -> list[str]:
    """Choices of one cell."""
    if isinstance(given, str):
        try:
            read = json.loads(given)
        except ValueError:
            read = None
        given = read if isinstance(read, list) else given.split("|")
    return [_text(one) for one in given] if isinstance(given, (list, tuple)) else []


def _find_answers(listing: SourceListing) -> None:
    """Makes numbers of choices into their texts, in place, and puts aside questions whose answer can't be chosen."""
    said = [one for video in listing.videos for one in video.annotations]
    bare = next((question for question, _, choices in said if not choices), None)
    if bare is None:
        numbered = all(answer.isdecimal() for _, answer, _ in said)
        numbered = numbered and not all(answer in choices for _, answer, choices in said)
        for video in listing.videos:
            found = [_chosen(*one, numbered) for one in video.annotations]
            video.annotations = [one for one in found if not isinstance(one, str)]
            listing.skipped += [Skipped(video.name, one, "unlabelled") for one in found if isinstance(one, str)]
        listing.videos = [video for video in listing.videos if video.annotations]
    elif any(choices for _, _, choices in said):
        raise DataError(f"Some questions have choices, and {bare!r} has none: make two lists of them.")


def _chosen(question: str, answer: str, choices: tuple[str, ...], numbered: bool) -> tuple[Any, ...] | str:
    if numbered and int(answer) < len(choices):
        answer = choices[int(answer)]
    same = next((choice for choice in choices if normalize_answer(choice) == normalize_answer(answer)), None)
    if same is None or len(choices) < 2:
        return f"the answer {answer!r} to {question!r} is none of its {len(choices)} choices"
    return question, same, choices


# -- answers ----------------------------------------------------------------------------------------------------------


def normalize_answer(answer: str) -> str:
    """What two spellings of one answer have in common."""
    return normalize_text(answer).lower()


def most_frequent_answers(rows: Iterable[QuestionRow], *, most: int | None = None, min_count: int = 1) -> list[str]:
    """Different answers of `rows`, the most frequent first, at most so many, and only those that so many questions
    have; each as it is spelt first."""
    counts, spelling = Counter(), {}
    for row in rows:
        counts[normalize_answer(row.answer)] += 1
        spelling.setdefault(normalize_answer(row.answer), row.answer)
    ordered = sorted((answer for answer in counts if counts[answer] >= min_count), key=lambda one: (-counts[one], one))
    return [spelling[answer] for answer in ordered[:most]]


def answered_by(rows: VideoRows, answers: Iterable[str]) -> VideoRows:
    """Those rows whose answer is one of `answers`."""
    known = set(map(normalize_answer, answers))
    return rows.select(i for i, row in enumerate(rows) if normalize_answer(row.answer) in known)


# -- samples and batches ----------------------------------------------------------------------------------------------


class QuestionDataset(VideoDataset):
    """A `VideoDataset` of `QuestionRow`s. Its samples have `question` too, `choices` where there are any, and as
    `labels` the number of the right choice, or of the answer in `answers`: -100, which the loss ignores, where it is
    not there.

    Raises:
        DataError: A row has no question, or rows have different numbers of choices.
    """

    def __init__(self, rows: VideoRows, processor: FrameProcessor, *, answers: Sequence[str] = (), **options: Any):
        bare = next((row for row in rows if not getattr(row, "question", "")), None)
        if bare is not None:
            raise DataError(f"{bare.name} has no question: make the rows with load_questions.")
        counts = sorted({len(row.choices) for row in rows})
        if len(counts) > 1:
            raise DataError(f"Questions have {counts[0]} to {counts[-1]} choices; a batch needs as many for each.")
        self.answers = {normalize_answer(answer): number for number, answer in enumerate(answers)}
        super().__init__(rows, processor, **options)

    def _make(self, row: QuestionRow, epoch: int, index: int, view: int = 0) -> Any:
        made = super()._make(row, epoch, index, view)
        known = self.answers.get(normalize_answer(row.answer), IGNORE_INDEX)
        label = row.choices.index(row.answer) if row.choices else known
        for sample in made if isinstance(made, list) else [made]:
            sample.update(question=row.question, labels=label, **({"choices": row.choices} if row.choices else {}))
        return made


class QuestionCollator:
    """Makes a batch of samples of a `QuestionDataset`: `pixel_values` (B, T, C, H, W), `labels` (B,), and `input_ids`
    and `attention_mask` of the questions (B, L), or, each question with each of its choices, (B, choices, L), padded to
    the longest.

    Args:
        tokenizer: The model's.
        max_length: Tokens at which texts are cut; default the tokenizer's limit.

    Raises:
        DataError: Samples have no questions, or different numbers of choices.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, max_length: int | None = None):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._videos = VideoCollator()

    def __call__(self, samples: Sequence[Any]) -> dict[str, Any]:
        flat = flattened(samples)
        if not all("question" in one for one in flat):
            raise DataError("Samples without questions came: use a QuestionDataset.")
        counts = {len(one.get("choices", ())) for one in flat}
        if len(counts) > 1:
            raise DataError(f"Questions with {sorted(counts)} choices don't stack into one batch.")
        batch = self._videos(
            [{name: value for name, value in one.items() if name not in ("question", "choices")} for one in flat]
        )
        texts = [text for one in flat for text in question_texts(one["question"], one.get("choices"))]
        found = tokenized(self.tokenizer, texts, self.max_length)
        if count := counts.pop():
            found = {name: value.unflatten(0, (-1, count)) for name, value in found.items()}
        return {**batch, **found}


def question_texts(question: str, choices: Sequence[str] | None = None) -> list[str]:
    """What a model reads: the question, or with choices the question and each of them."""
    return [f"{question} {choice}" for choice in choices] if choices else [question]
