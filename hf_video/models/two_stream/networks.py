"""The image networks of the two streams: VGG (Simonyan and Zisserman, arXiv:1409.1556) and ResNet (He et al.,
arXiv:1512.03385), as torchvision and bryanyzhu/two-stream-pytorch build them, for any number of input channels.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from hf_video.base.loading import model_entry
from hf_video.layers.convolution import ConvBlock, tokens
from hf_video.models.two_stream.configuration_two_stream import StreamSpec, VideoStreamSpec


class VGGStage(ConvBlock):
    """`depth` 3x3 convolutions, each with a ReLU; all stages but the first halve the map before."""

    def __init__(self, channels: int, width: int, depth: int, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        self.convs = nn.ModuleList(
            [nn.Conv2d(channels if i == 0 else width, width, 3, padding=1) for i in range(depth)]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(x, 2) if self.halve else x
        for conv in self.convs:
            x = F.relu(conv(x))
        return x


class ResNetBlock(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 with `expansion` 4 (the stride at the 3x3 one), around a shortcut."""

    def __init__(self, channels: int, width: int, expansion: int, stride: int) -> None:
        super().__init__()
        kernels = (3, 3) if expansion == 1 else (1, 3, 1)
        widths = [channels, *[width] * (len(kernels) - 1), width * expansion]
        strides = [stride if i == len(kernels) - 2 else 1 for i in range(len(kernels))]
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(widths[i], widths[i + 1], k, stride=strides[i], padding=k // 2, bias=False)
                for i, k in enumerate(kernels)
            ]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(w) for w in widths[1:]])
        self.shortcut = None
        if stride != 1 or channels != width * expansion:
            conv = nn.Conv2d(channels, width * expansion, 1, stride=stride, bias=False)
            self.shortcut = nn.ModuleDict({"conv": conv, "norm": nn.BatchNorm2d(width * expansion)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = x if self.shortcut is None else self.shortcut["norm"](self.shortcut["conv"](x))
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x))
            if i < len(self.convs) - 1:
                x = F.relu(x)
        return F.relu(x + residual)


class ResNetStage(ConvBlock):
    def __init__(self, channels: int, width: int, expansion: int, depth: int, halve: bool) -> None:
        super().__init__()
        inputs = [channels] + [width * expansion] * (depth - 1)
        self.blocks = nn.ModuleList(
            [ResNetBlock(c, width, expansion, 2 if halve and i == 0 else 1) for i, c in enumerate(inputs)]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class StreamEncoder(nn.Module):
    def __init__(self, spec: StreamSpec) -> None:
        super().__init__()
        stages, channels = [], spec.widths[0]
        for i, (depth, width) in enumerate(zip(spec.depths, spec.widths, strict=True)):
            if spec.kind == "vgg":
                stages.append(VGGStage(channels, width, depth - (i == 0), halve=i > 0))
            else:
                stages.append(ResNetStage(channels, width, spec.expansion, depth, halve=i > 0))
            channels = width * spec.expansion
        self.layer = nn.ModuleList(stages)


class StreamEmbeddings(nn.Module):
    """The first convolution, the only layer in which the two streams differ."""

    def __init__(self, spec: StreamSpec) -> None:
        super().__init__()
        vgg = spec.kind == "vgg"
        options = {"kernel_size": 3, "padding": 1} if vgg else {"kernel_size": 7, "stride": 2, "padding": 3}
        self.conv = nn.Conv2d(spec.channels, spec.widths[0], bias=vgg, **options)
        self.norm = None if vgg else nn.BatchNorm2d(spec.widths[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return F.relu(x) if self.norm is None else F.max_pool2d(F.relu(self.norm(x)), 3, stride=2, padding=1)


class StreamNetwork(nn.Module):
    """An image network over many images: `encode` to the last ReLU's map, `feature_map` to the map that is classified,
    `embed` to one vector each."""

    def __init__(self, spec: StreamSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embeddings = StreamEmbeddings(spec)
        self.encoder = StreamEncoder(spec)
        self.dropout = nn.ModuleList([nn.Dropout(rate) for rate in spec.dropout])
        self.hidden = None
        if spec.kind == "vgg":
            places = spec.pool_size**2
            self.hidden = nn.ModuleList(
                [nn.Linear(spec.map_width * places, spec.fc_width), nn.Linear(spec.fc_width, spec.fc_width)]
            )

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """(B, T, C, H, W) -> the last map (B, T, D, h, w), and the first convolution's and every stage's tokens."""
        x = self.embeddings(images.flatten(0, 1))
        states = (x,)
        for stage in self.encoder.layer:
            x = stage(x)
            states += (x,)
        clip = images.shape[:2]
        return x.unflatten(0, clip), tuple(tokens(s.unflatten(0, clip).transpose(1, 2)) for s in states)

    def feature_map(self, last: torch.Tensor) -> torch.Tensor:
        """(B, T, D, h, w): VGG's fifth pooling, which fusion by convolution comes before; ResNet has none."""
        return F.max_pool2d(last.flatten(0, 1), 2).unflatten(0, last.shape[:2]) if self.hidden is not None else last

    def embed(self, feature_map: torch.Tensor) -> torch.Tensor:
        """(B, T, D, h, w) -> (B, T, width), with dropout in training."""
        if self.hidden is None:
            return self.dropout[0](feature_map.mean((-2, -1)))
        x, side = feature_map.flatten(0, 1), self.spec.pool_size
        if tuple(x.shape[-2:]) != (side, side):
            x = F.adaptive_avg_pool2d(x, side)
        x = x.flatten(1)
        for linear, dropout in zip(self.hidden, self.dropout, strict=True):
            x = dropout(F.relu(linear(x)))
        return x.unflatten(0, feature_map.shape[:2])


class VideoModelStream(nn.Module):
    """One of our video models as a stream, with what `StreamNetwork` offers."""

    hidden = None

    def __init__(self, spec: VideoStreamSpec) -> None:
        super().__init__()
        self.spec = spec
        model = model_entry(spec.config.model_type)
        self.model = model.load(model.auto["AutoModel"])(spec.config)

    @property
    def embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """(B, T, C, H, W) -> its embedding as a map (B, 1, D, 1, 1); inner states are not handed out."""
        return self.model.get_video_features(images, return_dict=True).embedding[:, None, :, None, None], ()

    def feature_map(self, last: torch.Tensor) -> torch.Tensor:
        return last

    def embed(self, feature_map: torch.Tensor) -> torch.Tensor:
        return feature_map.flatten(2)


VideoStream = VideoModelStream  # as whole models that 0.1.0 pickled name it


def make_stream(spec: StreamSpec | VideoStreamSpec) -> StreamNetwork | VideoModelStream:
    return VideoModelStream(spec) if spec.kind == "video" else StreamNetwork(spec)
