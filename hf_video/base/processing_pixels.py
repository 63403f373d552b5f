"""The pixels of a processor: a clip's crops, and many crops as one tensor. Which steps are taken, the settings say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from hf_video.base.processing_config import RESAMPLE
from hf_video.errors import VideoArrayError, VideoOptionError, check_choice
from hf_video.video import transforms


def resize_clip(frames: torch.Tensor, settings: SimpleNamespace) -> torch.Tensor:
    """(T, H, W, 3) at the settings' size, or as it is without `do_resize`."""
    if not settings.do_resize:
        return frames
    interpolation = RESAMPLE[settings.resample]
    if (edge := settings.size.get("shortest_edge")) is not None:
        return transforms.resize_short_side(frames, edge, interpolation=interpolation)
    size = settings.size["height"], settings.size["width"]
    return transforms.resize(frames, size, interpolation=interpolation)


def views(frames: torch.Tensor, settings: SimpleNamespace) -> list[torch.Tensor]:
    """The crops of a clip: (T, H, W, 3) to a list of (T, height, width, 3), still uint8 where they were."""
    if settings.do_rescale and frames.is_floating_point():
        _check_unit_range(frames)
    frames = resize_clip(frames, settings)
    if not settings.do_center_crop:
        return [frames]
    size = settings.crop_size["height"], settings.crop_size["width"]
    if settings.num_crops == 3:
        return list(transforms.three_crops(frames, size))
    return [transforms.center_crop(frames, size, pad=True)]


def _check_unit_range(frames: torch.Tensor) -> None:
    low, high = (float(v) for v in frames.aminmax())
    if low < 0 or high > 1:
        raise VideoArrayError(
            f"Float frames must lie in 0..1 and these run from {low:g} to {high:g}. (Floats are not divided by 255 a "
            "second time.) For values up to 255 pass frames.round().astype('uint8'); for pixels that are normalised "
            "already, do_rescale=False and do_normalize=False."
        )


def pixel_values(views: list[torch.Tensor], settings: SimpleNamespace) -> Any:
    """One tensor (rows, T, 3, height, width), or a list of arrays without `return_tensors`."""
    last = layout_name("data_format", settings.data_format or "channels_first") == "channels_last"
    if settings.return_tensors is None:
        return [_to_model_layout(view, settings, last).numpy() for view in views]
    shapes = {tuple(view.shape) for view in views}
    if len(shapes) > 1:
        raise VideoArrayError(
            f"Clips of the shapes (frames, height, width, channels) {sorted(shapes)} don't stack into one tensor. Give "
            "them one number of frames (num_frames=) and one size (do_center_crop=True), or use return_tensors=None."
        )
    if len(views) == 1:
        rows = _to_model_layout(views[0], settings, last)[None]
    else:
        first = _to_model_layout(views[0], settings, last)
        rows = first.new_empty(len(views), *first.shape)
        rows[0] = first
        for row, view in zip(rows[1:], views[1:], strict=True):
            _to_model_layout(view, settings, last, out=row)
    if settings.return_tensors == "np":
        return rows.cpu().numpy()
    return rows if settings.device is None else rows.to(settings.device)


def _to_model_layout(
    view: torch.Tensor, settings: SimpleNamespace, last: bool, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Channel order, scale and statistics, and the model's layout."""
    if settings.do_flip_channel_order:
        view = transforms.flip_channels(view)
    plain = not (settings.do_rescale or settings.do_normalize)
    if out is not None and last:
        out = out.movedim(-1, -3)
    if plain:
        planar = view.movedim(-1, -3)
        result = planar.contiguous() if out is None else out.copy_(planar)
    else:
        scale = settings.rescale_factor if settings.do_rescale else 1.0
        if settings.do_rescale and view.is_floating_point():
            scale *= 255  # floats are at 0..1 already; a factor other than 1/255 still means something
        mean, std = ([0.0], [1.0])
        if settings.do_normalize:
            mean, std = (_statistics(name, settings, view.shape[-1]) for name in ("image_mean", "image_std"))
        if settings.do_rescale and getattr(settings, "offset", False):  # ViViT's x · factor - 1
            mean = [m + 1 for m in mean]
        result = transforms.normalize(view, mean, std, scale=scale, out=out)
    return result.movedim(-3, -1).contiguous() if last else result


def _statistics(name: str, settings: SimpleNamespace, channels: int) -> list[float]:
    """One number for all channels, or one for each. Raises VideoOptionError."""
    values = getattr(settings, name)
    if len(set(values)) == 1:
        return values[:1]
    if len(values) != channels:
        raise VideoOptionError(
            f"{name}={values} has {len(values)} numbers and the frames have {channels} channels: pass one number for "
            "each channel, or one for all."
        )
    return values


def layout_name(name: str, value: object) -> str:
    value = getattr(value, "value", value)  # transformers' ChannelDimension
    return check_choice(name, value, ("channels_first", "channels_last"))
