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

from hf_video.base.detection.box_modeling import BoxClassifier, pool_time
from hf_video.base.modeling import VideoClassifier
from hf_video.base.modeling_conv import ConvVideoPreTrainedModel
from hf_video.base.outputs import VideoModelOutput
from hf_video.errors import ModelInputError
from hf_video.layers.convolution import Bottleneck, ConvNormAct, tokens, window_means
from hf_video.layers.non_local import NonLocalBlock
from hf_video.models.slowfast.configuration_slowfast import SlowFastConfig

Maps = tuple[torch.Tensor, torch.Tensor | None]  # slow and fast, (B, D, T, H, W) each; Slow has no fast one


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
        self.fast = self.fusion = None
        if not config.fast_pathway:
            return
        self.fast = ConvNormAct(config.num_channels, fast_channels, (5, 7, 7), (1, 2, 2))
        self.fusion = Fusion(config, fast_channels)

    def slow_frames(self, x: torch.Tensor) -> torch.Tensor:
        """T / alpha frames from the first to the last: (B, C, T, H, W) -> (B, C, T / alpha, H, W). Equally far apart
        and rounded down, as the authors pack their pathways: not quite every `alpha`-th frame."""
        frames = x.shape[2]
        return x[:, :, torch.linspace(0, frames - 1, frames // self.alpha).long()]

    def forward(self, x: torch.Tensor) -> Maps:
        if self.fast is None:
            return F.max_pool3d(self.slow(x), (1, 3, 3), (1, 2, 2), (0, 1, 1)), None
        slow, fast = (
            F.max_pool3d(conv(frames), (1, 3, 3), (1, 2, 2), (0, 1, 1))
            for conv, frames in ((self.slow, self.slow_frames(x)), (self.fast, x))
        )
        return self.fusion(slow, fast), fast


class SlowFastBlock(nn.Module):
    """A residual block in each pathway, in some with a non-local block behind the slow one's; a fusion where a stage
    ends."""

    def __init__(
        self, slow: Bottleneck, fast: Bottleneck | None, fusion: Fusion | None, non_local: NonLocalBlock | None = None
    ) -> None:
        super().__init__()
        self.slow, self.fast, self.fusion, self.non_local = slow, fast, fusion, non_local

    def forward(self, maps: Maps) -> Maps:
        slow = self.slow(maps[0])
        slow = slow if self.non_local is None else self.non_local(slow)
        if self.fast is None:
            return slow, None
        fast = self.fast(maps[1])
        return slow if self.fusion is None else self.fusion(slow, fast), fast


class SlowFastEncoder(nn.Module):
    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__()
        beta, layers, widths = config.beta_inverse, [], [config.stem_channels, config.stem_channels]
        widths[1] //= beta
        for stage, depth in enumerate(config.depths):
            inner, dilation = config.stem_channels * 2**stage, config.spatial_dilations[stage]
            if config.fast_pathway:
                widths[0] += config.fusion_ratio * widths[1]
            for i in range(depth):
                sizes = {"stride": config.spatial_strides[stage] if i == 0 else 1, "dilation": dilation}
                kernels = (config.slow_kernels[stage], config.fast_kernels[stage])
                slow_kernel, fast_kernel = kernels if i < config.kernel_blocks[stage] else (1, 1)
                slow = Bottleneck(widths[0], inner, 4 * inner, time=slow_kernel, **sizes)
                thin = inner // beta
                fast = fusion = non_local = None
                if config.fast_pathway:
                    fast = Bottleneck(widths[1], thin, 4 * thin, time=fast_kernel, **sizes)
                    fuses = i == depth - 1 and stage < len(config.depths) - 1
                    fusion = Fusion(config, 4 * thin) if fuses else None
                if i in config.nonlocal_blocks[stage]:
                    pool, norm = tuple(config.nonlocal_pool), config.nonlocal_normalization
                    non_local = NonLocalBlock(4 * inner, 2 * inner, pool=pool, normalization=norm)
                widths = [4 * inner, 4 * thin]
                layers.append(SlowFastBlock(slow, fast, fusion, non_local))
        self.layer = nn.ModuleList(layers)


class SlowFastPreTrainedModel(ConvVideoPreTrainedModel):
    config_class = SlowFastConfig
    base_model_prefix = "slowfast"
    _no_split_modules: ClassVar[list[str]] = ["SlowFastBlock", "SlowFastStem"]


class SlowFastModel(SlowFastPreTrainedModel):
    """The network up to its last maps: (B, T, C, H, W) -> (B, t·h·w, 2048 + 256) with t = T / alpha, h = ceil(H/32),
    w = ceil(W/32): the slow pathway's channels, then the fast one's averaged over `alpha` frames. `hidden_states` are
    the same of the stem and of every block, each of its own size. The Slow network has t = T and no fast channels."""

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__(config)
        self.embeddings = SlowFastStem(config)
        self.encoder = SlowFastEncoder(config)
        self.set_norms()
        self.post_init()

    def token_grid(self, pixel_values: torch.Tensor) -> tuple[int, int, int]:
        """Counts the places of the last map, or the tokens, of a clip.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised floats.

        Returns:
            (time, rows, columns) of the last map.

        Raises:
            ModelInputError: `alpha` does not divide the frames.
        """
        self.check_input(pixel_values)
        frames, _, height, width = pixel_values.shape[1:]
        alpha, step = self.config.alpha if self.config.fast_pathway else 1, self.config.map_stride
        if frames % alpha or 0 in (frames, height, width):
            raise ModelInputError(
                f"A clip of {frames} frames of {height}x{width} pixels: the slow pathway takes one of {alpha} frames, "
                f"so their number must be a multiple of {alpha}, such as {max(frames // alpha, 1) * alpha}."
            )
        return frames // alpha, -(-height // step), -(-width // step)

    def tokens_of(self, maps: Maps) -> torch.Tensor:
        slow, fast = maps
        if fast is None:
            return tokens(slow)
        return tokens(torch.cat([slow, fast.unflatten(2, (-1, self.config.alpha)).mean(3)], dim=1))

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Averages over all time and windows of `head_pool`.

        Args:
            feature_map: (B, t, h, w, D).

        Returns:
            (B, 1, h', w', D).
        """
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


class SlowFastForSpatioTemporalActionDetection(BoxClassifier, SlowFastPreTrainedModel):
    """What the people in boxes do: both pathways' maps without time, ROIAlign, maximum, linear. The published models'
    last stage keeps its size (`SlowFastConfig.preset("r50-ava")`, or "slow-r50-ava" without a fast pathway)."""

    def __init__(self, config: SlowFastConfig) -> None:
        super().__init__(config)
        self.slowfast = SlowFastModel(config)
        self.add_box_head(config.hidden_size)

    @property
    def map_stride(self) -> tuple[int, int]:
        return self.config.map_stride, self.config.map_stride

    def encode_maps(self, pixel_values: torch.Tensor, **flags: bool | None) -> tuple[torch.Tensor, VideoModelOutput]:
        maps, hidden_states = self.slowfast.run_blocks(
            pixel_values, flags.get("output_attentions"), flags.get("output_hidden_states")
        )
        pooled = [pool_time(one, self.config.box_time_pool) for one in maps if one is not None]
        return torch.cat(pooled, dim=1), VideoModelOutput(hidden_states=hidden_states)
