"""VIOLET's visual tokenizer: the encoder of DALL-E's discrete VAE (Ramesh et al. 2021, arXiv:2102.12092; `encoder.py`
of openai/DALL-E). It turns each 8 × 8 pixels of a picture into one of 8192 codes, which masked visual-token modelling
predicts. Pictures are a quarter of the model's size, so that a code stands for each of its patches of 32 × 32."""

from __future__ import annotations

import re
from collections import OrderedDict

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from hf_video.base.configuration import VideoConfig
from hf_video.base.convert import Converted, StateDict, load_exactly, rename, unwrap
from hf_video.base.modeling import VideoPreTrainedModel
from hf_video.errors import CheckpointError, ConfigError, ModelInputError, check_count
from hf_video.models.published_inputs import IMAGENET_MEAN, IMAGENET_STD

EPSILON = 0.1  # `map_pixels`: [0, 1] is drawn together to [.1, .9]
GROUPS = 4  # the picture is halved between them


@strict
class VioletVisualTokenizerConfig(VideoConfig):
    """Args:
    hidden_size: channels of the first group of blocks; each later one has twice as many.
    blocks_per_group: residual blocks of each of the four groups.
    vocab_size: codes.
    shrink: how much smaller the pictures are than the model's, by an antialiased bilinear filter.
    image_mean, image_std: the statistics that `pixel_values` were normalised with.
    """

    model_type = "violet_visual_tokenizer"

    hidden_size: int = 256
    blocks_per_group: int = 2
    vocab_size: int = 8192
    num_channels: int = 3
    shrink: int = 4
    image_mean: list[float] | tuple[float, ...] = IMAGENET_MEAN
    image_std: list[float] | tuple[float, ...] = IMAGENET_STD

    def check(self) -> None:
        super().check()
        if self.hidden_size % 4:
            raise ConfigError(f"hidden_size={self.hidden_size} must be a multiple of 4: blocks narrow to a quarter.")
        for name in ("blocks_per_group", "vocab_size", "shrink"):
            check_count(name, getattr(self, name), ConfigError)


def convolution(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2)


class ResidualBlock(nn.Module):
    """x + path(x) / layers², layers being those of the whole network."""

    def __init__(self, inputs: int, outputs: int, layers: int) -> None:
        super().__init__()
        narrow = outputs // 4
        sizes = ((inputs, narrow, 3), (narrow, narrow, 3), (narrow, narrow, 3), (narrow, outputs, 1))
        self.gain = 1 / layers**2
        self.id_path = convolution(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.res_path = nn.Sequential(OrderedDict((f"conv_{i + 1}", convolution(*s)) for i, s in enumerate(sizes)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        path = x
        for conv in self.res_path:
            path = conv(F.relu(path))
        return self.id_path(x) + self.gain * path


class VioletVisualTokenizer(VideoPreTrainedModel):
    """Frames to codes.

        tokenizer = VioletVisualTokenizer.from_pretrained("folder")
        codes = tokenizer(pixel_values)  # what the model gets: (B, T, 3, 224, 224) -> (B, T, 7, 7)

    Its weights never change while VIOLET trains. OpenAI's file is a pickled module: `from_official` takes its state
    dict, which `torch.load(path, weights_only=False).state_dict()` gives whoever trusts the file.
    """

    config_class = VioletVisualTokenizerConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = False

    def __init__(self, config: VioletVisualTokenizerConfig) -> None:
        super().__init__(config)
        widths = [config.hidden_size * 2**group for group in range(GROUPS)]
        layers = GROUPS * config.blocks_per_group
        blocks: OrderedDict[str, nn.Module] = OrderedDict(input=convolution(config.num_channels, widths[0], 7))
        for group, width in enumerate(widths):
            inputs = [widths[max(group - 1, 0)]] + [width] * (config.blocks_per_group - 1)
            made = OrderedDict((f"block_{i + 1}", ResidualBlock(n, width, layers)) for i, n in enumerate(inputs))
            if group < GROUPS - 1:
                made["pool"] = nn.MaxPool2d(2)
            blocks[f"group_{group + 1}"] = nn.Sequential(made)
        blocks["output"] = nn.Sequential(
            OrderedDict(relu=nn.ReLU(), conv=convolution(widths[-1], config.vocab_size, 1))
        )
        self.blocks = nn.Sequential(blocks)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)

    def get_input_embeddings(self) -> nn.Module:
        """The first convolution."""
        return self.blocks.input

    @classmethod
    def from_official(cls, state_dict: StateDict, **config) -> VioletVisualTokenizer:
        """From the state dict of OpenAI's `encoder.pkl` (`blocks.group_1.block_1.res_path.conv_1.w`, …). The shapes
        tell the sizes; `config` are other fields. Raises CheckpointError for tensors that don't fit."""
        state = rename(unwrap(state_dict), lambda key: re.sub(r"\.w$", ".weight", re.sub(r"\.b$", ".bias", key)))
        first, last = (state.get(f"blocks.{name}.weight") for name in ("input", "output.conv"))
        if first is None or last is None:
            raise CheckpointError(
                f"No encoder of DALL-E's: blocks.input or blocks.output is missing in {sorted(state)[:5]}."
            )
        known = {
            "hidden_size": first.shape[0],
            "num_channels": first.shape[1],
            "vocab_size": last.shape[0],
            "blocks_per_group": len({key.split(".")[2] for key in state if key.startswith("blocks.group_1.block_")}),
        }
        model = cls(cls.config_class(**{**known, **config}))
        load_exactly(model, Converted(cls.__name__, known, state))
        return model.eval()

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """RGB pictures in [0, 1], (N, 3, H, W), sides multiples of 8 -> logits over codes (N, codes, H/8, W/8)."""
        if images.ndim != 4 or images.shape[1] != self.config.num_channels or 0 in images.shape:
            raise ModelInputError(
                f"Pictures of shape {tuple(images.shape)} came; expected (pictures, {self.config.num_channels}, "
                "height, width) in [0, 1]."
            )
        if images.shape[2] % 8 or images.shape[3] % 8:
            raise ModelInputError(
                f"Pictures of {images.shape[2]}x{images.shape[3]} pixels came; a code stands for 8x8, so both must be "
                "multiples of 8."
            )
        return self.blocks((1 - 2 * EPSILON) * images + EPSILON)

    @torch.no_grad()
    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Turns clips into codes.

        The authors shrink each frame from its file's size at once; here it is shrunk from the model's. For exactly
            theirs give
        `encode` pictures of that size and take the argmax.

        Args:
            pixel_values: Clips (B, T, 3, H, W), normalised as the model gets them.

        Returns:
            Codes (B, T, H/(8·shrink), W/(8·shrink)), int64.
        """
        self.check_input(pixel_values)
        side = 8 * self.config.shrink
        height, width = pixel_values.shape[-2:]
        if height % side or width % side:
            raise ModelInputError(
                f"Frames of {height}x{width} pixels came; a code stands for {side}x{side}, so both must be multiples."
            )
        mean, std = (pixel_values.new_tensor(v)[:, None, None] for v in (self.config.image_mean, self.config.image_std))
        images = (pixel_values * std + mean).flatten(0, 1)
        size = (height // self.config.shrink, width // self.config.shrink)
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True).clamp(0, 1)
        return self.encode(images).argmax(1).unflatten(0, pixel_values.shape[:2])
