"""Two-stream networks (Simonyan and Zisserman, 2014, arXiv:1406.2199), after the very deep ones of Wang et al. 2015
(arXiv:1507.02159) in bryanyzhu/two-stream-pytorch, and convolutional fusion (Feichtenhofer, Pinz, Zisserman, 2016,
arXiv:1604.06573) after feichtenhofer/twostreamfusion.

A spatial network looks at single frames, a temporal one at stacks of 2·L channels: the optical flow of L consecutive
pairs of frames, x1, y1, x2, y2, …. Both are image networks (VGG, ResNet) that differ in their first convolution only.
Each is applied to its T inputs of a clip one by one and its scores are averaged over them; then the streams are fused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from hf_video.base.modeling import VideoClassifier, video_features
from hf_video.base.modeling_conv import ConvVideoPreTrainedModel
from hf_video.base.outputs import VideoClassifierOutput, VideoFeatures, VideoModelOutput
from hf_video.errors import ConfigError, ModelInputError
from hf_video.models.two_stream.configuration_two_stream import StreamSpec, TwoStreamConfig
from hf_video.models.two_stream.networks import StreamNetwork, make_stream


def fusing_weight(spatial: int, temporal: int) -> torch.Tensor:
    """What the fusion by convolution starts from, as in the authors' code, (spatial, both, 3, 3, 3): a Gaussian over
    the 27 places (deviation 1, sum 1) that passes a quarter of the spatial channel and three quarters of the temporal
    one of the same number."""
    axis = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / 2)
    gaussian = axis[:, None, None] * axis[:, None] * axis
    mix = torch.cat([0.25 * torch.eye(spatial), 0.75 * torch.eye(spatial, temporal)], dim=1)
    return mix[..., None, None, None] * (gaussian / gaussian.sum())


@dataclass
class TwoStreamModelOutput(VideoModelOutput):
    """`pooler_output` (B, D): the streams' vectors side by side, each averaged over its T inputs. `last_hidden_state`
    (B, T·h·w, D): their last maps side by side. `hidden_states`: of each stream in turn, (B, T·h·w, D) of the first
    convolution and every stage."""

    pooler_output: torch.Tensor | None = None


class TwoStreamPreTrainedModel(ConvVideoPreTrainedModel):
    """Initialisation after the official code. `load_image_weights` (in `convert_two_stream`) starts both streams from
    an ImageNet network instead, as the papers do."""

    config_class = TwoStreamConfig
    base_model_prefix = "two_stream"
    _no_split_modules: ClassVar[list[str]] = ["VGGStage", "ResNetStage", "StreamEmbeddings"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=self.config.initializer_range)
        elif fused := getattr(module, "fused_widths", None):
            init.copy_(module.weight, fusing_weight(*fused))

    def check_flow(self, flow_values: torch.Tensor | None) -> None:
        """Raises ModelInputError unless `flow_values` is a floating (B, T, 2·L, H, W)."""
        channels = 2 * self.config.flow_length
        expected = f"(batch, stacks, {channels}, height, width): x and y of {self.config.flow_length} flow fields"
        if flow_values is None:
            raise ModelInputError(f"flow_values is missing. Pass a float tensor {expected}; TwoStreamImageProcessor "
                                  "makes both inputs from a file.")  # fmt: skip
        if flow_values.ndim != 5 or flow_values.shape[2] != channels:
            raise ModelInputError(f"flow_values has shape {tuple(flow_values.shape)}; expected {expected}.")
        if not flow_values.is_floating_point():
            raise ModelInputError(f"flow_values is {flow_values.dtype}; expected normalised floats: see the processor.")

    def check_size(self, name: str, values: torch.Tensor, spec: StreamSpec) -> None:
        height, width = values.shape[-2:]
        least = 2**spec.depth if spec.kind == "vgg" else 1  # every stage of VGG halves, without padding
        if min(height, width, values.shape[1]) < 1 or min(height, width) < least:
            raise ModelInputError(
                f"{name} has {values.shape[1]} images of {height}x{width} pixels; expected at least one, of {least} or "
                "more each way."
            )


class TwoStreamModel(TwoStreamPreTrainedModel):
    """Both streams without a classifier. `pixel_values` (B, T, 3, H, W) and `flow_values` (B, T, 2·L, H, W); T, H and W
    come from the tensors. What a model without that stream is given is not looked at."""

    def __init__(self, config: TwoStreamConfig) -> None:
        super().__init__(config)
        specs = config.specs
        self.spatial = make_stream(specs["spatial"]) if "spatial" in specs else None
        self.temporal = make_stream(specs["temporal"]) if "temporal" in specs else None
        self.fusion = None
        if config.fusion == "conv":
            # Section 3.2 of Feichtenhofer et al. 2016: places that answer to each other in appearance and motion meet,
            # also across neighbouring frames. A plain layer, told how it starts: adapters make others of its class.
            widths = specs["spatial"].map_width, specs["temporal"].map_width
            self.fusion = nn.Conv3d(sum(widths), widths[0], 3, padding=1)
            self.fusion.fused_widths = widths
        if self.spatial is None:
            self.main_input_name = "flow_values"
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return (self.temporal if self.spatial is None else self.spatial).embeddings

    @property
    def streams(self) -> list[StreamNetwork]:
        return [stream for stream in (self.spatial, self.temporal) if stream is not None]

    def images(self, pixel_values: torch.Tensor | None, flow_values: torch.Tensor | None) -> list[torch.Tensor]:
        """The inputs of the streams that there are, checked."""
        images = []
        if self.spatial is not None:
            self.check_input(pixel_values)
            self.check_size("pixel_values", pixel_values, self.spatial.spec)
            images.append(pixel_values)
        if self.temporal is not None:
            self.check_flow(flow_values)
            self.check_size("flow_values", flow_values, self.temporal.spec)
            images.append(flow_values)
        if len(images) == 2 and images[0].shape[0] != images[1].shape[0]:
            raise ModelInputError(
                f"pixel_values has {len(images[0])} clips and flow_values {len(images[1])}; both are of the same clips."
            )
        return images

    def encode(
        self, pixel_values: torch.Tensor | None, flow_values: torch.Tensor | None
    ) -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
        """The streams' feature maps (B, T, D, h, w), after fusion by convolution (B, 1, D, h, w), and all states."""
        images = self.images(pixel_values, flow_values)
        answers = [stream.encode(values) for stream, values in zip(self.streams, images, strict=True)]
        maps, states = [a[0] for a in answers], tuple(state for a in answers for state in a[1])
        if self.fusion is not None:
            self._check_alike(maps, "fusion='conv'")
            fused = F.relu(self.fusion(torch.cat(maps, dim=2).transpose(1, 2))).transpose(1, 2)
            maps = [m.amax(1, keepdim=True) for m in (fused, maps[1])]  # 3-D pooling: here over time, below in space
        return [stream.feature_map(m) for stream, m in zip(self.streams, maps, strict=True)], states

    @staticmethod
    def _check_alike(maps: list[torch.Tensor], what: str) -> None:
        shapes = [(*m.shape[1:2], *m.shape[-2:]) for m in maps]
        if shapes[0] != shapes[-1]:
            raise ModelInputError(
                f"{what} puts the streams' maps side by side and they have {shapes[0]} and {shapes[1]} (times, rows, "
                "columns). Pass as many stacks as frames, of one size."
            )

    def embed(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """(B, D): each stream's mean over its inputs. The mean of scores over them is the score of this mean, as a
        linear classifier follows."""
        vectors = [stream.embed(m).mean(1) for stream, m in zip(self.streams, maps, strict=True)]
        return torch.cat(vectors, dim=-1)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        flow_values: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> TwoStreamModelOutput | tuple:
        """Encodes clips and their flow.

        Args:
            pixel_values: Frames (B, T, 3, H, W) of the spatial stream.
            flow_values: Flow (B, S, 2·L, H, W) of the temporal stream, L fields of x and y. With fusion S must be T.
            output_hidden_states, return_dict: As in transformers; None takes the configuration's.

        Raises:
            ModelInputError: The streams' maps differ in time or size, or attentions are asked for: there are none.
        """
        outputs, _ = self._outputs_and_map(pixel_values, flow_values, output_attentions, output_hidden_states)
        return self.to_output(outputs, return_dict)

    def _outputs_and_map(self, pixel_values, flow_values, output_attentions=None, output_hidden_states=None):
        self.refuse_attentions(output_attentions)
        _, output_hidden_states = self.resolve_output_flags(output_attentions, output_hidden_states)
        maps, states = self.encode(pixel_values, flow_values)
        self._check_alike(maps, "last_hidden_state")
        feature_map = torch.cat(maps, dim=2).movedim(2, -1)
        outputs = TwoStreamModelOutput(
            last_hidden_state=feature_map.flatten(1, 3),
            hidden_states=states if output_hidden_states else None,
            pooler_output=self.embed(maps),
        )
        return outputs, feature_map

    @video_features
    def get_video_features(
        self, pixel_values: torch.Tensor | None = None, flow_values: torch.Tensor | None = None, **flags: bool | None
    ) -> VideoFeatures:
        """Encodes clips.

        Args:
            pixel_values: Clips (B, T, 3, H, W), for a spatial stream.
            flow_values: Stacks of flow (B, T, 2·L, H, W), for a temporal one.
            flags: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            `pooler_output` (B, D) and `feature_map` (B, T, h, w, D), the streams side by side.
        """
        outputs, feature_map = self._outputs_and_map(pixel_values, flow_values, **flags)
        return outputs.features(outputs.pooler_output, feature_map)


class TwoStreamClassifier(nn.Module):
    """A linear classifier for each stream, and their fusion: (B, D) of both -> (B, classes)."""

    def __init__(self, config: TwoStreamConfig) -> None:
        super().__init__()
        specs = config.specs
        self.widths = [spec.width for spec in specs.values()]
        self.weights = {"weighted": list(config.fusion_weights), "sum_logits": None}.get(config.fusion, [1.0, 1.0])
        self.probabilities = config.fusion_scores == "softmax"
        self.heads = nn.ModuleDict({name: nn.Linear(spec.width, config.num_labels) for name, spec in specs.items()})

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        vectors = embedding.split(self.widths, dim=-1)
        logits = [head(vector) for head, vector in zip(self.heads.values(), vectors, strict=True)]
        if len(logits) == 1:
            return logits[0]
        if self.weights is None:
            return logits[0] + logits[1]
        spatial, temporal = (w / sum(self.weights) for w in self.weights)
        if not self.probabilities:
            return spatial * logits[0] + temporal * logits[1]
        shares = torch.tensor([spatial, temporal], device=embedding.device).log()
        mixed = torch.stack([x.float().log_softmax(-1) for x in logits], dim=-1) + shares
        return mixed.logsumexp(-1).to(embedding.dtype)


class TwoStreamForVideoClassification(VideoClassifier, TwoStreamPreTrainedModel):
    """Both streams with their classifiers, fused.

    The papers train the streams apart (a model with one stream each) and fuse them afterwards: `from_streams`."""

    def __init__(self, config: TwoStreamConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.two_stream = TwoStreamModel(config)
        self.classifier = TwoStreamClassifier(config)
        self.main_input_name = self.two_stream.main_input_name
        self.post_init()

    @classmethod
    def from_streams(cls, spatial, temporal, **config_changes) -> TwoStreamForVideoClassification:
        """Makes one model of the spatial stream of one and the temporal stream of another.

        Args:
            spatial, temporal: Models with these streams, or of a single stream; labels are those of `spatial`.
            config_changes: Fields of the configuration, such as `fusion`. A fusion by convolution starts fresh.

        Returns:
            The model, in eval mode.

        Raises:
            ConfigError: A stream is missing, or the numbers of classes differ.
        """
        for name, model in (("spatial", spatial), ("temporal", temporal)):
            if getattr(model.two_stream, name, None) is None:
                raise ConfigError(f"The model given as {name}= has no {name} stream.")
        if spatial.config.num_labels != temporal.config.num_labels:
            raise ConfigError(
                f"The streams tell {spatial.config.num_labels} and {temporal.config.num_labels} classes apart; they "
                "must be trained on the same."
            )
        config = spatial.config.to_dict()
        config |= {name: getattr(temporal.config, name) for name in ("temporal_config", "flow_length")}
        fused = cls(TwoStreamConfig.from_dict({**config, **config_changes}))
        for name, model in (("spatial", spatial), ("temporal", temporal)):
            getattr(fused.two_stream, name).load_state_dict(getattr(model.two_stream, name).state_dict())
            fused.classifier.heads[name].load_state_dict(model.classifier.heads[name].state_dict())
        return fused.eval()

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        flow_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> VideoClassifierOutput | tuple:
        """Classifies clips by their frames and their flow.

        Args:
            pixel_values: Frames (B, T, 3, H, W).
            flow_values: Flow (B, S, 2·L, H, W), L fields of x and y; S and T may differ, but for fusion by convolution.
            labels: (B,) class numbers, or (B, classes) floats; see `losses.classification_loss`.
            output_hidden_states, return_dict: As in transformers; None takes the configuration's.
            num_items_in_batch: Labels of the whole effective batch, by which Trainer divides the loss.

        Returns:
            `logits` (B, classes), and `loss` with labels.
        """
        self.refuse_attentions(output_attentions)
        _, output_hidden_states = self.resolve_output_flags(output_attentions, output_hidden_states)
        maps, states = self.two_stream.encode(pixel_values, flow_values)
        logits = self.classifier(self.two_stream.embed(maps))
        states = states if output_hidden_states else None
        return self.classifier_output(logits, labels, num_items_in_batch, return_dict, hidden_states=states)

    @video_features
    def get_video_features(
        self, pixel_values: torch.Tensor | None = None, flow_values: torch.Tensor | None = None, **flags: bool | None
    ) -> VideoFeatures:
        return self.two_stream.get_video_features(pixel_values, flow_values, return_dict=True, **flags)

    @property
    def frames_per_state(self) -> int | None:
        """1 for a spatial stream of images alone; see `VideoPreTrainedModel`."""
        streams = self.two_stream.streams
        alone = len(streams) == 1 and streams[0] is self.two_stream.spatial and isinstance(streams[0], StreamNetwork)
        return 1 if alone else None

    def encode_states(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Clips (B, T, 3, H, W) -> the spatial stream's vectors of their frames (B, T, D)."""
        (maps,), _ = self.two_stream.encode(pixel_values, None)
        return self.two_stream.spatial.embed(maps)

    def classify_states(self, states: torch.Tensor) -> torch.Tensor:
        """What `encode_states` gave, (B, T, D) -> logits (B, classes)."""
        return self.classifier(states.mean(1))
