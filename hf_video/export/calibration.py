"""Clips of a folder of videos as a model's inputs: what 8-bit numbers are fitted to, and compared on."""

from __future__ import annotations

import os
from typing import Any

from hf_video.base.exported import Tensors
from hf_video.base.modeling import inputs_for
from hf_video.data.rows import VideoRow
from hf_video.data.sources.load import load_videos
from hf_video.errors import DataError, ModelInputError, VideoError
from hf_video.export.graphs import ModelGraph
from hf_video.pipelines.video_feature_extraction import VideoFeatureExtractionPipeline

MOST_CLIPS = 32


def calibration_rows(source: str | os.PathLike[str], most: int = MOST_CLIPS) -> list[VideoRow]:
    """The videos to calibrate with: of all splits and classes, spread evenly where there are more than `most`.

    Raises DataError for a folder without videos.
    """
    splits = load_videos(source, test_size=0.0, need_labels=False, inspect=None)
    rows = [row for part in splits.values() for row in part]
    if not rows:
        raise DataError(
            f"There are no videos in {source} to calibrate with. Give a folder of videos of the usual kind."
        )
    return [rows[i * len(rows) // most] for i in range(most)] if len(rows) > most else rows


def calibration_clips(
    model: Any, rows: list[VideoRow], graph: ModelGraph, num_frames: int | None, processor: Any = None
) -> list[Tensors]:
    """One clip of each video, read as a pipeline of the model reads it.

    Args:
        model: Loaded from a folder, beside which its processor lies.
        rows: Of `calibration_rows`.
        graph: The graph that takes the clips.
        num_frames: Of a clip; default the processor's or the model's.
        processor: Default the one beside the model.

    Returns:
        Inputs of the graph, one row each.

    Raises:
        DataError: A video can't be read.
        ModelInputError: The processor makes clips of another shape than the graph takes.
    """
    read = VideoFeatureExtractionPipeline(model=model, image_processor=processor, task="video-feature-extraction")
    options = {} if num_frames is None else {"num_frames": num_frames}
    clips = []
    for row in rows:
        try:
            given = read.preprocess(row.source, **options)
        except VideoError as error:
            raise DataError(f"A video to calibrate with can't be read, take it out: {error}") from error
        # Of several views the first is enough.
        inputs = inputs_for(model, {name: value[:1] for name, value in given.items()})
        clips.append({name: inputs[name].float() for name in graph.inputs if name in inputs})
        for name, shape in graph.shapes().items():
            found = tuple(clips[-1][name].shape) if name in clips[-1] else None
            if found is None or found[1:] != tuple(shape[1:]):
                raise ModelInputError(
                    f"The processor makes {name} of shape {found}, and the export takes {('any', *shape[1:])}: give "
                    "--num-frames and --size the processor's, or leave them out."
                )
    return clips
