"""What of a model is exported: one graph for each method that a runtime computes, with a dynamic batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hf_video.base.configuration import pair
from hf_video.base.detection.modeling import TemporalDetector
from hf_video.base.exported import Tensors
from hf_video.base.modeling import VideoPreTrainedModel
from hf_video.base.processing_config import frames_of_config
from hf_video.errors import CheckpointError

BATCH = 2  # of the example; 1 would be taken for the only one
MOST = 1024  # clips of a batch


@dataclass
class ModelGraph:
    """A method to trace: `compute` of tensors with the names of `inputs` gives the tensors of `outputs`.

    Attributes:
        name: The method of the exported model that it stands for.
        compute: Computes the outputs.
        inputs: An example of `BATCH` rows.
        outputs: Names of what `compute` gives.
        most_words: The largest length of the second dimension, where it may have any: of texts.
    """

    name: str
    compute: Callable[..., tuple[torch.Tensor, ...]]
    inputs: Tensors
    outputs: list[str]
    most_words: int = 0

    def shapes(self) -> dict[str, list[int | None]]:
        """Of the inputs, None for a dimension of any length."""
        free = 2 if self.most_words else 1
        return {name: [None] * free + list(value.shape[free:]) for name, value in self.inputs.items()}

    def example(self, rows: int, seed: int = 0) -> Tensors:
        """Other values for the same inputs, `rows` of them."""
        generator = torch.Generator().manual_seed(seed)
        made = {}
        for name, value in self.inputs.items():
            size = (rows, *value.shape[1:])
            if value.is_floating_point():
                made[name] = torch.randn(size, generator=generator)
            else:
                made[name] = value[(torch.arange(rows) + seed) % BATCH]
        return made

    def trace(self, model: nn.Module) -> torch.export.ExportedProgram:
        """The program of a model whose method `compute` is."""
        sizes = {"batch": torch.export.Dim("batch", min=1, max=MOST)}
        if self.most_words:
            sizes["words"] = torch.export.Dim("words", min=2, max=self.most_words)
        shapes = tuple(dict(enumerate(sizes.values())) for _ in self.inputs)
        values = tuple(self.inputs.values())
        with torch.no_grad():
            return torch.export.export(_Traced(model, self), values, dynamic_shapes={"values": shapes})


class _Traced(nn.Module):
    def __init__(self, model: nn.Module, graph: ModelGraph) -> None:
        super().__init__()
        self.model, self.graph = model, graph

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.graph.compute(**dict(zip(self.graph.inputs, values, strict=True)))


def kind_of(model: Any) -> str:
    """ "classifier", "encoder", "dual" (of video and text) or "events" (a detector on features).

    Raises CheckpointError for a model that can't be exported."""
    if isinstance(model, TemporalDetector):
        return "events"
    name = type(model).__name__
    takes_clips = isinstance(model, VideoPreTrainedModel)
    if takes_clips and name.endswith("ForVideoClassification"):
        return "classifier"
    joined = getattr(model.config, "temporal", None) == "tight" or getattr(model.config, "feature_dim", None)
    if takes_clips and hasattr(model, "get_text_features") and not joined:
        return "dual"
    others = "text" in getattr(model, "input_modalities", ()) or "For" in name or "Pre" in name
    if takes_clips and model.base_model is model and not others and model.config.model_type != "adatad":
        return "encoder"
    raise CheckpointError(
        f"{name} can't be exported. These can: video classifiers, encoders (what AutoModel gives), models of video and "
        "text with a tower for each, and detectors on features (ActionFormer, TriDet)."
    )


def graphs_of(model: Any, *, num_frames: int | None = None, size: tuple[int, int] | None = None) -> list[ModelGraph]:
    """The graphs of a model in eval mode.

    Args:
        model: Any that `kind_of` knows.
        num_frames: Of a clip; default the configuration's.
        size: (height, width) of a frame; default the configuration's.

    Raises:
        CheckpointError: A model that can't be exported, or one whose configuration gives no sizes.
    """
    kind = kind_of(model)
    if kind == "events":
        return [_events(model)]
    inputs = example_clips(model, num_frames, size)
    vectors = lambda **clips: model.get_video_features(**clips, return_dict=True)  # noqa: E731
    if kind == "classifier":

        def classify(**clips: torch.Tensor) -> tuple[torch.Tensor, ...]:
            read: list[torch.Tensor] = []
            hook = model.classifier.register_forward_pre_hook(lambda _, given: read.append(given[0].flatten(1)))
            try:
                return model(**clips, return_dict=True).logits, *read
            finally:
                hook.remove()

        return [ModelGraph("forward", classify, inputs, ["logits", "pooler_output"])]
    if kind == "encoder":
        with torch.inference_mode():
            example = vectors(**inputs)
        outputs = [n for n in ("last_hidden_state", "pooler_output", "feature_map") if example[n] is not None]

        def encode(**clips: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found = vectors(**clips)
            return tuple(found[name] for name in outputs)

        return [ModelGraph("forward", encode, inputs, outputs)]
    video = ModelGraph("forward", lambda **clips: (vectors(**clips).pooler_output,), inputs, ["pooler_output"])
    return [video, _texts(model)]


def example_clips(model: Any, num_frames: int | None, size: tuple[int, int] | None) -> Tensors:
    """`BATCH` clips of noise by the names of the model's inputs."""
    config = model.config
    towers = [config, *(getattr(config, name, None) for name in ("video_config", "vision_config", "spatial_config"))]
    frames = num_frames or frames_of_config(config)
    sizes = [getattr(one, "image_size", None) for one in towers if one is not None]
    size = size or next((pair(one) for one in sizes if one), None)
    if frames is None or size is None:
        raise CheckpointError(
            f"{type(model).__name__}'s config.json does not say how long clips are or how large frames: pass "
            "num_frames= and size= (--num-frames, --size)."
        )
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, frames, getattr(config, "num_channels", 3), *size)
    clips = {_clip_name(model): torch.randn(shape, generator=generator)}
    if config.model_type == "two_stream" and "temporal" in config.specs:
        flow = (BATCH, frames, 2 * config.flow_length, *size)
        clips["flow_values"] = torch.randn(flow, generator=generator)
        if "spatial" not in config.specs:
            del clips["pixel_values"]
    return clips


def _clip_name(model: Any) -> str:
    return model.main_input_name if model.main_input_name.startswith("pixel_values") else "pixel_values"


def _texts(model: Any) -> ModelGraph:
    text = model.config.text_config
    most = text.max_position_embeddings
    # VideoPrism's and SigLIP's texts fill all places. Elsewhere the example is no extreme, at which tracing would stop.
    full = model.config.model_type == "videoprism" or getattr(model, "text_padding", True) is not True
    length = most if full else max(most // 2, 3)
    ids = torch.arange(BATCH * length).view(BATCH, length) % (text.vocab_size - 1) + 1
    mask = torch.ones_like(ids)
    mask[1, -(length // 4) :] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    projected = model.config.model_type == "videoclip"

    def embed(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = model.get_text_features(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
        return (found.pooler_output, found.projected) if projected else (found.pooler_output,)

    outputs = ["pooler_output", "projected"] if projected else ["pooler_output"]
    return ModelGraph("get_text_features", embed, inputs, outputs, 0 if full else most)


def _events(model: TemporalDetector) -> ModelGraph:
    config = model.config
    length, width = config.padded_length(1), sum(config.input_sizes)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((BATCH, length, width), generator=generator)
    mask = torch.arange(length) < torch.tensor([[length], [length * 3 // 4]])
    outputs = ["logits", "offsets", "mask", "points"]

    def find(features: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = model(features, mask, return_dict=True)
        return tuple(found[name].clone() for name in outputs)

    return ModelGraph("forward", find, {"features": features, "mask": mask}, outputs)
