"""From any form of video to `pixel_values`: the processors, as transformers' Auto classes and pipelines know them.

There are two classes because transformers has two kinds and prefers one or the other by what is installed; both are the
one core below, on torch and PIL, so the same file gives the same `pixel_values` everywhere. Neither uses torchvision.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from transformers.image_processing_base import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ImagesKwargs, ProcessorMixin, VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin

from hf_video.base import processing_config as config
from hf_video.base.processing_config import layout_name, pixel_values, views
from hf_video.base.written_files import ChecksumsOnSave
from hf_video.errors import VideoOptionError, nearest
from hf_video.video.inputs import Clip, SamplingPlan, load_clips, split_videos

if TYPE_CHECKING:
    from typing import BinaryIO

    import numpy as np
    import torch
    from PIL.Image import Image

    from hf_video.base.configuration import VideoConfig
    from hf_video.video.frames.part import VideoPart
    from hf_video.video.frames.types import VideoFrames
    from hf_video.video.reader import VideoReader

    Frames = np.ndarray | torch.Tensor | Sequence[Image | np.ndarray | torch.Tensor]
    VideoInput = str | os.PathLike[str] | bytes | BinaryIO | VideoReader | VideoFrames | VideoPart | Frames | Mapping

_SWITCHES = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")

# Files carry keys of other versions and tools, which are kept; only what a person types is checked for spelling.
_reading_file: ContextVar[bool] = ContextVar("reading_file", default=False)


class ImageKwargs(ImagesKwargs, total=False):
    """Keywords that transformers' image processors don't have; the video kind has the first four of its own."""

    num_frames: int | None
    fps: float | None
    do_sample_frames: bool | None
    return_metadata: bool | None
    sampler: str | None
    sampler_options: dict | None
    num_crops: int | None
    do_flip_channel_order: bool | None


class VideoKwargs(VideosKwargs, total=False):
    sampler: str | None
    sampler_options: dict | None
    num_crops: int | None
    do_flip_channel_order: bool | None


class ClipProcessing(ChecksumsOnSave):
    """The core: settings with defaults, and videos in, `pixel_values` out.

    Calling it takes **one video or several, in any form**: a path, URL, bytes, file object, `VideoReader` or
    `VideoFrames`; a list of PIL images or of (H, W, 3) or (3, H, W) arrays; an array or tensor (T, H, W, 3) or
    (T, 3, H, W); a list or a 5-d array of those; an undecoded row of a `datasets` Video column. Pixels are RGB, uint8
    (0 to 255) or float (0 to 1; never divided by 255 a second time). Arrays of another number of channels are taken
    where `input_data_format` says which dimension holds them; statistics then have as many numbers, or one.

    It returns a `BatchFeature` with `pixel_values`, float32 (rows, frames, 3, height, width); a class for models that
    call it otherwise has that name in `model_input_names`. A video gives one row, or one for each of its views, clips
    first: `sampler="dense", sampler_options={"num_clips": 5}, num_crops=3` gives 15 rows a video, so
    `logits.reshape(videos, 15, -1)`.

    Settings (keywords of the class, of a call, and of `preprocessor_config.json`):
        do_resize, size, resample: `{"shortest_edge": pixels}` or `{"height", "width"}`; PIL's filter, 2 is bilinear.
            Within one level of PIL.
        do_center_crop, crop_size: The middle; a frame that is smaller is set on black, as in transformers.
        num_crops: 1, or 3 along the longer side (left, middle, right or top, middle, bottom).
        do_flip_channel_order: Hand out BGR. `image_mean` and `image_std` are then in that order too.
        do_rescale, rescale_factor, do_normalize, image_mean, image_std: (x · factor - mean) / std.
        num_frames, sampler, sampler_options: How a *source* (file, reader) is sampled: see `hf_video.video.sampling`.
            `num_frames=None` takes the model's own where the processor was loaded from a model's folder. A call's
            `sampler_options` are put over the saved ones; those don't hold for another `sampler` that a call names.
        fps: Frames to take per second, where num_frames is None.
        do_sample_frames: In a call: True samples ready-made frames as well (so does passing num_frames), False reads
            every frame of a file.

    Only in a call: `return_tensors` ("pt", "np" or None: a list of arrays, which may differ in shape),
    `input_data_format` and `data_format` ("channels_first" or "channels_last"), `device` of the result,
    `return_metadata` (adds `video_metadata`: for each clip `frames_indices`, `seconds`, `span` and the source's `fps`).

    Raises VideoArrayError (mixed sizes, wrong channels, NaN, floats beyond 0..1), VideoOptionError (a setting that
    means nothing), and for files what `VideoReader` raises.
    """

    do_resize = True
    size: Any = {"shortest_edge": 224}  # noqa: RUF012 - copied for every instance
    resample = 2
    do_center_crop = True
    crop_size: Any = {"height": 224, "width": 224}  # noqa: RUF012
    num_crops = 1
    do_flip_channel_order = False
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean: Any = (0.485, 0.456, 0.406)
    image_std: Any = (0.229, 0.224, 0.225)
    num_frames: int | None = None
    fps: float | None = None
    do_sample_frames: bool | None = None
    sampler: Any = "uniform"
    sampler_options: dict | None = None
    default_to_square = False
    model_input_names = ["pixel_values"]  # noqa: RUF012

    _settings_names = (
        "do_resize", "size", "resample", "do_center_crop", "crop_size", "num_crops", "do_flip_channel_order",
        "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "num_frames", "fps",
        "do_sample_frames", "sampler", "sampler_options",
    )  # fmt: skip
    _call_names = ("return_tensors", "input_data_format", "data_format", "device", "return_metadata")
    # Settings of transformers' processors without a meaning here: RGB always, no padding of batches, one backend.
    _idle_names = (
        "do_convert_rgb", "default_to_square", "do_pad", "pad_size", "disable_grouping", "image_seq_length",
    )  # fmt: skip

    def __init__(self, **kwargs: Any):
        given = config.drop_type_keys(kwargs)
        for name in self._settings_names:
            switched_off = name in _SWITCHES and name in given  # `do_resize=None` is off, as in transformers
            value = given.pop(name, None)
            if value is None and not switched_off:
                value = copy.deepcopy(getattr(type(self), name))
            setattr(self, name, config.normalize_setting(name, value))
        if not _reading_file.get():
            self._check_spelling(given)
        super().__init__(**given)  # keeps what it doesn't know, for the file to be saved again as it was

    @classmethod
    def _check_spelling(cls, names: Iterable[str]) -> None:
        known = (*cls._settings_names, *cls._idle_names)
        for name in names:
            if name not in known and nearest(name, known, cutoff=0.8):
                config.raise_unknown_option(name, known, cls.__name__)

    @classmethod
    def from_dict(cls, settings: dict[str, Any], **kwargs: Any):
        """As transformers'; the spelling of `kwargs`, which override the file's settings, is checked."""
        cls._check_spelling(kwargs)
        token = _reading_file.set(True)
        try:
            return super().from_dict(settings, **kwargs)
        finally:
            _reading_file.reset(token)

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike[str]):
        token = _reading_file.set(True)
        try:
            return super().from_json_file(json_file)
        finally:
            _reading_file.reset(token)

    def __call__(
        self,
        videos: VideoInput | Sequence[VideoInput] | None = None,
        *,
        images: VideoInput | Sequence[VideoInput] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        return self.preprocess(images if videos is None else videos, **kwargs)

    def preprocess(self, videos: VideoInput | Sequence[VideoInput], **kwargs: Any) -> BatchFeature:
        """As a call; see the class."""
        settings = self._resolve(kwargs)
        plan = self._plan(settings, kwargs)
        clips = [clip for video in split_videos(videos) for clip in self._clips(video, plan, settings)]
        data = self._inputs(clips, settings)
        if settings.return_metadata:
            data["video_metadata"] = [
                {"frames_indices": clip.indices, "seconds": clip.seconds, "span": clip.span, "fps": clip.fps}
                for clip in clips
            ]
        return BatchFeature(data=data)

    @property
    def sees_frames_apart(self) -> bool:
        """Whether what becomes of a frame depends on no other of its clip, nor on its place: not for a class with steps
        of its own."""
        steps = ("__call__", "preprocess", "_clips", "_inputs")
        return all(getattr(type(self), name) is getattr(ClipProcessing, name) for name in steps)

    @classmethod
    def values_for(cls, config: VideoConfig) -> dict[str, Any]:
        """Settings, besides sizes, that a model's configuration decides: what a converted model's processor gets."""
        return {}

    def _clips(self, video: VideoInput, plan: SamplingPlan, settings: SimpleNamespace) -> list[Clip]:
        """One video as clips, before any geometry."""
        layout = settings.input_data_format
        return load_clips(video, plan, layout=None if layout is None else layout_name("input_data_format", layout))

    def _inputs(self, clips: list[Clip], settings: SimpleNamespace) -> dict[str, Any]:
        """The model's inputs, one row for each view of each clip."""
        rows = [view for clip in clips for view in views(clip.frames, settings)]
        return {self.model_input_names[0]: pixel_values(rows, settings)}

    def _resolve(self, given: dict[str, Any]) -> SimpleNamespace:
        """Settings of this call: what was passed, else what the processor holds. None means "as it is"."""
        known = (*self._settings_names, *self._call_names, *self._idle_names)
        for name, value in given.items():
            if name not in known:
                config.raise_unknown_option(name, known, type(self).__name__)
            if name == "do_pad" and value:
                raise VideoOptionError("do_pad=True is not supported: give clips of one size, or crop them to one.")
        values = {name: given.get(name) for name in self._call_names}
        for name in self._settings_names:
            value = config.normalize_setting(name, given.get(name))
            values[name] = getattr(self, name) if value is None else value
        asked = (config.normalize_setting(name, given.get(name)) for name in ("sampler", "sampler_options"))
        values["sampler"], values["sampler_options"] = config.sampler_settings(self, *asked)
        if values["num_crops"] > 1 and not values["do_center_crop"]:
            raise VideoOptionError("num_crops=3 cuts crops of crop_size: it needs do_center_crop=True.")
        if values["return_tensors"] not in (None, "pt", "np"):
            raise VideoOptionError(f'return_tensors={values["return_tensors"]!r} must be "pt", "np" or None.')
        return SimpleNamespace(**values)

    @staticmethod
    def _plan(settings: SimpleNamespace, given: dict[str, Any]) -> SamplingPlan:
        asked = [name for name in ("num_frames", "fps", "sampler") if given.get(name) is not None]
        sample = given.get("do_sample_frames")
        by_fps = "fps" in asked and "num_frames" not in asked
        return SamplingPlan(
            num_frames=None if by_fps else settings.num_frames,
            sampler=settings.sampler,
            options=settings.sampler_options or {},
            fps=settings.fps,
            arrays=bool(asked or settings.do_sample_frames) if sample is None else bool(sample),
            whole=sample is False,
            resize=config.reader_resize(settings),
        )

    def to_dict(self) -> dict[str, Any]:
        saved = super().to_dict()
        if saved.pop("_num_frames_of_model", None) == saved.get("num_frames"):
            saved.pop("num_frames", None)  # the model's file says it; a copy here could contradict it one day
        if not isinstance(self.sampler, str):
            raise VideoOptionError(
                f"The sampler {self.sampler!r} can't be written to a file: pass a callable in the call, and keep a "
                "name in the processor."
            )
        return saved


class VideoImageProcessor(ClipProcessing, BaseImageProcessor):
    """An image processor for video models: `preprocessor_config.json`, `AutoImageProcessor`. See `ClipProcessing`."""

    valid_kwargs = ImageKwargs
    # The class name that is written to files: one that plain transformers knows too.
    saved_type: str | None = None

    @classmethod
    def get_image_processor_dict(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs):
        hub = dict(kwargs)
        try:
            found, rest = super().get_image_processor_dict(pretrained_model_name_or_path, **kwargs)
        except OSError:
            # A folder that a video processor saved holds no image processor's file; the settings are the same.
            found, rest = VideoProcessorMixin.get_video_processor_dict(pretrained_model_name_or_path, **hub)
        return _with_frames_of_model(found, pretrained_model_name_or_path, hub), rest

    def to_dict(self) -> dict[str, Any]:
        saved = super().to_dict()
        if self.saved_type is not None:
            saved["image_processor_type"] = self.saved_type
        return saved


class VideoVideoProcessor(ClipProcessing, VideoProcessorMixin):
    """The same as a video processor: `video_preprocessor_config.json`, or the image processor's file where there is no
    such. See `ClipProcessing`."""

    valid_kwargs = VideoKwargs
    # As in `VideoImageProcessor`.
    saved_type: str | None = None

    def to_dict(self) -> dict[str, Any]:
        saved = super().to_dict()
        if self.saved_type is not None:
            saved["video_processor_type"] = self.saved_type
        return saved

    @classmethod
    def get_video_processor_dict(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs):
        hub = dict(kwargs)
        found, rest = super().get_video_processor_dict(pretrained_model_name_or_path, **kwargs)
        return _with_frames_of_model(found, pretrained_model_name_or_path, hub), rest


def _with_frames_of_model(
    found: dict[str, Any], pretrained: str | os.PathLike[str], hub: dict[str, Any]
) -> dict[str, Any]:
    if found.get("num_frames") is not None:
        return found
    count = config.frames_of_model(pretrained, hub)
    return found if count is None else {**found, "num_frames": count, "_num_frames_of_model": count}


class VideoTextProcessor(ChecksumsOnSave, ProcessorMixin):
    """A processor of videos and a tokenizer; a subclass names them in its `__init__`, as `ProcessorMixin` asks.

    A call takes `text` (a string or a list), `videos` (what the processor of videos takes: one video or several, in any
    form), or both. It gives what the two give, `input_ids`, `attention_mask` and the pixels. Texts are padded and cut
    as `text_defaults` says unless `text_options` says otherwise; further keywords go to the processor of videos. Raises
    VideoOptionError where neither came, and what the processor of videos raises.
    """

    @property
    def text_defaults(self) -> dict[str, Any]:
        """Options of the tokenizer."""
        return {"padding": True, "truncation": True}

    def __call__(
        self,
        text: Any = None,
        videos: Any = None,
        *,
        return_tensors: str | None = "pt",
        text_options: dict[str, Any] | None = None,
        **video_options: Any,
    ) -> BatchFeature:
        if text is None and videos is None:
            raise VideoOptionError("Neither text nor videos came: pass text=, videos= or both.")
        data: dict[str, Any] = {}
        if text is not None:
            options = {**self.text_defaults, **(text_options or {})}
            data |= self.tokenizer(text, return_tensors=return_tensors, **options)
        if videos is not None:
            data |= config.pixel_processor(self)(videos, return_tensors=return_tensors, **video_options)
        return BatchFeature(data)

    @property
    def model_input_names(self) -> list[str]:
        return [*self.tokenizer.model_input_names, *config.pixel_processor(self).model_input_names]
