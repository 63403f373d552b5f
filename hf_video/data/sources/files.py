"""Files below a folder: which are videos by their ending and what the others are, and a folder of videos as a listing:
`train/<label>/clip.mp4`, `<label>/clip.mp4`, or just clips.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from hf_video.data.rows import ListedVideo, Skipped, SourceListing
from hf_video.errors import DataError
from hf_video.video.frames.addresses import local_path, natural_key, scheme_of

VIDEO_ENDINGS = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv",
    ".ogv", ".3gp", ".y4m", ".vob", ".asf", ".f4v",
)  # fmt: skip
# What official lists leave out before a number: MSRVTT-QA's 7010 is video7010.mp4, MSVD-QA's 1 is vid1.avi.
NUMBERED = ("", "video", "vid")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "validate": "validation",
    "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


def walk_files(root: str | os.PathLike[str]) -> Iterator[str]:
    """Paths of all files below `root`, relative to it with "/", in natural order (2 before 10). Hidden files and
    folders are passed over; links to folders are followed once."""
    seen = set()
    found = []
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above would never end
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        found += [Path(folder, file).relative_to(root).as_posix() for file in files if not file.startswith(".")]
    return iter(sorted(found, key=natural_key))


def videos_below(root: str | os.PathLike[str]) -> tuple[list[str], list[Skipped]]:
    """Paths of all videos below `root`, by their endings, in the order of `walk_files`; and what is left out: files of
    other kinds, and further names (links) of a file that is among the videos, of which one that is no link is kept."""
    videos, others = [], []
    first: dict[str, str] = {}
    names = list(walk_files(root))
    for name in sorted(filter(is_video, names), key=lambda name: os.path.islink(os.path.join(root, name))):
        first.setdefault(canonical_path(os.path.join(root, name)), name)
    for name in names:
        if not is_video(name):
            others.append(not_a_video(name))
        elif (kept := first[canonical_path(os.path.join(root, name))]) == name:
            videos.append(name)
        else:
            others.append(Skipped(name, f"is the same file as {kept}", "other"))
    return videos, others


def canonical_path(path: str) -> str:
    """What all spellings of a path have in common: relative or absolute, through links or not. URLs are as they are."""
    if scheme_of(path):
        return path
    return os.path.realpath(path)


def locate(root: str | os.PathLike[str], name: str) -> str | None:
    """The path of a video that a list names, relative to `root`; URLs as they are; None where nothing is there.

    Names without their ending are found (`video7012`, and 7012 of MSRVTT-QA, which is video7012.mp4), and so are those
    whose accents are written otherwise than the file's (NFC, NFD) and those with Windows' separators.
    """
    name = local_path(name)
    if scheme_of(name):
        return name
    forms = dict.fromkeys([name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))])
    forms |= dict.fromkeys(form.replace("\\", "/") for form in list(forms) if "\\" in form)
    for form in forms:
        path = os.path.join(root, form)
        if os.path.exists(path):
            return path
    stems = [
        os.path.join(root, prefix + form) for form in forms for prefix in (NUMBERED if form.isdecimal() else ("",))
    ]
    return next((stem + ending for stem in stems for ending in VIDEO_ENDINGS if os.path.isfile(stem + ending)), None)


def is_video(name: str) -> bool:
    """Whether the ending is a video's. What the file really holds, only opening it tells."""
    return name.lower().endswith(VIDEO_ENDINGS)


def not_a_video(name: str) -> Skipped:
    """The entry for a file whose ending is none of a video's. At the top of a folder such files are expected (a README,
    a list of labels); in a label folder they are not."""
    ending = os.path.splitext(name)[1].lower()
    what = "an image" if ending in IMAGE_ENDINGS else f"a {ending} file" if ending else "a file without an ending"
    return Skipped(name, f"{what}, and no video by its name", "format" if "/" in name else "other")


def split_name(text: str) -> str | None:
    """ "train", "validation" or "test" for the names that people give them, else None."""
    return SPLIT_NAMES.get(text.lower())


def is_dataset(source: object) -> bool:
    """Whether it is of `datasets`, without importing that."""
    return any(kind.__module__.partition(".")[0] == "datasets" for kind in type(source).__mro__)


def saved_dataset(path: str) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return os.path.isdir(path) and any(
        os.path.isfile(os.path.join(path, name)) for name in ("dataset_dict.json", "state.json")
    )


def list_folder(root: str | os.PathLike[str], *, labelled: bool = True) -> SourceListing:
    """The videos of a folder; with `labelled` the folder below its split names the class of a video. Raises DataError
    where nothing in it is a video."""
    root = Path(root)
    listing = SourceListing(str(root))
    below = [entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    splits = {name: split_name(name) for name in below if split_name(name)}
    if "train" not in splits.values() and len(splits) < len(below):
        splits = {}  # a label may be called "test"
    for name in walk_files(root):
        *folders, _ = name.split("/")
        split = splits.get(folders[0]) if folders else None
        if not is_video(name):
            listing.skipped.append(not_a_video(name))
        elif splits and split is None:
            reason = f"stands beside the splits ({', '.join(splits)})"
            listing.unlabelled.append(ListedVideo(str(root / name), name))
            listing.skipped.append(Skipped(name, reason, "format"))
        else:
            classes = folders[1:] if splits else folders
            label = classes[0] if labelled and classes else None
            listing.videos.append(ListedVideo(str(root / name), name, label, split))
    if not listing.videos:
        others = f" There are other files, such as {listing.skipped[0].name}." if listing.skipped else ""
        raise DataError(
            f"{root} holds no video.{others} Give train/<label>/clip.mp4, <label>/clip.mp4, or clips without labels."
        )
    listing.drop_unlabelled("stands beside the label folders")
    if any(video.label is not None for video in listing.videos):
        _name_empty_classes(listing, root, splits)
    return listing


def _name_empty_classes(listing: SourceListing, root: Path, splits: dict[str, str]) -> None:
    """Label folders without any video: perhaps an unfinished download."""
    depth = 2 if splits else 1
    full = {"/".join(video.name.split("/")[:depth]) for video in listing.videos}
    for top in [root / name for name in splits] or [root]:
        for folder in sorted(entry for entry in top.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
            name = folder.relative_to(root).as_posix()
            if name not in full:
                listing.skipped.append(Skipped(name + "/", "a label folder without a video", "no videos"))
