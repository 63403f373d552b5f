"""The base classes of every model: input check, initialisation of buffers, features, layer groups; a classifier. And
how any video model is called, ours or transformers'."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, logging

from hf_video.base.configuration import VideoConfig, pair
from hf_video.base.losses import classification_loss
from hf_video.base.outputs import VideoClassifierOutput, VideoFeatures, VideoModelOutput
from hf_video.base.safe_weights import SafeWeights
from hf_video.errors import CheckpointError, ModelInputError

logger = logging.get_logger(__name__)

CLIP_NAMES = ("pixel_values", "pixel_values_videos")
# Model types whose classes in transformers say too little of the clips that they take.
_SILENT = ("vjepa2", "videoprism", "xclip")


def video_features(method: Callable[..., VideoFeatures]) -> Callable[..., VideoFeatures | tuple]:
    """Gives a model's `get_video_features` what transformers' methods of that name take: the clips as `pixel_values` or
    `pixel_values_videos`, and `return_dict`, which is the configuration's where it is not given."""

    @functools.wraps(method)
    def get_video_features(
        self,
        pixel_values: torch.Tensor | None = None,
        *args,
        pixel_values_videos: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **inputs,
    ):
        if pixel_values_videos is not None:
            if pixel_values is not None:
                raise ModelInputError("pixel_values and pixel_values_videos are two names of one input: pass one.")
            pixel_values = pixel_values_videos
        return self.to_output(method(self, pixel_values, *args, **inputs), return_dict)

    return get_video_features


def with_owners(owner: PreTrainedModel, module: nn.Module) -> Iterator[tuple[PreTrainedModel, nn.Module]]:
    """All modules below and `module` itself, each with the model whose `_init_weights` knows it."""
    for child in module.children():
        yield from with_owners(child if isinstance(child, PreTrainedModel) else owner, child)
    yield owner, module


class InitializesAllModules:
    """Mixed in before `PreTrainedModel`: modules without parameters of their own are initialised too."""

    @torch.no_grad()
    @init.guard_torch_init_functions()
    def initialize_weights(self) -> None:
        """As transformers does it for its own models. For others it passes by every module that has no parameters of
        its own, and with it the initialisation of attentions, MLPs and whole models; that spares unguarded code of
        users, and so it stays for classes that are derived from ours elsewhere."""
        if not type(self).__module__.startswith("hf_video."):
            return super().initialize_weights()
        for owner, module in with_owners(self, self):
            owner._initialize_weights(module)


@torch.no_grad()
@init.guard_torch_init_functions()
def fill_unsaved_buffers(model: PreTrainedModel, *_) -> None:
    """Sets the buffers that no file holds, such as `position_ids`, in a model that was built without memory.

    Ours have none (see `layers.embeddings`). transformers' text towers have some and set them in `_init_weights`, which
    only `from_pretrained` calls; here it is called with what files hold marked as initialised, which it leaves alone.
    """
    device = next((p.device for p in model.parameters() if p.device.type != "meta"), None)
    if device is None:
        return
    for owner, module in with_owners(model, model):
        unsaved = [name for name in module._non_persistent_buffers_set if module._buffers[name] is not None]
        for name in unsaved:
            if module._buffers[name].is_meta:
                module._buffers[name] = torch.empty_like(module._buffers[name], device=device)
        if unsaved:
            saved = [buffer for name, buffer in module._buffers.items() if name not in unsaved and buffer is not None]
            marked = [t for t in (*module.parameters(), *saved) if not getattr(t, "_is_hf_initialized", False)]
            for tensor in marked:
                tensor._is_hf_initialized = True
            owner._init_weights(module)
            for tensor in marked:
                del tensor._is_hf_initialized


class VideoPreTrainedModel(SafeWeights, InitializesAllModules, PreTrainedModel):
    """A `PreTrainedModel` for clips `pixel_values` (B, T, C, H, W).

    A model says with `layer_patterns` how deep a parameter lies; layer-wise learning-rate decay, freezing and the
    like are then written once, over `layer_groups()`.
    """

    config_class = VideoConfig
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    # Whether the loss compares the samples of a batch or counts over them, so that none has a loss of its own.
    loss_joins_samples = False

    # Frames of a clip that make a state of their own, whatever stands before and behind them; None where the states of
    # a clip depend on all of it. A classifier with a number has `encode_states`, clips (B, T, C, H, W) to states
    # (B, T / frames_per_state, D), and `classify_states`, states to logits: a stream encodes each frame once.
    frames_per_state: int | None = None
    # Whether states depend on what stands before: `encode_states` then takes a dict besides, in which layers keep what
    # they need of it, and the frames of one call are neighbours.
    keeps_past = False

    # Whether `config.image_mean` and `image_std` are those that the model was trained with.
    knows_statistics = False

    # Parameters that match stand before the first block; the block number is the group of `blocks_pattern`.
    stem_pattern = r"embeddings\.|mask_token"
    blocks_pattern = r"encoder\.layer\.(\d+)\."

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_post_hook(fill_unsaved_buffers)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True):
        """`to_empty` and the like: buffers that gain memory by it get their values."""
        empty = any(buffer.is_meta for _, buffer in self.named_non_persistent_buffers())
        super()._apply(fn, recurse)
        if empty:
            fill_unsaved_buffers(self)
        return self

    def check_input(self, pixel_values: torch.Tensor) -> None:
        """Raises ModelInputError unless `pixel_values` is a floating (B, T, C, H, W) with the config's channels."""
        name = self.main_input_name if self.main_input_name in CLIP_NAMES else CLIP_NAMES[0]
        if pixel_values is None:
            raise ModelInputError(f"{name} is missing. Pass a float tensor (batch, frames, channels, height, width).")
        if pixel_values.ndim != 5:
            raise ModelInputError(
                f"{name} has shape {tuple(pixel_values.shape)}; expected five dimensions (batch, frames, "
                "channels, height, width). One clip: add the batch with [None]."
            )
        if pixel_values.shape[2] != self.config.num_channels:
            hint = " They look like (batch, channels, frames, ...): permute(0, 2, 1, 3, 4)."
            swapped = pixel_values.shape[1] == self.config.num_channels
            raise ModelInputError(
                f"{name} has {pixel_values.shape[2]} channels in shape {tuple(pixel_values.shape)}; expected "
                f"(batch, frames, {self.config.num_channels}, height, width).{hint if swapped else ''}"
            )
        if not pixel_values.is_floating_point():
            raise ModelInputError(
                f"{name} is {pixel_values.dtype}; expected normalised floats. Run the frames through the model's "
                "image processor first."
            )

    def resolve_output_flags(
        self, output_attentions: bool | None = None, output_hidden_states: bool | None = None
    ) -> tuple[bool, bool]:
        """The call's flags, or the config's where the call has none."""
        config = self.config
        attentions = config.output_attentions if output_attentions is None else output_attentions
        hidden = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return bool(attentions), bool(hidden)

    def to_output(self, output: ModelOutput, return_dict: bool | None = None):
        """A ModelOutput as it is, or as a tuple where the call or the config asks for one."""
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()

    @video_features
    def get_video_features(self, pixel_values: torch.Tensor, **inputs: Any) -> VideoFeatures:
        """One vector per clip and the feature map.

        Args:
            pixel_values: clips (B, T, C, H, W); transformers' name for them, `pixel_values_videos`, is taken as well.
            inputs: what else `forward` takes: `output_hidden_states`, `output_attentions`, a model's further inputs.
                `return_dict=False` gives a tuple.

        Returns:
            `VideoFeatures`: `last_hidden_state`, `pooler_output` (B, D) and `feature_map` (B, T', H', W', D). A model
            with a head gives those of its encoder; of a classifier, the vector is what the classifier reads.
        """
        if self.base_model is self:
            raise NotImplementedError(f"{type(self).__name__} has no features.")
        return self.base_model.get_video_features(pixel_values, return_dict=True, **inputs)

    def layer_groups(self) -> list[list[str]]:
        """Names of all parameters by depth: group 0 the embeddings, group i+1 block i, the last one what follows
        (norms, heads, decoders). Each parameter stands in exactly one group (BEiT's layer-wise decay, as VideoMAE
        uses it)."""
        groups: list[list[str]] = [[] for _ in range(self.num_blocks + 2)]
        for name, _ in self.named_parameters():
            groups[self.group_of(name)].append(name)
        return groups

    @property
    def num_blocks(self) -> int:
        """Blocks that have a layer group each."""
        return self.config.num_hidden_layers

    def group_of(self, name: str) -> int:
        """The number of a parameter's layer group; -1 is the last."""
        if block := re.search(self.blocks_pattern, name):
            return 1 + int(block[1])
        return 0 if re.search(self.stem_pattern, name) else -1

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that recipes leave out of weight decay: those of one dimension, tokens, positions."""
        tokens = r"(cls_token|mask_token|position_embeddings|time_embeddings)$"
        return {n for n, p in self.named_parameters() if p.ndim <= 1 or re.search(tokens, n)}


class VideoClassifier:
    """A linear classifier on a clip's vector, mixed into a model: `class XForVideoClassification(VideoClassifier,
    XPreTrainedModel)`. Labels: (B,) class numbers, or (B, classes) floats; see `losses.classification_loss`."""

    accepts_loss_kwargs = True
    # What `forward` asks of the encoder besides what it is asked for itself.
    encoder_options: ClassVar[dict[str, Any]] = {}

    def add_classifier(self, width: int) -> None:
        """The last line of `__init__`, when the encoder stands: dropout and a classifier of `width` inputs."""
        self.num_labels = self.config.num_labels
        self.dropout = nn.Dropout(getattr(self.config, "classifier_dropout", 0.0))
        self.classifier = nn.Linear(width, self.num_labels) if self.num_labels > 0 else nn.Identity()
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> VideoClassifierOutput | tuple:
        """Classifies clips.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised.
            labels: (B,) class numbers, or (B, classes) floats.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.
            num_items_in_batch: Labels of the whole effective batch, by which Trainer divides the loss.

        Returns:
            `logits` (B, classes), `loss` with labels, and the encoder's states.

        Raises:
            ModelInputError: The clip or the labels have another shape.
        """
        flags = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        return self.classify(pixel_values, labels, num_items_in_batch, return_dict, **flags)

    def classify(
        self,
        pixel_values: torch.Tensor | None,
        labels: torch.Tensor | None,
        num_items_in_batch: torch.Tensor | int | None,
        return_dict: bool | None,
        **options,
    ):
        """`forward`; `options` are the encoder's."""
        outputs = self.base_model(pixel_values, return_dict=True, **self.encoder_options, **options)
        logits = self.classifier(self.clip_vector(outputs, pixel_values))
        kinds = ("hidden_states", "attentions", "temporal_attentions", "kept_tokens")
        return self.classifier_output(
            logits, labels, num_items_in_batch, return_dict, **{k: getattr(outputs, k) for k in kinds}
        )

    def clip_vector(self, outputs: VideoModelOutput, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the classifier reads of the encoder's outputs, (B, D). A model of tokens has just a method `pool`,
        (B, tokens, D) -> (B, D)."""
        return self.dropout(self.pool(outputs.last_hidden_state))

    def classifier_output(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor | None,
        num_items_in_batch: torch.Tensor | int | None,
        return_dict: bool | None,
        **states,
    ) -> VideoClassifierOutput | tuple:
        """Logits (B, classes), their loss where there are labels, and the encoder's `states`."""
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config.problem_type, num_items_in_batch)
        return self.to_output(VideoClassifierOutput(loss=loss, logits=logits, **states), return_dict)

    # The encoder's, before what a model's own base class has for encoders.
    get_video_features = VideoPreTrainedModel.get_video_features


# -- how any video model is called, ours or transformers': its clips' name, and the shape of its logits ----------------


def clip_name(model: Any) -> str:
    """The input of a model that takes clips: its `main_input_name`, or of a model whose main input is text the one of
    `CLIP_NAMES` that its `forward` takes."""
    name = getattr(model, "main_input_name", CLIP_NAMES[0])
    takes = () if name in CLIP_NAMES else inspect.signature(model.forward).parameters
    return next((clips for clips in CLIP_NAMES if clips in takes), name)


def inputs_for(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into a model's `forward` of what a processor made: clips under the model's own name.

    Raises ModelInputError for clips of which a model of transformers' would drop or repeat frames or pixels without a
    word, or for which it has no positions (`check_clips`).
    """
    wanted = clip_name(model)
    takes = inspect.signature(model.forward).parameters
    given = [name for name in CLIP_NAMES if name in inputs] or [name for name in inputs if name not in takes]
    named = dict(inputs)
    # Where something comes beside them, only clips can be meant.
    if wanted not in inputs and len(given) == 1 and (wanted in CLIP_NAMES or len(inputs) == 1):
        named = {wanted if name == given[0] else name: value for name, value in inputs.items()}
    clips = named.get(wanted)
    if wanted in CLIP_NAMES and isinstance(clips, torch.Tensor) and clips.ndim == 5:
        named |= check_clips(model, clips)
    return named


def check_clips(model: Any, clips: torch.Tensor) -> dict[str, bool]:
    """Compares clips (B, T, C, H, W) with what a class of transformers takes, whose own forward is silent or unclear;
    and with what our VideoPrism takes unless it is told to interpolate.

    Returns:
        What has to be said to the model besides: that VideoPrism's positions are to be interpolated.

    Raises:
        ModelInputError: frames or pixels that V-JEPA 2 and VideoPrism would leave over, or frames that transformers'
            own X-CLIP has no positions for.
    """
    stock, kind = type(model).__module__.startswith("transformers."), model.config.model_type
    if not (stock and kind.startswith(_SILENT)) and not kind.startswith("videoprism"):
        return {}
    config = getattr(model.config, "vision_config", model.config)
    frames, _, *size = clips.shape[1:]
    name = f"{type(model).__name__} (config.json)"
    if config.model_type.startswith("xclip"):
        if frames != config.num_frames:
            raise ModelInputError(
                f"{name} takes clips of {config.num_frames} frames, for which it learnt positions, and {frames} came: "
                f"pass num_frames={config.num_frames}, or leave it out; or load it with AutoModel after "
                "`import hf_video`, which interpolates positions."
            )
        return {}
    depth, *patch = config.tubelet_size if config.model_type.startswith("videoprism") else (
        config.tubelet_size, *pair(config.patch_size))  # fmt: skip
    if frames % depth:
        raise ModelInputError(f"{name} joins {depth} frames to one: {frames} leave a rest. Pass an even num_frames=.")
    if any(side % part for side, part in zip(size, patch, strict=True)):
        raise ModelInputError(
            f"{name} cuts frames into patches of {'x'.join(map(str, patch))} pixels: {size[0]}x{size[1]} leave a rest. "
            "Give the processor a size and crop_size that are multiples of them."
        )
    if config.model_type.startswith("vjepa2") or (frames, *size) == (config.num_frames, *pair(config.image_size)):
        return {}
    logger.warning_once(
        f"{name} was made for {config.num_frames} frames of {config.image_size} pixels, and {frames} of "
        f"{size[0]}x{size[1]} came: its positions are interpolated."
    )
    return {"interpolate_pos_encoding": True}


def clip_logits(model: Any, output: Any) -> torch.Tensor:
    """The logits (B, classes) in what a classifier gave, some of which have (B, 1, classes). Raises CheckpointError
    where there are none."""
    logits = getattr(output, "logits", None)
    if logits is None:
        raise CheckpointError(
            f"{type(model).__name__} gives no logits. Load the model with AutoModelForVideoClassification."
        )
    return logits.flatten(1) if logits.ndim == 3 and logits.shape[1] == 1 else logits
