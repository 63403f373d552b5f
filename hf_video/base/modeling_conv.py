"""What convolutional models have in common beyond `VideoPreTrainedModel`: no attention, blocks over maps."""

from __future__ import annotations

import torch
from torch import nn
from transformers import initialization as init

from hf_video.base.modeling import VideoPreTrainedModel, video_features
from hf_video.base.outputs import VideoFeatures, VideoModelOutput
from hf_video.errors import ModelInputError
from hf_video.layers.convolution import channels_last, exchange_batch_norms, set_batch_norm, tokens


class ConvVideoPreTrainedModel(VideoPreTrainedModel):
    """He initialisation; the stem `embeddings` and the blocks `encoder.layer`, run in turn. Any `attn_implementation`
    is accepted and means nothing. Maps of a model that `lies_channels_last` do so in inference on a CPU."""

    lies_channels_last = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif getattr(module, "starts_at_zero", False):
            init.zeros_(module.weight)

    def set_norms(self) -> None:
        """Gives every batch norm the configuration's settings, or exchanges it."""
        config = self.config
        eps, momentum = config.batch_norm_eps, config.batch_norm_momentum
        set_batch_norm(self, eps=eps, momentum=momentum, frozen=config.frozen_batch_norm)
        if config.group_norm:
            exchange_batch_norms(self)
            self._keys_to_ignore_on_load_unexpected = [r"running_(mean|var)$", r"num_batches_tracked$"]

    def get_input_embeddings(self) -> nn.Module:
        """The stem."""
        return self.embeddings if self.base_model is self else self.base_model.get_input_embeddings()

    def refuse_attentions(self, output_attentions: bool | None) -> None:
        """Raises ModelInputError where the call or the config asks for attentions."""
        if self.resolve_output_flags(output_attentions, None)[0]:
            raise ModelInputError(
                f"{type(self).__name__} has no attention. Leave output_attentions out; output_hidden_states gives maps."
            )

    def tokens_of(self, maps: torch.Tensor) -> torch.Tensor:
        """What the stem or a block made, as tokens (B, T·H·W, D)."""
        return tokens(maps)

    def run_blocks(self, pixel_values: torch.Tensor, output_attentions: bool | None, output_hidden_states: bool | None):
        """Stem and blocks: the last map, and the tokens of the stem's and every block's, each of its own size, or None.
        Raises ModelInputError for a clip of which no map is left (`token_grid`), and where attentions are asked for."""
        self.refuse_attentions(output_attentions)
        self.token_grid(pixel_values)
        maps = pixel_values.transpose(1, 2)
        if self.lies_channels_last:
            maps = channels_last(maps, next(self.embeddings.parameters()))
        maps = self.embeddings(maps)
        _, wanted = self.resolve_output_flags(None, output_hidden_states)
        hidden_states = (self.tokens_of(maps),) if wanted else None
        for block in self.encoder.layer:
            maps = block(maps)
            if wanted:
                hidden_states += (self.tokens_of(maps),)
        return maps, hidden_states

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> VideoModelOutput | tuple:
        """Encodes clips.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised.
            output_attentions: True is refused: there are none.
            output_hidden_states, return_dict: As in transformers; None takes the configuration's.

        Returns:
            `last_hidden_state` (B, t·h·w, D): the places of the last map in order frame, row, column. `hidden_states`:
            those of the stem's and of every block's maps, each (B, tokens, channels) of its own size.

        Raises:
            ModelInputError: The clip has another shape or leaves no map, or attentions are asked for.
        """
        maps, hidden_states = self.run_blocks(pixel_values, output_attentions, output_hidden_states)
        return self.to_output(self.encoder_output(maps, hidden_states), return_dict)

    def encoder_output(self, maps: torch.Tensor, hidden_states: tuple[torch.Tensor, ...] | None) -> VideoModelOutput:
        """What a model makes of its last map: the map as tokens, and in some models further layers."""
        return VideoModelOutput(last_hidden_state=self.tokens_of(maps), hidden_states=hidden_states)

    def feature_map(self, last_hidden_state: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        """Tokens (B, t·h·w, D) of a clip on their grid, (B, t, h, w, D)."""
        return last_hidden_state.unflatten(1, self.token_grid(pixel_values))

    def clip_embedding(self, outputs: VideoModelOutput, feature_map: torch.Tensor) -> torch.Tensor:
        """One vector per clip, (B, D), of its map (B, t, h, w, D): the mean over windows (a method `pool`)."""
        return self.pool(feature_map).mean((1, 2, 3))

    @video_features
    def get_video_features(self, pixel_values: torch.Tensor, **flags: bool | None) -> VideoFeatures:
        """`pooler_output` (B, D), what the classifier sees (see `clip_embedding`), and `feature_map` (B, t, h, w, D);
        `flags`: `output_hidden_states`."""
        outputs = self(pixel_values, return_dict=True, **flags)
        feature_map = self.feature_map(outputs.last_hidden_state, pixel_values)
        return outputs.features(self.clip_embedding(outputs, feature_map), feature_map)
