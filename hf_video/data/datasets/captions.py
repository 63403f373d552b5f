"""Videos and what is said about them: pairs for training and evaluating models of video and text.

    splits = load_captions("pairs.csv")                          # {"train": VideoRows of CaptionRow, ...}
    data = CaptionDataset(splits["train"], processor.image_processor, augmentation=...)
    batch = CaptionCollator(processor.tokenizer)([data[0], data[1]])   # pixel_values, input_ids, attention_mask

A row is a pair: a video with three captions is three rows of one `source`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hf_video.data.datasets.collate import VideoCollator
from hf_video.data.datasets.dataset import VideoDataset
from hf_video.data.rows import Skipped, SourceListing, VideoRow, VideoRows
from hf_video.data.sources.described import (
    Described,
    Form,
    Reader,
    check_test_size,
    clean,
    inspect_and_divide,
    list_described,
    rows_by_split,
)
from hf_video.data.sources.files import SPLIT_NAMES, is_video, walk_files
from hf_video.data.sources.lists import pick_column
from hf_video.data.sources.tables import read_text, text_lines
from hf_video.errors import DataError

CAPTION_COLUMNS = ("caption", "captions", "text", "sentence", "sentences", "description", "title", "name")
# In a folder, the list of its pairs.
TABLES = tuple(
    f"{name}{ending}" for name in ("captions", "metadata", "pairs") for ending in (".csv", ".jsonl", ".json")
)


@dataclass(frozen=True, slots=True)
class CaptionRow(VideoRow):
    """A video and one of its captions. `label` is None."""

    caption: str = ""

    @property
    def text(self) -> str:
        """All that is said of the video here."""
        return self.caption


def load_captions(
    source: Any,
    *,
    videos: str | os.PathLike[str] | None = None,
    video_column: str = "video",
    caption_column: str = "caption",
    split: str | None = None,
    test_size: float = 0.0,
    seed: int = 0,
    group_pattern: str | None = None,
    inspect: str | None = "open",
    num_frames: int = 4,
    cache_dir: str | os.PathLike[str] | None = None,
) -> dict[str, VideoRows]:
    """The (video, caption) pairs of a source as `CaptionRow`s, by split.

    Args:
        source: A CSV, TSV, JSON or JSONL list with a column of videos and one of captions (a text, or in JSON a list of
            them; several entries may name one video); MSR-VTT's JSON (`videos` and `sentences`); a folder with such a
            list in it (captions.csv, metadata.jsonl, ...) or with a `clip.txt` beside each `clip.mp4`, one caption a
            line, also below train/ and test/; a `datasets` Dataset or DatasetDict, or a name on the Hub; or a dict of
            these by split.
        videos: The folder that names in a list are relative to; default the list's own. Names without an ending
            ("video7012") are looked up there.
        video_column, caption_column: Their names, where they are not usual ones.
        split: Take only this one; a source without splits is then this one, whole.
        test_size: Share of the videos that becomes "test" where the source has no splits. All captions of a video, and
            all videos of a group, are on one side.
        seed, group_pattern, inspect, num_frames, cache_dir: As in `load_videos`.

    What is not used (a missing file, an empty caption, a video that can't be read) is in `.skipped`. Raises DataError
    where nothing is left, and for a source that has no videos or no captions.
    """
    check_test_size(test_size)
    form = Form("pairs", _reader(caption_column), _from_folder, video_column, _msrvtt)
    listing = list_described(source, form, videos)
    if not listing.videos:
        why = f" {listing.skipped[0]}" if listing.skipped else ""
        raise DataError(f"{listing.root or 'The source'} holds no pair of a video and a caption.{why}")
    inspect_and_divide(
        listing,
        split=split,
        test_size=test_size,
        seed=seed,
        group_pattern=group_pattern,
        inspect=inspect,
        num_frames=num_frames,
        cache_dir=cache_dir,
    )
    return rows_by_split(listing, _rows)


def _rows(video: Described) -> Iterable[CaptionRow]:
    return (CaptionRow(video.source, None, video.name, video.group, caption) for caption in video.said)


# -- sources ----------------------------------------------------------------------------------------------------------


def _reader(caption_column: str) -> Callable[[list[str], str], tuple[list[str], Reader]]:
    def of_columns(names: list[str], owner: str) -> tuple[list[str], Reader]:
        at = pick_column(names, caption_column, CAPTION_COLUMNS)
        if at is None:
            columns = ", ".join(map(str, names))
            raise DataError(f"{owner} has the columns {columns}, and none of captions: pass caption_column=.")
        return [at], lambda record: _captions(record.get(at)) or f"its {at!r} is empty"

    return of_columns


def _captions(given: Any) -> list[str]:
    several = given if isinstance(given, (list, tuple)) else [given]
    return [text for text in map(clean, several) if text]


def _msrvtt(path: Path) -> list[dict[str, Any]] | None:
    """The records of MSR-VTT's file (Xu et al. 2016): `videos` with splits, `sentences` with captions; else None."""
    if path.suffix.lower() != ".json":
        return None
    try:
        given = json.loads(read_text(path))
    except (DataError, ValueError):
        return None  # read_table says what is wrong
    if not (isinstance(given, dict) and {"videos", "sentences"} <= given.keys()):
        return None
    splits = {one.get("video_id"): one.get("split") for one in given["videos"]}
    splits = {name: "validation" if split == "validate" else split for name, split in splits.items()}
    return [
        {"video": one.get("video_id"), "caption": one.get("caption"), "split": splits.get(one.get("video_id"))}
        for one in given["sentences"]
    ]


def _from_folder(root: Path, read: Callable[[Any], SourceListing]) -> SourceListing:
    """A list in it, or `clip.txt` beside `clip.mp4`, one caption a line."""
    table = next((root / name for name in TABLES if (root / name).is_file()), None)
    if table is not None:
        return read(table)
    listing = SourceListing(str(root))
    for name in filter(is_video, walk_files(root)):
        text = (root / name).with_suffix(".txt")
        captions = _captions(text_lines(read_text(text))) if text.is_file() else []
        if not captions:
            reason = f"{text.name} is empty" if text.is_file() else f"there is no {text.name} beside it"
            listing.skipped.append(Skipped(name, reason, "unlabelled"))
            continue
        first, _, below = name.partition("/")
        split = SPLIT_NAMES.get(first.lower()) if below else None
        listing.videos.append(Described(str(root / name), name, None, split, said=captions))
    if any(video.split for video in listing.videos):
        beside = [video for video in listing.videos if video.split is None]
        listing.videos = [video for video in listing.videos if video.split is not None]
        listing.skipped += [Skipped(video.name, "stands beside the splits", "format") for video in beside]
    return listing


# -- samples and batches ----------------------------------------------------------------------------------------------


class CaptionDataset(VideoDataset):
    """A `VideoDataset` of `CaptionRow`s: its samples have `caption`, a text, besides."""

    def __init__(self, rows: VideoRows, processor: Any, **options: Any):
        bare = next((row for row in rows if not getattr(row, "caption", "")), None)
        if bare is not None:
            raise DataError(f"{bare.name} has no caption: make the rows with load_captions.")
        super().__init__(rows, processor, **options)

    def _make(self, row: CaptionRow, epoch: int, index: int, view: int = 0) -> Any:
        made = super()._make(row, epoch, index, view)
        samples = made if isinstance(made, list) else [made]
        for sample in samples:
            sample["caption"] = row.caption
        return made


class CaptionCollator:
    """Samples of a `CaptionDataset` to a batch: `pixel_values` (B, T, C, H, W), and `input_ids` and `attention_mask`
    (B, L) of the captions, padded to the longest (or as `padding` says, a model's `text_padding`) and cut at
    `max_length` (default: the tokenizer's limit).

    `return_loss` is in the batch, so that models give their loss. Raises DataError for samples without captions.
    """

    def __init__(self, tokenizer: Any, *, max_length: int | None = None, padding: str | bool = True):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.padding = padding
        self._videos = VideoCollator()

    def __call__(self, samples: Sequence[Any]) -> dict[str, Any]:
        flat = flattened(samples)
        if not all("caption" in one for one in flat):
            raise DataError("Samples without captions came: use a CaptionDataset.")
        batch = self._videos([{name: one[name] for name in one if name != "caption"} for one in flat])
        batch |= tokenized(self.tokenizer, [one["caption"] for one in flat], self.max_length, self.padding)
        return {**batch, "return_loss": True}


def flattened(samples: Sequence[Any]) -> list[dict[str, Any]]:
    """Samples one after the other, those of repeated augmentation too."""
    return [one for sample in samples for one in (sample if isinstance(sample, list) else [sample])]


def tokenized(
    tokenizer: Any, texts: list[str], max_length: int | None, padding: str | bool = True
) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` (N, L), padded to the longest or as `padding` says, and cut at `max_length`."""
    found = tokenizer(texts, padding=padding, truncation=True, max_length=max_length, return_tensors="pt")
    wanted = {"input_ids", "attention_mask"}
    return {name: value for name, value in found.items() if name in wanted and isinstance(value, torch.Tensor)}
