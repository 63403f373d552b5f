"""SlowFast (Feichtenhofer, Fan, Malik, He, 2019, arXiv:1812.03982), section 3, after PyTorchVideo's `create_slowfast`.

One clip, seen twice: the slow pathway is a ResNet on every `alpha`-th frame, the fast one a thin ResNet on all of them,
which sees motion with an eighth of the channels. After the stem and after every stage but the last a strided
convolution brings the fast pathway's maps to the slow one's rate and beside its channels.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from hf_video.base.modeling import VideoClassifier
from hf_video.base.modeling_conv import ConvVideoPreTrainedModel
from hf_video.base.outputs import VideoModelOutput
from hf_video.errors import ModelInputError
from hf_video.layers.convolution import Bottleneck, ConvNormAct, tokens, window_means
from hf_video.models.slowfast.configuration_slowfast import SlowFastConfig

Maps = tuple[torch.Tensor, torch.Tensor]  # slow and fast, (B, D, T, H, W) each


class Fusion(nn.Module):
    """The fast pathway's map, brought to the slow one's rate, beside the slow one's channels."""

    def __init__(self, config: SlowFastConfig, fast_channels: int) -> None:
        super().__init__()
        kernel, stride = (config.fusion_kernel, 1, 1), (config.alpha, 1, 1)
        self.lateral = ConvNormAct(fast_channels, config.fusion_ratio * fast_channels, kernel, stride)

    def forward(self, slow: torch.Tensor, fast: torch.Tensor) -> torch.Tensor:
        return torch.cat([slow, self.lateral(fast)], dim=1)


class SlowFastStem(nn.Module):
    """All frames -> both pathways' maps after convolution, pooling and the first fusion."""

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__()
        self.alpha = config.alpha
        fast_channels = config.stem_channels // config.beta_inverse
        self.slow = ConvNormAct(config.num_channels, config.stem_channels, (1, 7, 7), (1, 2, 2))
        self.fast = ConvNormAct(config.num_channels, fast_channels, (5, 7, 7), (1, 2, 2))
        self.fusion = Fusion(config, fast_channels)

    def slow_frames(self, x: torch.Tensor) -> torch.Tensor:
        """T / alpha frames from the first to the last: (B, C, T, H, W) -> (B, C, T / alpha, H, W). Equally far apart
        and rounded down, as the authors pack their pathways: not quite every `alpha`-th frame."""
        frames = x.shape[2]
        return x[:, :, torch.linspace(0, frames - 1, frames // self.alpha).long()]

    def forward(self, x: torch.Tensor) -> Maps:
        slow, fast = (
            F.max_pool3d(conv(frames), (1, 3, 3), (1, 2, 2), (0, 1, 1))
            for conv, frames in ((self.slow, self.slow_frames(x)), (self.fast, x))
        )
        return self.fusion(slow, fast), fast


class SlowFastBlock(nn.Module):
    """A residual block in each pathway, and a fusion behind it where a stage ends."""

    def __init__(self, slow: Bottleneck, fast: Bottleneck, fusion: Fusion | None) -> None:
        super().__init__()
        self.slow, self.fast, self.fusion = slow, fast, fusion

    def forward(self, maps: Maps) -> Maps:
        slow, fast = self.slow(maps[0]), self.fast(maps[1])
        return slow if self.fusion is None else self.fusion(slow, fast), fast


class SlowFastEncoder(nn.Module):
    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__()
        beta, layers, widths = config.beta_inverse, [], [config.stem_channels, config.stem_channels]
        widths[1] //= beta
        for stage, depth in enumerate(config.depths):
            inner = config.stem_channels * 2**stage
            widths[0] += config.fusion_ratio * widths[1]
            for i in range(depth):
                stride = 2 if stage and i == 0 else 1
                slow = Bottleneck(widths[0], inner, 4 * inner, time=config.slow_kernels[stage], stride=stride)
                thin, kernel = inner // beta, config.fast_kernels[stage]
                fast = Bottleneck(widths[1], thin, 4 * thin, time=kernel, stride=stride)
                widths = [4 * inner, 4 * thin]
                fuses = i == depth - 1 and stage < len(config.depths) - 1
                layers.append(SlowFastBlock(slow, fast, Fusion(config, 4 * thin) if fuses else None))
        self.layer = nn.ModuleList(layers)


class SlowFastPreTrainedModel(ConvVideoPreTrainedModel):
    config_class = SlowFastConfig
    base_model_prefix = "slowfast"
    _no_split_modules: ClassVar[list[str]] = ["SlowFastBlock", "SlowFastStem"]


class SlowFastModel(SlowFastPreTrainedModel):
    """The network up to its last maps: (B, T, C, H, W) -> (B, t·h·w, 2048 + 256) with t = T / alpha, h = ceil(H/32),
    w = ceil(W/32): the slow pathway's channels, then the fast one's averaged over `alpha` frames. `hidden_states` are
    the same of the stem and of every block, each of its own size."""

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__(config)
        self.embeddings = SlowFastStem(config)
        self.encoder = SlowFastEncoder(config)
        self.set_norms()
        self.post_init()

    def token_grid(self, pixel_values: torch.Tensor) -> tuple[int, int, int]:
        """(time, rows, columns) of the last map; raises ModelInputError unless `alpha` divides the frames."""
        self.check_input(pixel_values)
        frames, _, height, width = pixel_values.shape[1:]
        alpha, step = self.config.alpha, 2 ** (1 + len(self.config.depths))
        if frames % alpha or 0 in (frames, height, width):
            raise ModelInputError(
                f"A clip of {frames} frames of {height}x{width} pixels: the slow pathway takes one of {alpha} frames, "
                f"so their number must be a multiple of {alpha}, such as {max(frames // alpha, 1) * alpha}."
            )
        return frames // alpha, -(-height // step), -(-width // step)

    def tokens_of(self, maps: Maps) -> torch.Tensor:
        slow, fast = maps
        return tokens(torch.cat([slow, fast.unflatten(2, (-1, self.config.alpha)).mean(3)], dim=1))

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Averages over all time and windows of `head_pool`: (B, t, h, w, D) -> (B, 1, h', w', D)."""
        return window_means(feature_map, (0, *self.config.head_pool))


class SlowFastForVideoClassification(VideoClassifier, SlowFastPreTrainedModel):
    """A linear classifier at every place of the pooled map, averaged."""

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__(config)
        self.slowfast = SlowFastModel(config)
        self.add_classifier(config.hidden_size)

    def clip_vector(self, outputs: VideoModelOutput, pixel_values: torch.Tensor) -> torch.Tensor:
        feature_map = self.slowfast.feature_map(outputs.last_hidden_state, pixel_values)
        return self.dropout(self.slowfast.pool(feature_map)).mean((1, 2, 3))
