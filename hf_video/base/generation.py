"""Models that write about videos: the processor of each, whether the two fit, and inputs made of exact frames.

Two kinds are known. Chat models (SmolVLM, Qwen-VL, LLaVA-OneVision, InternVL, …) have a processor that takes videos;
its chat template makes the prompt, and many put the seconds of the frames into it. GIT (Wang et al. 2022) continues a
text after the frames; it has neither template nor video processor, and needs no torchvision.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import AutoProcessor, GenerationConfig, PreTrainedModel, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoMetadata

from hf_video.base.processing import ClipProcessing
from hf_video.base.processing_stock import Door, stock_class, values_of
from hf_video.errors import CheckpointError, VideoOptionError, unknown_name

DEFAULT_FRAMES = 8  # where neither processor nor model says how many
# Of a frame's number divided by the rate against its time: a container that counts milliseconds is off by half of one.
SAME_SECONDS = 1e-3


class SeenVideo(VideoMetadata):
    """What a processor is told of a video: which of its frames it gets and when they are shown.

    Processors know the time of a frame only as `frames_indices / fps`. Where frames are not shown at a steady rate from
    0 on, their numbers would give wrong seconds; the positions that give the right ones at the video's mean rate, which
    then are no whole numbers, stand in their place.

    Args:
        indices, seconds: (T,), the frames and when they are shown.
        num_frames, fps, duration: Of the whole video; frames, frames per second and seconds.
        size: Height and width of its frames in pixels.
        length: Seconds of the stretch that the frames were chosen from.
    """

    def __init__(
        self,
        indices: np.ndarray,
        seconds: np.ndarray,
        *,
        num_frames: int,
        fps: float,
        duration: float,
        size: tuple[int, int],
        length: float,
    ):
        steady = np.abs(indices / fps - seconds).max() <= SAME_SECONDS
        super().__init__(
            total_num_frames=num_frames,
            fps=fps,
            duration=duration,
            height=size[0],
            width=size[1],
            frames_indices=(indices if steady else seconds * fps).tolist(),
        )
        self._length, self._seconds = length, seconds

    @property
    def sampled_fps(self) -> float:
        """Frames of the clip in a second. Stock divides by the length of the whole video, of which the clip may be a
        window."""
        count, span = len(self._seconds), float(self._seconds[-1] - self._seconds[0])
        neighbours = 0 < span < self._length / 2 and count > 2  # not spread over the stretch
        return (count - 1) / span if neighbours else count / self._length


class ChatWriter:
    """A processor that takes videos, with its model."""

    prompt: str | None = "Describe what happens in this video."

    def __init__(self, model: PreTrainedModel, processor: Any):
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.video_token: str | None = getattr(processor, "video_token", None)
        if self.video_token is not None and not _knows(self.tokenizer, self.video_token):
            raise CheckpointError(
                f"The tokenizer of {_name(processor)} has no token {self.video_token!r}, which stands for a video. "
                "Load the processor that was saved with the model."
            )
        for kind in ("image_token_id", "video_token_id"):
            theirs, ours = getattr(processor, kind, None), getattr(model.config, kind, None)
            if None not in (theirs, ours) and theirs != ours:
                raise CheckpointError(
                    f"{_name(processor)} has {kind}={theirs} and {_name(model)} (config.json) {ours}: they were not "
                    "made for each other. Load the processor that was saved with the model."
                )
        self._prompt(str(self.prompt))  # whether there is a place for the video

    @property
    def sampling(self) -> dict[str, Any]:
        """How many frames of a stretch the video processor's file asks for: at `most`, `fps` for each second but at
        `least`, and a `multiple`, those that it has."""
        video = self.processor.video_processor
        found = {"fps": "fps", "least": "min_frames", "multiple": "temporal_patch_size"}
        settings = {ours: getattr(video, theirs, None) for ours, theirs in found.items()}
        settings["most"] = getattr(video, "num_frames", None) or getattr(video, "max_frames", None)
        if settings["fps"] is None and getattr(video, "num_frames", None) is None:
            settings["most"] = DEFAULT_FRAMES
        return {name: value for name, value in settings.items() if value}

    def check(self, num_frames: int | None) -> None:
        """Any number of frames will do."""

    def inputs(self, frames: np.ndarray, seen: SeenVideo, prompt: str | None) -> dict[str, Any]:
        """Model inputs of a clip (T, H, W, 3) uint8 and of what is asked. Raises CheckpointError and
        VideoOptionError."""
        text = self._prompt(prompt or "")
        # As `apply_chat_template(tokenize=True)` does: a template that writes the first token needs no second.
        first = self.tokenizer.bos_token
        more: dict[str, Any] = {"add_special_tokens": False} if first is not None and text.startswith(first) else {}
        if not isinstance(self.processor.video_processor, ClipProcessing):  # ours write no seconds
            more["video_metadata"] = [seen]
        planes = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
        made = self.processor(text=[text], videos=[planes], do_sample_frames=False, return_tensors="pt", **more)
        return dict(made)

    def _prompt(self, text: str) -> str:
        if self.video_token is not None and self.video_token in text:
            raise VideoOptionError(f"{text!r} holds {self.video_token!r}, in whose place the video goes. Leave it out.")
        content = [{"type": "video"}, {"type": "text", "text": text}]
        chat = [{"role": "user", "content": content}]
        if not self.has_template:
            if self.video_token is None:
                raise CheckpointError(f"{_name(self.processor)} has neither a chat template nor a token for videos.")
            return f"{self.video_token}\n{text}"
        prompt: str = self.processor.apply_chat_template(chat, add_generation_prompt=True)
        if self.video_token is not None and prompt.count(self.video_token) != 1:
            raise CheckpointError(
                f"The chat template of {_name(self.processor)} puts {prompt.count(self.video_token)} times "
                f"{self.video_token!r} into a prompt with one video: it is made for images, or damaged. Give the "
                "processor another chat_template."
            )
        return prompt

    @property
    def has_template(self) -> bool:
        # SmolVLM's processor has one for videos in its own code.
        own = "apply_chat_template" in vars(type(self.processor))
        return own or getattr(self.processor, "chat_template", None) is not None


class GitWriter:
    """GIT: frames, each with the embedding of its place in the clip, then text."""

    prompt: str | None = None

    def __init__(self, model: PreTrainedModel, processor: Any):
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.most: int | None = model.config.num_image_with_embedding
        self.name = _name(model)
        if self.tokenizer.cls_token_id is None:
            raise CheckpointError(f"The tokenizer of {_name(processor)} has no cls_token, which begins GIT's texts.")

    @property
    def sampling(self) -> dict[str, Any]:
        """As many frames as there are embeddings; one for a GIT of images."""
        return {"most": self.most or 1}

    def check(self, num_frames: int | None) -> None:
        """Raises VideoOptionError for more frames than the model has embeddings for."""
        if num_frames is not None and num_frames > (self.most or 1):
            why = f"has embeddings for {self.most} frames" if self.most else "was made for images, and sees one frame"
            raise VideoOptionError(f"num_frames={num_frames}: {self.name} {why} (num_image_with_embedding).")

    def inputs(self, frames: np.ndarray, seen: SeenVideo, prompt: str | None) -> dict[str, Any]:
        """As `ChatWriter.inputs`."""
        made = self.processor.image_processor(list(frames), return_tensors="pt", input_data_format="channels_last")
        pixels = made["pixel_values"]
        inputs = {"pixel_values": pixels[None] if self.most else pixels}
        if prompt:
            words = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
            inputs["input_ids"] = torch.tensor([[self.tokenizer.cls_token_id, *words]])
        return inputs


Writer = ChatWriter | GitWriter


def find_writer(model: PreTrainedModel, processor: Any) -> Writer:
    """What makes a model's inputs of frames and prompts.

    Args:
        model: One that generates text.
        processor: Its own, or None for the one beside the model's weights.

    Raises:
        CheckpointError: The model writes no text or sees nothing, its processor is missing, needs a package that isn't
            there, takes no videos, or belongs to another model.
    """
    sees = {"image", "video"} & set(np.atleast_1d(getattr(model, "input_modalities", ())).tolist())
    if not model.can_generate() or not sees:
        lacks = "takes no images or videos" if model.can_generate() else "writes no text"
        raise CheckpointError(
            f"{_name(model)} {lacks}. Use GIT (microsoft/git-base-vatex), or a model of AutoModelForImageTextToText "
            "whose processor takes videos: SmolVLM, Qwen2.5-VL, Qwen3-VL, LLaVA-OneVision, InternVL."
        )
    processor = _load_processor(model) if processor is None else processor
    git = model.config.model_type == "git"
    lacking = {"tokenizer": "no tokenizer", "image_processor" if git else "video_processor": "no video processor"}
    for part, words in lacking.items():
        if getattr(processor, part, None) is None:
            only = (
                " It takes images only." if part == "video_processor" and hasattr(processor, "image_processor") else ""
            )
            raise CheckpointError(
                f"{_name(processor)} has {words}, and {_name(model)} needs one to write about videos.{only} Load the "
                "processor that was saved with the model, or another model."
            )
    made_for = PROCESSOR_MAPPING_NAMES.get(model.config.model_type)
    if made_for is not None and made_for not in [kind.__name__ for kind in type(processor).__mro__]:
        raise CheckpointError(f"{_name(processor)} is no processor for {_name(model)}, which takes a {made_for}.")
    rows = model.get_input_embeddings().weight.shape[0]
    if len(processor.tokenizer) > rows:
        raise CheckpointError(
            f"The tokenizer of {_name(processor)} has {len(processor.tokenizer)} tokens, {_name(model)} knows {rows}. "
            "Load the processor that was saved with the model."
        )
    return (GitWriter if git else ChatWriter)(model, processor)


def _load_processor(model: PreTrainedModel) -> ProcessorMixin:
    origin = getattr(model, "name_or_path", "")
    if not origin:
        raise CheckpointError(f"{_name(model)} was loaded from no folder: pass its processor=.")
    try:
        if not is_torchvision_available():
            _admit_plain_processor(model, origin)
        return AutoProcessor.from_pretrained(origin)
    except ImportError as error:
        raise CheckpointError(missing_package(origin, error)) from error
    except Exception as error:  # whatever processors and tokenizers raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"No processor was found beside the model in {origin!r} ({reason}). Save it there "
            "(processor.save_pretrained), or pass processor=."
        ) from error


def _admit_plain_processor(model: PreTrainedModel, origin: str) -> None:
    """Has AutoProcessor read a video processor that only resizes, crops, rescales and normalises (LLaVA-OneVision's,
    LLaVA-NeXT-Video's, Video-LLaVA's) as one of ours with its values, which needs no torchvision. Raises ImportError
    for one with other steps."""
    try:
        name = VideoProcessorMixin.get_video_processor_dict(origin)[0].get("video_processor_type")
    except OSError:
        return  # GIT has none, and other folders say so themselves
    if name is None:
        return
    try:
        values_of(stock_class(name)())
    except CheckpointError as error:
        raise ImportError(f"{name} requires torchvision.") from error
    door = type(name, (Door,), {})
    VIDEO_PROCESSOR_MAPPING.register(type(model.config), {"pil": door, "torchvision": door}, exist_ok=True)


def missing_package(origin: str, error: ImportError) -> str:
    """What to install where a processor can't be made; torch and torchvision go in pairs."""
    reason = " ".join(str(error).split())
    if is_torchvision_available() or "torchvision" not in reason.lower():
        return f"The processor in {origin!r} needs a package that isn't there: {reason}"
    minor = int(torch.__version__.split(".")[1]) + 15  # torch 2.0 goes with torchvision 0.15, 2.14 with 0.29
    return (
        f"The processor in {origin!r} needs torchvision ({reason.split('.')[0]}). torch {torch.__version__} goes with "
        f"torchvision 0.{minor}: pip install 'torchvision==0.{minor}.*' from the index that torch came from, or both "
        "anew (https://pytorch.org). GIT (microsoft/git-base-vatex) writes without it."
    )


def _knows(tokenizer: Any, token: str) -> bool:
    number = tokenizer.convert_tokens_to_ids(token)
    return number is not None and (number != tokenizer.unk_token_id or token == tokenizer.unk_token)


def _name(thing: object) -> str:
    origin = getattr(thing, "name_or_path", "")
    return f"{type(thing).__name__}{f' in {origin!r}' if origin else ''}"


def fitting(inputs: Mapping[str, Any], model: PreTrainedModel) -> dict[str, Any]:
    """Inputs on the model's device, pixels in its precision. Seconds keep theirs: half of it would move them."""
    tensors = {name: value.to(model.device) for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    pixels = {
        n: v.to(model.dtype) for n, v in tensors.items() if n.startswith("pixel_values") and v.is_floating_point()
    }
    return {**inputs, **tensors, **pixels}


def check_generate_options(model: PreTrainedModel, options: Mapping[str, Any]) -> None:
    """Raises VideoOptionError for an option that `model.generate` has not, and for more texts than there is a place for
    in a result."""
    known = {*vars(GenerationConfig()), *inspect.signature(model.generate).parameters} - {"kwargs", "inputs"}
    for name in options:
        if name not in known:
            raise VideoOptionError(unknown_name("model.generate has no option", name, sorted(known)))
    if (count := options.get("num_return_sequences") or 1) != 1:
        raise VideoOptionError(f"num_return_sequences={count}: a result has one text. Leave it out.")
