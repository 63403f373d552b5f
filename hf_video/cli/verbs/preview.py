"""See what augmentation does to your videos before you train: every step by itself, then all of them together.

  hf-video preview videos/ --output sheet.png
  hf-video preview videos/ --recipe videomae_finetune_kinetics --output sheet.png
  hf-video preview clip.mp4 --recipe small_data --augmentation flip=0 color_jitter=0.4 --temporal speed=[0.5,2]

Without --recipe the sheet shows every augmentation there is. In a folder the class of a video is the name of the
folder it lies in, and the sheet says whether flipping is safe for these classes. Options are fields of Augmentation,
Mixing and TemporalAugmentation, as in a recipe. Files that can't be read are named on stderr, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from hf_video.cli import DONE, SOME_FAILED, CommandError
from hf_video.cli.arguments import Parser, output_picture, positive_int
from hf_video.cli.files import expand_paths
from hf_video.cli.printing import error_line
from hf_video.errors import VideoError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from hf_video.video.augment.preview import PreviewClip

# Every augmentation, each strong enough to be seen.
EVERYTHING: dict[str, Any] = {
    "name": "everything",
    "data": {"temporal": {"speed": [0.5, 2.0], "jitter": 1.0, "reverse": 0.5}},
    "augmentation": {"flip": "swap", "color_jitter": [0.4, 0.4, 0.4, 0.1], "color_prob": 0.8, "gray_prob": 0.2},
    "mixing": {},
    "model": {},
}
SHORTEST = 256  # frames of the preview are read at no more than this short side, in pixels


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("source", metavar="DIR_OR_FILE", help="a video, or a folder of videos")
    add("--output", required=True, type=output_picture, metavar="SHEET.png", help="the picture (.png or .jpg)")
    add("--recipe", metavar="NAME", help="a recipe of the package, name[:variant], or a YAML file")
    add("--augmentation", nargs="+", default=[], metavar="NAME=VALUE", help="fields of Augmentation to change")
    add("--mixing", nargs="+", default=[], metavar="NAME=VALUE", help="fields of Mixing, or null for none")
    add("--temporal", nargs="+", default=[], metavar="NAME=VALUE", help="fields of TemporalAugmentation, or null")
    add("--size", type=positive_int, metavar="PIXELS", help="of augmented clips (default: the recipe's, or 224)")
    add("--num-frames", type=positive_int, metavar="T", help="frames of a clip (default: the recipe's, else 16)")
    add("--clips", type=positive_int, default=4, metavar="N", help="videos to show, of different classes (default 4)")
    add("--seed")


def run(options: argparse.Namespace) -> int:
    from hf_video.video.augment.augmentation import Augmentation
    from hf_video.video.augment.checks import from_options
    from hf_video.video.augment.mixing import Mixing
    from hf_video.video.augment.preview import preview_sheet
    from hf_video.video.augment.temporal import TemporalAugmentation

    recipe = resolve_recipe(options)
    size = options.size or recipe["model"].get("image_size") or 224
    data, mixing = recipe["data"], recipe["mixing"]
    augmentation = from_options(Augmentation, recipe["augmentation"], size=size)
    temporal = from_options(TemporalAugmentation, data["temporal"]) if data.get("temporal") else None
    mixing = from_options(Mixing, mixing) if mixing is not None else None
    files = expand_paths([options.source])
    labels = sorted({label for file in files if (label := folder_label(file, options.source)) is not None})
    with ExitStack() as readers:
        clips, failed = load_preview_clips(files, data, options, readers)
        sheet = preview_sheet(
            clips, augmentation=augmentation, temporal=temporal, mixing=mixing, labels=labels, seed=options.seed,
            title=f"Augmentation: {':'.join(filter(None, (recipe['name'], recipe.get('variant'))))}",
        )  # fmt: skip
    sheet.save(options.output)
    print(f"{options.output}: {sheet.width}x{sheet.height} pixels")
    return SOME_FAILED if failed else DONE


def resolve_recipe(options: argparse.Namespace) -> dict[str, Any]:
    """The recipe's sections, or every augmentation, with the changes of the command line."""
    from hf_video.training.recipes import load_recipe

    recipe = load_recipe(options.recipe) if options.recipe else EVERYTHING
    data = dict(recipe["data"])
    data["temporal"] = apply_settings(data.get("temporal"), options.temporal)
    return {
        **recipe,
        "data": data,
        "augmentation": apply_settings(recipe["augmentation"], options.augmentation) or {},
        "mixing": apply_settings(recipe["mixing"], options.mixing),
    }


def apply_settings(section: dict[str, Any] | None, settings: list[str]) -> dict[str, Any] | None:
    """A section with NAME=VALUE settings, read as YAML; `null` alone switches it off. Raises CommandError for any other
    form."""
    import yaml

    if settings == ["null"]:
        return None
    for setting in settings:
        name, equals, text = setting.partition("=")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            equals = ""
        if not equals:
            raise CommandError(
                f"{setting!r} can't be read: write NAME=VALUE, such as flip=0 or scale=[0.5,1], or null alone"
            )
        section = {**(section or {}), name: value}
    return section


def folder_label(file: str, source: str) -> str | None:
    """The name of a file's folder, which is its class; None for a file given by itself or at the top of `source`."""
    folder = os.path.dirname(file)
    return os.path.basename(folder) if os.path.isdir(source) and not os.path.samefile(folder, source) else None


def interleave_classes(files: list[str], source: str) -> list[str]:
    """The files in rounds of one file per class, so that a damaged file is replaced by the next one of its class."""
    classes: dict[str | None, list[str]] = {}
    for file in files:
        classes.setdefault(folder_label(file, source), []).append(file)
    turns = max(map(len, classes.values()))
    return [of_class[turn] for turn in range(turns) for of_class in classes.values() if turn < len(of_class)]


def load_preview_clips(
    files: list[str], data: dict[str, Any], options: argparse.Namespace, readers: ExitStack
) -> tuple[list[PreviewClip], int]:
    """The clips of `--clips` videos, of different classes where possible, and the number of files that can't be read;
    these are named on stderr. Raises CommandError if no file can be read."""
    clips: list[PreviewClip] = []
    failed, seen = 0, set()
    waiting = interleave_classes(files, options.source)
    while waiting and len(clips) < options.clips:
        # A class whose file was damaged still comes before the second clip of another.
        new = (file for file in waiting if folder_label(file, options.source) not in seen)
        file = next(new, waiting[0])
        waiting.remove(file)
        try:
            clips.append(_clip(file, data, options, readers))
            seen.add(folder_label(file, options.source))
        except VideoError as error:
            failed += 1
            print(error_line(file, str(error)), file=sys.stderr)
    if not clips:
        raise CommandError("none of the videos could be read")
    return clips, failed


def _clip(file: str, data: dict[str, Any], options: argparse.Namespace, readers: ExitStack) -> PreviewClip:
    import torch

    from hf_video.video.augment.preview import PreviewClip
    from hf_video.video.reader import VideoReader
    from hf_video.video.sampling.samplers import sample_video

    reader = readers.enter_context(VideoReader(file, **_resize_options(file, data.get("resize"))))
    num_frames, total = options.num_frames or data.get("num_frames") or 16, reader.metadata.num_frames
    sampler = {"sampler": data.get("sampler"), **(data.get("sampler_options") or {})}
    if sampler["sampler"] is None:  # training uses the model's; here motion is shown, and no frame twice
        sampler = {"sampler": "dense", "stride": 4} if total >= 4 * num_frames else {"sampler": "uniform"}
    indices = sample_video(reader, num_frames, **sampler).indices[0]

    def read(wanted: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(reader.get_frames(wanted).data)

    return PreviewClip(read(indices), indices, total, read, os.path.basename(file), folder_label(file, options.source))


def _resize_options(file: str, resize: int | Sequence[int] | None) -> dict[str, Any]:
    """The reader's options for the recipe's `resize`; without one, large frames are reduced to `SHORTEST`."""
    from hf_video.video.reader import VideoReader

    if resize is not None:
        return {"shortest_edge": resize} if isinstance(resize, int) else {"size": tuple(resize)}
    with VideoReader(file) as reader:
        size = reader.metadata.height, reader.metadata.width
    return {"shortest_edge": SHORTEST} if min(size) > SHORTEST else {}
