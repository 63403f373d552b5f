"""Full-size models that others publish, and ours with the same weights: `PAIRS`.

The others are no dependencies of hf_video and import inside functions: where one is missing its pairs are skipped.
"""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.setting import why_absent

if importlib.util.find_spec("torchvision"):
    # torchvision's wheels for another build of torch import once these two are known by their types, and transformers
    # imports torchvision where it finds it. No video model calls them.
    _operators = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, _name):
            _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import hf_video


@dataclass(frozen=True)
class Pair:
    """`build` makes the other library's model with random weights, `convert` ours from it. `feed` turns `pixel_values`
    (1, frames, 3, size, size) into what the other takes; `theirs` and `ours` read the numbers to compare from outputs.
    `convolutions`: whether `channels_last_3d` can matter."""

    library: str
    build: Callable[[], nn.Module]
    convert: Callable[[nn.Module], nn.Module]
    frames: int
    size: int
    feed: Callable[[torch.Tensor], Any] = field(default=lambda clip: clip.transpose(1, 2))
    theirs: Callable[[Any], torch.Tensor] = field(default=lambda output: output)
    ours: Callable[[Any], torch.Tensor] = field(default=lambda output: output.logits)
    convolutions: bool = False


def prepare(library: str) -> str | None:
    """Imports it; the reason in one line where that is not possible."""
    reason = why_absent(library)
    if reason is None and library == "pytorchvideo":
        reason = why_absent("pytorchvideo.models.hub")
    return reason


@torch.no_grad()
def randomise(model: nn.Module) -> nn.Module:
    """Every parameter and every statistic away from its initial value, whose zeros and ones would hide a part that is
    wrong; in eval mode."""
    draws = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=draws), alpha=0.01)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.weight.uniform_(0.5, 1, generator=draws)
            module.running_mean.normal_(0, 0.1, generator=draws)
            module.running_var.uniform_(0.5, 1.5, generator=draws)
    return model.eval()


def stock(name: str, **settings: Any) -> nn.Module:
    """transformers' own class, by its module: our registration over the Auto classes doesn't matter."""
    family = name.removesuffix("ForVideoClassification").lower()
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    cls = getattr(module, name)
    return cls(cls.config_class(num_labels=400, **settings))


def from_stock(theirs: nn.Module) -> nn.Module:
    """Our class of the same name, from the file that theirs saves."""
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return getattr(hf_video, type(theirs).__name__).from_pretrained(folder).eval()


def from_official(model_type: str, theirs: nn.Module, **settings: Any) -> nn.Module:
    return hf_video.from_official(model_type, theirs.state_dict(), **settings)


def torchvision(name: str) -> nn.Module:
    return getattr(importlib.import_module("torchvision.models.video"), name)()


def pytorchvideo(name: str, **settings: Any) -> nn.Module:
    return getattr(importlib.import_module("pytorchvideo.models.hub"), name)(**settings)


def pytorchvideo_x3d(frames: int, size: int) -> nn.Module:
    """X3D of the hub with logits for answers, as ours, in place of probabilities."""
    create = importlib.import_module("pytorchvideo.models.x3d").create_x3d
    return create(input_clip_length=frames, input_crop_size=size, head_activation=None)


def mmaction_c3d() -> nn.Module:
    """The backbone's file alone: the package's own imports need compiled operators."""
    package = Path(importlib.import_module("mmaction").__file__).parent
    spec = importlib.util.spec_from_file_location("mmaction_c3d", package / "models" / "backbones" / "c3d.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.C3D()


def pathways(clip: torch.Tensor) -> list[torch.Tensor]:
    """SlowFast's two inputs as PyTorchVideo's tutorial packs them: 8 of 32 frames, equally far apart, and all."""
    fast = clip.transpose(1, 2)
    return [fast[:, :, torch.linspace(0, fast.shape[2] - 1, fast.shape[2] // 4).long()], fast]


def stock_pair(name: str, frames: int, **settings: Any) -> Pair:
    build = partial(stock, name, num_frames=frames, image_size=224, **settings)
    return Pair(
        "transformers", build, from_stock, frames, 224, feed=lambda clip: clip, theirs=lambda output: output.logits
    )


def torchvision_pair(name: str, model_type: str, frames: int) -> Pair:
    return Pair("torchvision", partial(torchvision, name), partial(from_official, model_type), frames, 224)


def pytorchvideo_pair(build: Callable, model_type: str, frames: int, size: int, **options: Any) -> Pair:
    convert = partial(from_official, model_type, num_frames=frames, image_size=size)
    return Pair("pytorchvideo", build, convert, frames, size, convolutions=True, **options)


PAIRS: dict[str, Pair] = {
    "VideoMAE-B": stock_pair("VideoMAEForVideoClassification", 16),
    # Its divided attention is fastest as eager there: transformers has nothing else.
    "TimeSformer-B": stock_pair("TimesformerForVideoClassification", 8),
    "ViViT-B": stock_pair("VivitForVideoClassification", 32),
    "MViT v1-B": torchvision_pair("mvit_v1_b", "mvit", 16),
    "MViT v2-S": torchvision_pair("mvit_v2_s", "mvit", 16),
    "Video Swin-T": torchvision_pair("swin3d_t", "video_swin", 32),
    "Video Swin-S": torchvision_pair("swin3d_s", "video_swin", 32),
    "Video Swin-B": torchvision_pair("swin3d_b", "video_swin", 32),
    "I3D-R50": pytorchvideo_pair(partial(pytorchvideo, "i3d_r50"), "i3d", 8, 224),
    "SlowFast-R50": pytorchvideo_pair(partial(pytorchvideo, "slowfast_r50"), "slowfast", 32, 224, feed=pathways),
    "X3D-S": pytorchvideo_pair(partial(pytorchvideo_x3d, 13, 160), "x3d", 13, 160),
    "X3D-M": pytorchvideo_pair(partial(pytorchvideo_x3d, 16, 224), "x3d", 16, 224),
    "C3D": Pair(
        "mmaction",
        mmaction_c3d,
        partial(from_official, "c3d"),
        16,
        112,
        ours=lambda output: output.fc7,
        convolutions=True,
    ),
}
