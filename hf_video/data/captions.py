"""Videos and what is said about them: pairs for training and evaluating models of video and text.

    splits = load_captions("pairs.csv")                          # {"train": VideoRows of CaptionRow, ...}
    data = CaptionDataset(splits["train"], processor.image_processor, augmentation=...)
    batch = CaptionCollator(processor.tokenizer)([data[0], data[1]])   # pixel_values, input_ids, attention_mask

A row is a pair: a video with three captions is three rows of one `source`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hf_video.data.collate import VideoCollator
from hf_video.data.dataset import VideoDataset
from hf_video.data.files import VIDEO_ENDINGS, is_video, walk
from hf_video.data.folder import SPLIT_NAMES, Found, Listing, split_name
from hf_video.data.hub import columns_of, is_dataset, list_dataset, load_dataset_from, saved_dataset
from hf_video.data.lists import LIST_ENDINGS, VIDEO_COLUMNS, pick_column, read_records
from hf_video.data.load import SPLITS, set_aside
from hf_video.data.rows import Skipped, VideoRow, VideoRows
from hf_video.data.splitting import assign_groups, choose_test
from hf_video.errors import DataError

CAPTION_COLUMNS = ("caption", "captions", "text", "sentence", "sentences", "description", "title", "name")
ID_COLUMNS = ("video_id", "videoid", "vid", "id", "key")  # names of files without their ending
# In a folder, the list of its pairs.
TABLES = tuple(
    f"{name}{ending}" for name in ("captions", "metadata", "pairs") for ending in (".csv", ".jsonl", ".json")
)


@dataclass(frozen=True, slots=True)
class CaptionRow(VideoRow):
    """A video and one of its captions. `label` is None."""

    caption: str = ""


@dataclass
class _Captioned(Found):
    """A video, once, with all its captions."""

    captions: list[str] = field(default_factory=list)


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
    if not 0 <= test_size < 1:
        raise DataError(f"test_size={test_size!r} must be a share from 0 to below 1.")
    listing = _list(source, videos, video_column, caption_column)
    if not listing.videos:
        why = f" {listing.skipped[0]}" if listing.skipped else ""
        raise DataError(f"{listing.root or 'The source'} holds no pair of a video and a caption.{why}")
    if inspect is not None:
        set_aside(listing, inspect, num_frames=num_frames, cache_dir=cache_dir)
    if split is not None:
        for video in listing.videos:
            video.split = video.split or split
        listing.videos = [video for video in listing.videos if video.split == split]
        if not listing.videos:
            raise DataError(f"{listing.root} has no split {split!r}.")
    elif all(video.split is None for video in listing.videos):
        assign_groups(listing.videos, group_pattern)
        test = choose_test(listing.videos, test_size, seed) if test_size else [False] * len(listing.videos)
        for video, chosen in zip(listing.videos, test, strict=True):
            video.split = "test" if chosen else "train"
    return _rows(listing)


def _rows(listing: Listing) -> dict[str, VideoRows]:
    rows: dict[str, list[CaptionRow]] = {}
    for video in listing.videos:
        pairs = [CaptionRow(video.source, None, video.name, video.group, caption) for caption in video.captions]
        rows.setdefault(video.split or "train", []).extend(pairs)
    ordered = [*[name for name in SPLITS if name in rows], *[name for name in rows if name not in SPLITS]]
    return {
        name: VideoRows(rows[name], (), listing.skipped if name == ordered[0] else (), root=listing.root)
        for name in ordered
    }


# -- sources ----------------------------------------------------------------------------------------------------------


def _list(source: Any, videos: Any, video_column: str, caption_column: str) -> Listing:
    columns = (video_column, caption_column)
    if isinstance(source, Mapping) and not is_dataset(source):
        return _by_split(source, videos, *columns)
    if is_dataset(source):
        return _from_datasets(source, *columns)
    if not isinstance(source, (str, os.PathLike)):
        raise DataError(
            f"A {type(source).__name__} is no source of pairs. Give a list (csv, json, jsonl), a folder, a datasets "
            "Dataset or a name on the Hub."
        )
    path = Path(source)
    if path.is_dir() and not saved_dataset(str(path)):
        table = next((path / name for name in TABLES if (path / name).is_file()), None)
        return _from_folder(path) if table is None else _from_list(table, videos, *columns)
    if path.suffix.lower() in LIST_ENDINGS:
        return _from_list(path, videos, *columns)
    return _from_datasets(load_dataset_from(os.fspath(source)), *columns)


def _by_split(sources: Mapping[str, Any], videos: Any, *columns: str) -> Listing:
    whole = Listing("")
    for name, part in sources.items():
        found = _list(part, videos, *columns)
        for video in found.videos:
            video.split = split_name(str(name)) or str(name)
        whole.root = whole.root or found.root
        whole.videos += found.videos
        whole.skipped += found.skipped
    return whole


def _from_list(path: Path, videos: Any, video_column: str, caption_column: str) -> Listing:
    records = _msrvtt(path) or read_records(path, names=(video_column, *ID_COLUMNS))
    names = list(dict.fromkeys(name for record in records for name in record))
    video_at = pick_column(names, video_column, (*VIDEO_COLUMNS, *ID_COLUMNS))
    caption_at = pick_column([name for name in names if name != video_at], caption_column, CAPTION_COLUMNS)
    for at, what, option in ((video_at, "videos", "video_column"), (caption_at, "captions", "caption_column")):
        if at is None:
            raise DataError(f"{path} has the columns {', '.join(map(str, names))}, and none of {what}: pass {option}=.")
    root = Path(videos) if videos is not None else path.parent
    listing, known = Listing(os.fspath(root)), {}
    for number, record in enumerate(records):
        _add(listing, known, record, video_at, caption_at, f"{path}, entry {number + 1}")
    return listing


def _add(
    listing: Listing, known: dict[Any, Any], record: Mapping[str, Any], at: str, caption_at: str, owner: str
) -> None:
    """One entry of a list; `known` holds the videos that came before, by name and split, None where one is missing."""
    name, given = record.get(at), str(record.get("split") or "")
    captions, split = _captions(record.get(caption_at)), split_name(given) or given or None
    if name is None or name == "":
        listing.skipped.append(Skipped(owner, f"its {at!r} is empty", "format"))
        return
    name = str(name)
    if not captions:
        listing.skipped.append(Skipped(f"{name} ({owner})", f"its {caption_at!r} is empty", "unlabelled"))
        return
    if (name, split) not in known:
        source, group = _source(listing.root, name), record.get("group")
        known[name, split] = None
        if source is None:
            listing.skipped.append(Skipped(name, f"{os.path.join(listing.root, name)} does not exist", "missing"))
        else:
            known[name, split] = _Captioned(source, name, None, split, None if group is None else str(group))
            listing.videos.append(known[name, split])
    if known[name, split] is not None:
        known[name, split].captions += captions


def _captions(given: Any) -> list[str]:
    several = given if isinstance(given, (list, tuple)) else [given]
    return [" ".join(one.split()) for one in several if isinstance(one, str) and one.strip()]


def _source(root: str, name: str) -> str | None:
    """The path or URL of a named video, with the first usual ending where it has none; None where it is not there."""
    if "://" in name:
        return name
    path = os.path.join(root, name)
    if os.path.isfile(path) or os.path.isdir(path):
        return path
    return next((path + ending for ending in VIDEO_ENDINGS if os.path.isfile(path + ending)), None)


def _msrvtt(path: Path) -> list[dict[str, Any]] | None:
    """The records of MSR-VTT's file (Xu et al. 2016): `videos` with splits, `sentences` with captions; else None."""
    if path.suffix.lower() != ".json":
        return None
    try:
        given = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError):
        return None  # read_records says what is wrong
    if not (isinstance(given, dict) and {"videos", "sentences"} <= given.keys()):
        return None
    splits = {one.get("video_id"): one.get("split") for one in given["videos"]}
    splits = {name: "validation" if split == "validate" else split for name, split in splits.items()}
    return [
        {"video": one.get("video_id"), "caption": one.get("caption"), "split": splits.get(one.get("video_id"))}
        for one in given["sentences"]
    ]


def _from_folder(root: Path) -> Listing:
    """`clip.txt` beside `clip.mp4`, one caption a line."""
    listing = Listing(str(root))
    for name in filter(is_video, walk(root)):
        text = (root / name).with_suffix(".txt")
        captions = _captions(text.read_text("utf-8-sig").splitlines()) if text.is_file() else []
        if not captions:
            reason = f"{text.name} is empty" if text.is_file() else f"there is no {text.name} beside it"
            listing.skipped.append(Skipped(name, reason, "unlabelled"))
            continue
        first, _, below = name.partition("/")
        split = SPLIT_NAMES.get(first.lower()) if below else None
        listing.videos.append(_Captioned(str(root / name), name, None, split, captions=captions))
    if any(video.split for video in listing.videos):
        beside = [video for video in listing.videos if video.split is None]
        listing.videos = [video for video in listing.videos if video.split is not None]
        listing.skipped += [Skipped(video.name, "stands beside the splits", "format") for video in beside]
    return listing


def _from_datasets(source: Any, video_column: str, caption_column: str) -> Listing:
    parts = dict(source.items()) if isinstance(source, Mapping) else {None: source}
    captions: list[list[str]] = []
    bare = {}
    for split, part in parts.items():
        if not hasattr(part, "select_columns"):
            raise DataError("A streaming data set has no rows to number: download it, or make a list of it.")
        video_at, _ = columns_of(part, video_column, "")
        names = [name for name in part.column_names if name != video_at]
        at = pick_column(names, caption_column, CAPTION_COLUMNS)
        if at is None:
            raise DataError(f"The data set has the columns {', '.join(names)}, and none of captions: caption_column=.")
        captions += [_captions(value) for value in part[at]]
        bare[split] = part.select_columns([video_at, *({"group"} & set(names))])
    listing = list_dataset(bare.get(None, bare), video_column=video_column)
    found = list(zip(listing.videos, captions, strict=True))
    listing.videos = [
        _Captioned(one.source, one.name, None, one.split, one.group, captions=texts) for one, texts in found if texts
    ]
    listing.skipped += [Skipped(one.name, "its caption is empty", "unlabelled") for one, texts in found if not texts]
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
    (B, L) of the captions, padded to the longest and cut at `max_length` (default: the tokenizer's limit).

    `return_loss` is in the batch, so that models give their loss. Raises DataError for samples without captions.
    """

    def __init__(self, tokenizer: Any, *, max_length: int | None = None):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._videos = VideoCollator()

    def __call__(self, samples: Sequence[Any]) -> dict[str, Any]:
        flat = [one for sample in samples for one in (sample if isinstance(sample, list) else [sample])]
        if not all("caption" in one for one in flat):
            raise DataError("Samples without captions came: use a CaptionDataset.")
        batch = self._videos([{name: one[name] for name in one if name != "caption"} for one in flat])
        texts = self.tokenizer(
            [one["caption"] for one in flat],
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        wanted = {"input_ids", "attention_mask"}
        batch |= {name: value for name, value in texts.items() if name in wanted and isinstance(value, torch.Tensor)}
        return {**batch, "return_loss": True}
