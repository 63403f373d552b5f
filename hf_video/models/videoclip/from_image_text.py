"""From an image-text checkpoint (CLIP, SigLIP and their kin) to a video model and its processor, in one call."""

from __future__ import annotations

import os
from typing import Any

from hf_video.errors import CheckpointError
from hf_video.models.videoclip.image_processing_videoclip import VideoCLIPImageProcessor
from hf_video.models.videoclip.modeling_videoclip import VideoCLIPModel
from hf_video.models.videoclip.processing_videoclip import VideoCLIPProcessor

PIXELS = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std",
)  # fmt: skip


def video_clip(
    name: str | os.PathLike[str],
    *,
    temporal: str = "mean",
    num_frames: int = 12,
    revision: str | None = None,
    **options,
) -> tuple[VideoCLIPModel, VideoCLIPProcessor]:
    """A video model out of an image-text checkpoint, and the processor that prepares videos and texts for it.

        model, processor = hf_video.video_clip("openai/clip-vit-base-patch32")
        for part in (model, processor):
            part.save_pretrained("my-clip")

    Args:
        name: a name on the Hub or a folder of CLIP, SigLIP or a model like them; or of a saved `VideoCLIPModel`, which
            is loaded as it is.
        temporal: what joins the frames' vectors, see `VideoCLIPConfig`; all but "mean" need training.
        num_frames: frames that the processor takes of a video, 1 or more.
        revision: branch, tag or commit on the Hub.
        options: other fields of `VideoCLIPConfig`.

    Returns:
        The model, in eval mode, and its processor. Size, crop, filter and statistics of frames are those of the
        checkpoint's own `preprocessor_config.json`, the tokenizer is its own, and texts are padded as it needs them.

    Raises:
        CheckpointError: the checkpoint has no such file, or no tokenizer.
        ModelInputError: it is no model of images and texts.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    where = {"revision": revision}
    if AutoConfig.from_pretrained(name, **where).model_type == VideoCLIPModel.config_class.model_type:
        return VideoCLIPModel.from_pretrained(name, **where).eval(), VideoCLIPProcessor.from_pretrained(name, **where)
    pixels = frame_settings(name, **where)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **where)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name} has no tokenizer that can be read: {_first_line(error)}") from error
    statistics = {key: pixels[key] for key in ("image_mean", "image_std") if pixels.get("do_normalize", True)}
    stock = AutoModel.from_pretrained(name, **where)
    model = VideoCLIPModel.from_clip(stock, temporal=temporal, num_frames=num_frames, **{**statistics, **options})
    model.name_or_path = model.config.name_or_path = str(name)
    images = VideoCLIPImageProcessor(**pixels, num_frames=num_frames)
    return model, VideoCLIPProcessor(images, tokenizer, text_padding=model.text_padding)


def frame_settings(name: str | os.PathLike[str], **where: Any) -> dict[str, Any]:
    """How an image-text checkpoint wants its pictures, from its own file, old or new. Raises CheckpointError."""
    from transformers import AutoImageProcessor

    try:
        stock = AutoImageProcessor.from_pretrained(name, **where)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{name} has no preprocessor_config.json that can be read, so the size and the statistics of its pictures "
            f"aren't known: {_first_line(error)}. Make the two halves by hand: VideoCLIPModel.from_clip, and "
            "VideoCLIPProcessor(VideoCLIPImageProcessor(size=..., crop_size=..., image_mean=..., image_std=...), "
            "tokenizer)."
        ) from error
    found = stock.to_dict()
    given = {key: found[key] for key in PIXELS if found.get(key) is not None}
    missing = [key for key in ("size", "image_mean", "image_std") if key not in given]
    if missing:
        raise CheckpointError(
            f"{name}: its {type(stock).__name__} says nothing of {', '.join(missing)}; it doesn't make pictures of one "
            "size, as a video model's frames must be."
        )
    return {"do_center_crop": False, **given}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
