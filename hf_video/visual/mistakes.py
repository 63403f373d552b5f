"""A sheet of an evaluation's worst mistakes, with the frames that the model saw."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import logging

from hf_video.base.modeling import CLIP_NAMES
from hf_video.base.written_files import PICTURES, check_output_file
from hf_video.clips.read import ClipInputs, read_clips
from hf_video.data.rows import VideoRow
from hf_video.errors import DataError, ModelInputError, VideoError, check_count
from hf_video.evaluation.classification import unique_names
from hf_video.evaluation.report import Report
from hf_video.video.contact_sheet import SheetClip, contact_sheet
from hf_video.visual.seen import seen_frames

logger = logging.get_logger(__name__)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from hf_video.base.loading import Processor


def worst_mistakes(
    report: Report,
    rows: Sequence[VideoRow],
    path: str | os.PathLike[str],
    *,
    config: PreTrainedConfig,
    processor: Processor,
    count: int = 12,
) -> Path | None:
    """Draws the wrong answers that a model was surest of, where labels are often wrong too.

    Args:
        report: From `evaluate_videos`, of videos with one class each.
        rows: The videos that were evaluated.
        path: The .png or .jpg to write.
        config, processor: Of the model.
        count: Most mistakes on the sheet.

    Returns:
        The path; None, and no file, where there is no mistake to draw. Each cell shows at most six frames of the middle
        clip and crop of the protocol as they went in, what the model said and how sure it was, the label and the name.

    Raises:
        VideoOptionError: `count` is no number from 1 up.
        OutputError: The file can't be written.
        DataError: The videos of the report are not among the rows.
    """
    check_count("count", count)
    check_output_file(path, suffixes=PICTURES)
    by_name = dict(zip(unique_names(rows), rows, strict=True))
    cells = []
    for wrong in report.mistakes(count):
        if wrong["video"] not in by_name:
            raise DataError(f"The report is of {wrong['video']}, which is not among the rows: give the evaluated ones.")
        # Videos with damaged frames are in a report only where these were repeated.
        request, process = report.protocol.request(config, processor, on_error="repeat")
        try:
            clips = [
                piece.inputs
                for piece in read_clips(by_name[wrong["video"]].source, request, process)
                if isinstance(piece, ClipInputs)
            ]
            cells.append(_cell(wrong, clips, processor))
        except (VideoError, ModelInputError) as error:
            logger.warning(f"{wrong['video']} is not on the sheet of mistakes: {error}")
    if not cells:
        Path(path).unlink(missing_ok=True)  # what an earlier evaluation left
        return None
    shown = min(6, max(len(cell.frames) for cell in cells))
    title = f"Most confident mistakes of {report.model}"
    contact_sheet(cells, columns=min(3, len(cells)), frames_per_clip=shown, title=title).save(path)
    return Path(path)


def _cell(wrong: dict[str, Any], clips: list[dict[str, Any]], processor: Any) -> SheetClip:
    inputs = clips[len(clips) // 2]
    pixels = next((inputs[name] for name in CLIP_NAMES if name in inputs), None)
    if pixels is None:
        raise ModelInputError("the model sees no frames")
    middle = len(pixels) // 2
    frames = seen_frames(processor, pixels[middle : middle + 1])[0]
    said = f"{wrong['predicted']} {wrong['confidence']:.0%}"
    return SheetClip(frames, said, f"labelled {wrong['label']}: {wrong['video']}", "bad")
