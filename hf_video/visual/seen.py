"""Pictures of what a classifier saw of a video, crop by crop, and of what its answer rests on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from hf_video.base.modeling import CLIP_NAMES
from hf_video.clips.read import ClipInputs, WindowSample, clip_processor, read_clips
from hf_video.clips.request import average_views
from hf_video.errors import BackendError, ModelInputError, VideoOptionError, check_choice, unknown_name
from hf_video.pipelines.video_classification import VideoClassificationPipeline
from hf_video.video.contact_sheet import SheetClip, contact_sheet, shortened
from hf_video.video.frames.types import VideoSource
from hf_video.video.writer import write_video
from hf_video.visual.relevance import attention_rollout, grad_cam

METHODS: dict[str, Callable[..., torch.Tensor]] = {"rollout": attention_rollout, "grad_cam": grad_cam}
_PAPER, _INK, _FAINT, _BAR = (250, 250, 248), (30, 32, 36), (96, 100, 106), (31, 111, 180)
_CELL, _GAP, _MARGIN, _COLUMNS = 112, 3, 16, 8  # pixels of a frame's width, between and around; frames side by side


@dataclass(frozen=True)
class SeenView:
    """A clip and crop as the model saw it.

    Attributes:
        frames: uint8 RGB (T, H, W, 3), of the size at which they went in.
        seconds: When each is shown in the video, and at last when the last one ends, (T + 1,).
        name: "clip 1 of 2, left crop".
        label, score: The class that is asked about (else the best one), and its score in this view.
        relevance: (t, h, w) from 0 up, on the model's own grid; None where none was asked for.
    """

    frames: np.ndarray
    seconds: np.ndarray
    name: str
    label: str
    score: float
    relevance: np.ndarray | None = None

    def heat(self) -> np.ndarray:
        """The frames (T, H, W, 3) with what counts glowing over them: colours run from the smallest to the largest
        value of the view.

        Raises:
            VideoOptionError: No relevance was asked for.
            BackendError: matplotlib, which has the colours, is not installed.
        """
        if self.relevance is None:
            raise VideoOptionError("The views have no relevance: ask for it, explain_video(..., method='rollout').")
        try:
            from matplotlib import colormaps
        except ImportError as error:
            raise BackendError(f"The colours come from matplotlib ({error}): pip install matplotlib.") from error
        grid = torch.from_numpy(self.relevance)[None, None]
        size = self.frames.shape[:3]
        large = torch.nn.functional.interpolate(grid.float(), size=size, mode="trilinear")[0, 0]
        share = ((large - large.min()) / (large.max() - large.min()).clamp(min=1e-12)).numpy()[..., None]
        colours = colormaps["inferno"](share[..., 0])[..., :3] * 255
        opacity = 0.15 + 0.6 * share
        return np.rint(self.frames * (1 - opacity) + colours * opacity).astype(np.uint8)

    def over_time(self) -> np.ndarray:
        """The share of each frame in the relevance of the view, (T,)."""
        if self.relevance is None:
            raise VideoOptionError("The views have no relevance: ask for it, explain_video(..., method='rollout').")
        times = self.relevance.sum((1, 2))
        frames = times[np.arange(len(self.frames)) * len(times) // len(self.frames)]
        return frames / max(frames.sum(), 1e-12)


def explain_video(
    pipeline: VideoClassificationPipeline,
    video: VideoSource,
    *,
    method: str | None = None,
    label: str | None = None,
    **reading: Any,
) -> list[SeenView]:
    """Reads a video as a classification pipeline does, and says what its answer rests on.

    Args:
        pipeline: `pipeline("video-classification", model=...)`.
        video: What the pipeline takes.
        method: "rollout" (`attention_rollout`), "grad_cam" (`grad_cam`), or None for the views alone.
        label: The class whose score the views have, and that Grad-CAM asks about; a rollout is the same for all.
            Default: the best one of the whole video.
        reading: Options of the pipeline that say what is read: `views`, `num_frames`, `sampler`, …

    Returns:
        One for each view, clips first, then crops.

    Raises:
        VideoOptionError: An option or a class that there is not, or `windows`.
        CheckpointError: The method does not work for the model; the message says what does.
        VideoError: The video can't be read.
    """
    check_choice("method", method, (*METHODS, None))
    if "windows" in reading:
        raise VideoOptionError("windows= are many videos: give one, such as a VideoPart, or pick clips with views=.")
    model, names = pipeline.model, pipeline.model.config.id2label
    numbers = {name: number for number, name in names.items()}
    if label is not None and label not in numbers:
        raise VideoOptionError(unknown_name("The model has no class", label, numbers))
    options, _ = pipeline.reading_options(**reading)
    request = pipeline._request(**options)
    processor = pipeline.image_processor or pipeline.video_processor
    seen: WindowSample | None = None
    clips: list[dict[str, torch.Tensor]] = []
    for piece in read_clips(video, request, clip_processor(processor)):
        if isinstance(piece, ClipInputs):
            clips.append({name: one.to(pipeline.device) for name, one in piece.inputs.items()})
        else:
            seen = piece[0]
    assert seen is not None
    scores = [pipeline.forward(inputs)["logits"].float() for inputs in clips]
    function = pipeline._function()
    best = int(average_views(torch.cat(scores), function).argmax()) if label is None else numbers[label]
    views = []
    for clip, (inputs, rows) in enumerate(zip(clips, scores, strict=True)):
        pixels = inputs[next(name for name in CLIP_NAMES if name in inputs)]
        relevance: list[Any] = [None] * len(rows)
        if method is not None:
            asked = {"label": best} if method == "grad_cam" else {}

            def run(*, pixels: torch.Tensor = pixels, asked: dict[str, int] = asked, **_: Any) -> torch.Tensor:
                return METHODS[method](model, pixels.to(pipeline.dtype), **asked)

            relevance = list(pipeline._run(run, inputs).cpu().numpy())
        indices, times = seen.sample.indices[clip], seen.sample.seconds
        begins = np.asarray(indices if times is None else times[clip], np.float64)
        spans = seen.sample.spans
        end = float(begins[-1]) + 1 if spans is None else float(spans[clip][1])
        for crop, frames in enumerate(seen_frames(processor, pixels)):
            score = average_views(rows[crop : crop + 1], function)[best]
            views.append(
                SeenView(
                    frames=frames,
                    seconds=np.append(begins, end),
                    name=_name(clip, len(clips), crop, len(rows)),
                    label=names.get(best, f"LABEL_{best}"),
                    score=float(score),
                    relevance=relevance[crop],
                )
            )
    return views


def seen_frames(processor: Any, pixel_values: torch.Tensor) -> np.ndarray:
    """Clips as a processor made them, as pictures again.

    Args:
        processor: What made them: its mean, deviation, scale and order of channels are undone.
        pixel_values: (B, T, 3, H, W).

    Returns:
        uint8 RGB (B, T, H, W, 3).

    Raises:
        ModelInputError: They are no pictures of three channels.
    """
    if pixel_values.ndim != 5 or pixel_values.shape[2] != 3:
        raise ModelInputError(f"Clips (B, T, 3, H, W) can be shown; {tuple(pixel_values.shape)} came.")
    pixels = pixel_values.detach().float().cpu()
    if getattr(processor, "do_normalize", True) and getattr(processor, "image_mean", None) is not None:
        mean, std = (torch.tensor(np.broadcast_to(one, 3).copy(), dtype=torch.float32).view(3, 1, 1)
                     for one in (processor.image_mean, processor.image_std))  # fmt: skip
        pixels = pixels * std + mean
    if getattr(processor, "do_rescale", True):
        if getattr(processor, "offset", False):  # ViViT's: pixels from -1 to 1
            pixels = pixels + 1
        pixels = pixels / getattr(processor, "rescale_factor", 1 / 255)
    if getattr(processor, "do_flip_channel_order", False):
        pixels = pixels.flip(2)
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()


def _name(clip: int, clips: int, crop: int, crops: int) -> str:
    side = f", {('left or top', 'middle', 'right or bottom')[crop]} crop" if crops == 3 else ""
    return (f"clip {clip + 1} of {clips}" if clips > 1 else "the clip") + side


def views_sheet(views: Sequence[SeenView], *, frames_per_view: int = 6) -> Image.Image:
    """Draws what the views saw, with the score that each gave.

    Args:
        views: From `explain_video`.
        frames_per_view: Most pictures of each.

    Returns:
        A contact sheet, three views side by side.

    Raises:
        VideoArrayError: There are no views.
    """
    cells = [
        SheetClip(one.frames, one.name, f"{one.seconds[0]:.2f} - {one.seconds[-1]:.2f} s   {one.label} {one.score:.1%}")
        for one in views
    ]
    columns = 3 if len(views) % 3 == 0 else min(len(views), 2) or 1
    shown = min([frames_per_view, *(len(one.frames) for one in views)])
    return contact_sheet(cells, columns=columns, frames_per_clip=shown, cell=_CELL * 3 // 4)


def relevance_strip(views: Sequence[SeenView]) -> Image.Image:
    """Draws for each view its frames, below them where relevance lies in each, and how it is spread over time.

    Args:
        views: From `explain_video` with a method.

    Returns:
        A picture with at most 8 evenly spread frames of each view side by side; bars are shares of all frames' sum.

    Raises:
        VideoOptionError: There are no views, or they have no relevance.
        BackendError: matplotlib is not installed.
    """
    if not views:
        raise VideoOptionError("A strip needs at least one view; the list is empty.")
    parts = [_strip(view) for view in views]
    sheet = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), _PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _strip(view: SeenView) -> Image.Image:
    heat, shares = view.heat(), view.over_time()
    picks = np.linspace(0, len(heat) - 1, min(len(heat), _COLUMNS)).round().astype(int)
    tall = max(round(_CELL * heat.shape[1] / heat.shape[2]), 1)
    bars, step = 40, _CELL + _GAP
    width = 2 * _MARGIN + max(len(picks) * step - _GAP, 420)
    image = Image.new("RGB", (width, _MARGIN + 26 + 2 * (tall + _GAP) + bars + 22), _PAPER)
    draw, small = ImageDraw.Draw(image), ImageFont.load_default(12)
    title = f"{view.label} {view.score:.1%}, {view.name}: {len(picks)} of {len(heat)} frames"
    title = shortened(title, 16, width - 2 * _MARGIN)
    draw.text((_MARGIN, _MARGIN - 4), title, fill=_INK, font=ImageFont.load_default(16))
    highest, floor = float(shares.max()), _MARGIN + 26 + 2 * (tall + _GAP) + bars
    for place, number in enumerate(picks):
        x = _MARGIN + place * step
        for row, frames in enumerate((view.frames, heat)):
            picture = Image.fromarray(frames[number]).resize((_CELL, tall), Image.Resampling.LANCZOS)
            image.paste(picture, (x, _MARGIN + 26 + row * (tall + _GAP)))
        up = round(shares[number] / max(highest, 1e-12) * (bars - 4))
        draw.rectangle((x, floor - up, x + _CELL - 1, floor), fill=_BAR)
        text = f"{view.seconds[number]:.2f} s   {shares[number]:.1%}"
        draw.text((x, floor + 3), text, fill=_FAINT, font=small)
    return image


def write_relevance_video(view: SeenView, path: str | os.PathLike[str], **writing: Any) -> Path:
    """Writes the clip that the model saw as a video, what counts glowing over it; each frame is shown from its own time
    until that of the next.

    Args:
        view: From `explain_video` with a method.
        path: The file, as for `write_video`.
        writing: `codec`, `crf`, `options` and others of `write_video`.

    Returns:
        The path of the file.

    Raises:
        VideoWriteError: As in `write_video`, or the view shows frames in another order than that of their times.
        VideoOptionError: There is no relevance.
        BackendError: matplotlib is not installed.
    """
    return write_video(path, view.heat(), seconds=view.seconds - view.seconds[0], **{"pad": "edge", **writing})
