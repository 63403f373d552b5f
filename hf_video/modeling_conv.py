"""What convolutional models have in common beyond `VideoPreTrainedModel`: no attention, blocks over maps."""

from __future__ import annotations

import torch
from torch import nn
from transformers import initialization as init

from hf_video.errors import ModelInputError
from hf_video.layers.convolution import tokens
from hf_video.modeling import VideoPreTrainedModel


class ConvVideoPreTrainedModel(VideoPreTrainedModel):
    """He initialisation; `run_blocks` over `encoder.layer`. Any `attn_implementation` is accepted and means nothing."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif getattr(module, "starts_at_zero", False):
            init.zeros_(module.weight)

    def refuse_attentions(self, output_attentions: bool | None) -> None:
        """Raises ModelInputError where the call or the config asks for attentions."""
        if self.wants(output_attentions, None)[0]:
            raise ModelInputError(
                f"{type(self).__name__} has no attention. Leave output_attentions out; output_hidden_states gives maps."
            )

    def tokens_of(self, maps) -> torch.Tensor:
        """What the stem or a block made, as tokens (B, T·H·W, D)."""
        return tokens(maps)

    def run_blocks(self, maps, output_hidden_states: bool | None):
        """The last map, and the tokens of the stem's and every block's, each of its own size, or None."""
        _, wanted = self.wants(None, output_hidden_states)
        hidden_states = (self.tokens_of(maps),) if wanted else None
        for block in self.encoder.layer:
            maps = block(maps)
            if wanted:
                hidden_states += (self.tokens_of(maps),)
        return maps, hidden_states
