"""Loads the very class that was saved, also where no Auto class stands for it. `auto` names it to pipelines, so that
nothing here imports torch or transformers before a model is loaded."""

from __future__ import annotations

from typing import Any

from hf_video.errors import CheckpointError
from hf_video.registry import DETECTORS, MODELS


class SavedVideoModel:
    """`from_pretrained` gives a model of the very class that was saved, where that is one of ours (its `config.json`
    names it), and for others a classifier where one was saved, or what `AutoModel` gives."""

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> Any:
        from transformers import AutoConfig

        where = ("revision", "token", "cache_dir", "subfolder", "local_files_only", "trust_remote_code")
        config = AutoConfig.from_pretrained(name, **{key: options[key] for key in where if key in options})
        model = (MODELS | DETECTORS).get(config.model_type)
        saved = (config.architectures or [""])[0]
        chosen = model.load(saved) if model is not None and saved in model.class_names else cls.auto_class(saved)
        try:
            return chosen.from_pretrained(name, **options)
        except ImportError as error:
            from hf_video.base.loading import explain_load_failure

            raise CheckpointError(explain_load_failure(name, error)) from error

    @classmethod
    def auto_class(cls, saved: str) -> Any:
        """The Auto class for a model that is none of ours; `saved` is the class that `config.json` names."""
        from transformers import AutoModel, AutoModelForVideoClassification

        return AutoModelForVideoClassification if "ForVideoClassification" in saved else AutoModel


def joins_images_and_texts(model: Any) -> bool:
    """Whether a model of transformers, or its class, embeds images and texts and knows nothing of videos (CLIP, SigLIP
    and their kin), nor writes."""
    embeds = (hasattr(model, f"get_{one}_features") for one in ("image", "text"))
    return all(embeds) and not hasattr(model, "get_video_features") and not model.can_generate()


def as_video_model(model: Any) -> Any:
    """A model of images and texts as a `VideoCLIPModel`, which averages the frames' vectors; others as they are."""
    if not joins_images_and_texts(model):
        return model
    video_model = MODELS["videoclip"].load("VideoCLIPModel").from_clip(model)
    video_model.name_or_path = model.name_or_path
    return video_model.to(model.device)


class SavedWriter(SavedVideoModel):
    """As `SavedVideoModel`, with the head that writes text of models that are none of ours."""

    @classmethod
    def auto_class(cls, saved: str) -> Any:
        from transformers import AutoModelForImageTextToText
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

        # Of all others the bare model is loaded, so that the pipeline can say what is wrong with them.
        writers = {*MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()}
        return AutoModelForImageTextToText if saved in writers else super().auto_class(saved)
