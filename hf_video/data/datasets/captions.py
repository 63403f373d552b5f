"""Videos and what is said about them: pairs for training and evaluating models of video and text.

    splits = load_captions("pairs.csv")                          # {"train": VideoRows of CaptionRow, ...}
    data = CaptionDataset(splits["train"], processor.image_processor, augmentation=...)
    batch = CaptionCollator(processor.tokenizer)([data[0], data[1]])   # pixel_values, input_ids, attention_mask

A row is a pair: a video with three captions is three rows of one `source`.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hf_video.data.datasets.collate import VideoCollator
from hf_video.data.datasets.dataset import VideoDataset
from hf_video.data.rows import Skipped, SourceListing, VideoRow, VideoRows
from hf_video.data.sources.files import is_video, list_folder
from hf_video.data.sources.labels import AnnotationReader, RecordReader
from hf_video.data.sources.load import load_listing, rows_by_split
from hf_video.data.sources.tables import Table, pick_column, read_text, text_lines
from hf_video.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hf_video.data.types import DataSource, FrameProcessor

CAPTION_COLUMNS = ("caption", "captions", "text", "sentence", "sentences", "description", "title", "name")
# In a folder, the list of its pairs.
TABLES = tuple(
    f"{name}{ending}"
    for name in ("captions", "metadata", "pairs")
    for ending in (".csv", ".jsonl", ".json", ".tsv", ".parquet")
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
    source: DataSource,
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
    """Lists the (video, caption) pairs of a source by split.

    Args:
        source: A CSV, TSV, JSON, JSONL or Parquet list with a column of videos and one of captions (a text, or in JSON
            a list of them; several entries may name one video); MSR-VTT's JSON (`videos` and `sentences`); a folder
            with such a list in it (captions.csv, metadata.jsonl, ...) or with a `clip.txt` beside each `clip.mp4`, one
            caption a line, also below train/ and test/; a `datasets` Dataset or DatasetDict, or a name on the Hub; or a
            dict of these by split.
        videos: The folder that names in a list are relative to; default the list's own. Names without an ending
            ("video7012") are looked up there.
        video_column, caption_column: Their names, where they are not usual ones.
        split: The only split to take; a source without splits is then this one, whole.
        test_size: Share of the videos that becomes "test" where the source has no splits. All captions of a video, and
            all videos of a group, are on one side.
        seed, group_pattern, inspect, num_frames, cache_dir: As in `load_videos`.

    Returns:
        The `CaptionRow`s of each split. What is not used (a missing file, an empty caption, a video that can't be read)
        is in the first split's `skipped`.

    Raises:
        DataError: Nothing is left, or the source has no videos or no captions.
    """
    listing = load_listing(
        source,
        CaptionReader(video_column, caption_column),
        videos=videos,
        split=split,
        test_size=test_size,
        seed=seed,
        group_pattern=group_pattern,
        inspect=inspect,
        num_frames=num_frames,
        cache_dir=cache_dir,
    )
    return rows_by_split(
        listing, lambda one: (CaptionRow(one.source, None, one.name, one.group, text) for text in one.annotations)
    )


# -- sources ----------------------------------------------------------------------------------------------------------


class CaptionReader(AnnotationReader):
    """Captions of videos: a column of them, MSR-VTT's file, or `clip.txt` beside `clip.mp4`, one caption a line."""

    noun = "captions"

    def __init__(self, video_column: str, caption_column: str):
        super().__init__(video_column, caption_column)
        self.caption_column = caption_column

    def bind(self, columns: list[str], owner: str) -> tuple[list[str], RecordReader]:
        at = pick_column(columns, self.caption_column, CAPTION_COLUMNS, owner)
        if at is None:
            names = ", ".join(map(str, columns))
            raise DataError(f"{owner} has the columns {names}, and none of captions: pass caption_column=.")
        return [at], lambda record, place: _captions(record.get(at)) or f"its {at!r} is empty"

    def read_file(self, path: Path) -> Table | None:
        """MSR-VTT's file (Xu et al. 2016): `videos` with splits, `sentences` with captions."""
        if path.suffix.lower() != ".json":
            return None
        try:
            given = json.loads(read_text(path))
        except (DataError, ValueError):
            return None  # read_table says what is wrong
        if not (isinstance(given, dict) and {"videos", "sentences"} <= given.keys()):
            return None
        splits = {one.get("video_id"): one.get("split") for one in given["videos"]}
        records = [
            {"video": one.get("video_id"), "caption": one.get("caption"), "split": splits.get(one.get("video_id"))}
            for one in given["sentences"]
        ]
        return Table(records, [f"entry {number}" for number in range(1, len(records) + 1)])

    def find_list(self, root: Path) -> Path | None:
        return next((root / name for name in TABLES if (root / name).is_file()), None)

    def list_folder(self, root: Path) -> SourceListing:
        listing = list_folder(root, labelled=False)
        listing.skipped = [one for one in listing.skipped if is_video(one.name)]
        for video in listing.videos:
            text = (root / video.name).with_suffix(".txt")
            video.annotations = _captions(text_lines(read_text(text))) if text.is_file() else []
            if not video.annotations:
                reason = f"{text.name} is empty" if text.is_file() else f"there is no {text.name} beside it"
                listing.skipped.append(Skipped(video.name, reason, "unlabelled"))
        listing.videos = [video for video in listing.videos if video.annotations]
        if not listing.videos:
            raise DataError(f"{root} holds no pair of a video and a caption. {listing.skipped[-1]}")
        return listing


def _captions(given: object) -> list[str]:
    several = given if isinstance(given, (list, tuple)) else [given]
    return [text for text in map(normalize_text, several) if text]


def normalize_text(text: object) -> str:
    """In Unicode's NFC, without spaces around it and doubled ones; "" for what is no text."""
    return " ".join(unicodedata.normalize("NFC", text).split()) if isinstance(text, str) else ""


# -- samples and batches ----------------------------------------------------------------------------------------------


class CaptionDataset(VideoDataset):
    """A `VideoDataset` of `CaptionRow`s. Its samples have a text `caption` too. Raises DataError for other rows."""

    def __init__(self, rows: VideoRows, processor: FrameProcessor, **options: Any):
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
    """Makes a batch of samples of a `CaptionDataset`: `pixel_values` (B, T, C, H, W), `input_ids` and `attention_mask`
    (B, L) of the captions, and `return_loss`, so that models give their loss.

    Args:
        tokenizer: The model's.
        max_length: Tokens at which captions are cut; default the tokenizer's limit.
        padding: As tokenizers take it: True pads to the longest caption of the batch.

    Raises:
        DataError: Samples have no captions.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, max_length: int | None = None, padding: str | bool = True
    ):
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
    tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int | None, padding: str | bool = True
) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` (N, L), padded to the longest or as `padding` says, and cut at `max_length`."""
    found = tokenizer(texts, padding=padding, truncation=True, max_length=max_length, return_tensors="pt")
    wanted = {"input_ids", "attention_mask"}
    return {name: value for name, value in found.items() if name in wanted and isinstance(value, torch.Tensor)}
