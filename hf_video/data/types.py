"""Types that annotations share. Type checkers alone import this module."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
import torch
from PIL.Image import Image
from transformers.image_processing_utils import BaseImageProcessor
from transformers.video_processing_utils import BaseVideoProcessor

from hf_video.base.processing import ClipProcessing
from hf_video.video.frames.part import VideoPart
from hf_video.video.sampling.frame_sample import FrameSample

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDataset


class Readable(Protocol):
    """An object that gives encoded bytes when they are needed: a member of a tar, a cell of a `datasets` column."""

    def read(self) -> bytes: ...


# What makes model inputs of frames: ours, or a stock image or video processor.
FrameProcessor = ClipProcessing | BaseImageProcessor | BaseVideoProcessor
# What `VideoReader` opens: a path or URL, encoded bytes, an open file, frames (T, H, W, C), stills, a row of a data
# set, a part of these.
Frames = np.ndarray | torch.Tensor | list[str | os.PathLike[str] | Image]
VideoSource = str | os.PathLike[str] | bytes | BinaryIO | Readable | Frames | Mapping[str, Any] | VideoPart
# What `load_videos` lists: a folder, a list or a name on the Hub; tar shards; a data set; one of these for each split.
StrPath = str | os.PathLike[str]
DataSource = StrPath | Sequence[StrPath] | Dataset | DatasetDict | Mapping[str, "StrPath | Dataset"]
# A name of `hf_video.video.sampling.SAMPLERS`, or a function like those.
Sampler = str | Callable[..., FrameSample]
StreamSource = StrPath | Sequence[StrPath] | IterableDataset
