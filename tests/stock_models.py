"""Tiny models of transformers' own, every weight random, saved as transformers saves them, with the processors' files
that it writes where torchvision is there (transformers 5.24)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from contract import randomise
from tiny_text import tiny_tokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

LABELS = ("archery", "bowling", "cricket", "diving", "eating")
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
OPENAI = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
SCALE = {"do_rescale": True, "rescale_factor": 1 / 255, "do_resize": True, "return_metadata": False}
PROCESSORS = {
    "vjepa2": {
        **(IMAGENET | SCALE),
        "crop_size": {"height": 16, "width": 16},
        "do_center_crop": True,
        "do_normalize": True,
        "resample": 2,
        "size": {"shortest_edge": 18},
        "video_processor_type": "VJEPA2VideoProcessor",
    },
    "videoprism": {
        **(OPENAI | SCALE),
        "do_convert_rgb": True,
        "do_normalize": False,
        "do_sample_frames": True,
        "resample": 3,
        "size": {"height": 16, "width": 16},
        "video_processor_type": "LlavaOnevisionVideoProcessor",
    },
    "xclip": {
        **(IMAGENET | SCALE),
        "crop_size": {"height": 16, "width": 16},
        "do_center_crop": True,
        "do_normalize": True,
        "resample": 2,
        "size": {"shortest_edge": 16},
        "image_processor_type": "VideoMAEImageProcessor",
    },
}


def vjepa2_config(**changes) -> transformers.VJEPA2Config:
    sizes = {"patch_size": 8, "crop_size": 16, "frames_per_clip": 4, "hidden_size": 16, "num_hidden_layers": 1}
    predictor = {"pred_hidden_size": 16, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_pooler_layers": 1, "mlp_ratio": 2.0}
    return transformers.VJEPA2Config(**{**sizes, **predictor, **heads, **_labels(), **changes})


def videoprism_config(**changes) -> transformers.VideoPrismVisionConfig:
    sizes = {"image_size": 16, "num_frames": 4, "tubelet_size": [1, 8, 8], "hidden_size": 16, "intermediate_size": 32}
    layers = {"num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1, "num_attention_heads": 2}
    return transformers.VideoPrismVisionConfig(**{**sizes, **layers, **_labels(), **changes})


def xclip_config(**changes) -> transformers.XCLIPConfig:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {"image_size": 16, "patch_size": 8, "num_frames": 4, "mit_hidden_size": 16, "mit_intermediate_size": 32}
    vision |= {"mit_num_hidden_layers": 1, "mit_num_attention_heads": 2, **sizes, **changes}
    text = {"vocab_size": 60, "max_position_embeddings": 16, "eos_token_id": 2, **sizes}
    prompts = {"projection_dim": 16, "prompt_layers": 1, "prompt_num_attention_heads": 2}
    return transformers.XCLIPConfig(vision_config=vision, text_config=text, **prompts)


def videoprism_clip_config() -> transformers.VideoPrismConfig:
    text = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 12}
    return transformers.VideoPrismConfig(vision_config=videoprism_config().to_dict(), text_config=text)


def _labels() -> dict[str, dict]:
    return {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}


def stock(name: str):
    """transformers' own class, whatever stands in the Auto classes."""
    module = {"VJEPA2": "vjepa2", "VideoPrism": "videoprism", "XCLIP": "x_clip"}
    folder = next(there for prefix, there in module.items() if name.startswith(prefix))
    return getattr(getattr(getattr(transformers.models, folder), f"modeling_{folder}"), name)


def save_video_text(folder: Path, kind: str) -> Path:
    """A stock "xclip" or "videoprism" of video and text, with its processor in one file, as transformers 5 saves it."""
    made = {"xclip": ("XCLIPModel", xclip_config), "videoprism": ("VideoPrismClipModel", videoprism_clip_config)}
    name, config = made[kind]
    model = randomise(stock(name)(config()))
    if kind == "xclip":
        model.logit_scale.data.fill_(2.0)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    half, whole = ("image", "XCLIPProcessor") if kind == "xclip" else ("video", "VideoPrismProcessor")
    file = {f"{half}_processor": PROCESSORS[kind], "processor_class": whole}
    (folder / "processor_config.json").write_text(json.dumps(file))
    return folder


def save_encoder(folder: Path, kind: str) -> Path:
    """A stock "vjepa2" or "videoprism" encoder without a head."""
    made = {"vjepa2": ("VJEPA2Model", vjepa2_config), "videoprism": ("VideoPrismVisionModel", videoprism_config)}
    name, config = made[kind]
    randomise(stock(name)(config())).save_pretrained(folder)
    (folder / "video_preprocessor_config.json").write_text(json.dumps(PROCESSORS[kind]))
    return folder


def save_classifier(folder: Path, kind: str, *, file: str = "video_preprocessor_config.json") -> Path:
    """A stock "vjepa2" or "videoprism" classifier with its processor's `file`."""
    made = {
        "vjepa2": ("VJEPA2ForVideoClassification", vjepa2_config),
        "videoprism": ("VideoPrismForVideoClassification", videoprism_config),
    }
    name, config = made[kind]
    randomise(stock(name)(config())).save_pretrained(folder)
    (folder / file).write_text(json.dumps(PROCESSORS[kind]))
    return folder


class NewConfig(transformers.PreTrainedConfig):
    model_type = "next_month"
    frames_per_clip: int = 4


class NewForVideoClassification(transformers.PreTrainedModel):
    """As a model of the next version may look: other names, logits (B, 1, classes)."""

    config_class = NewConfig
    main_input_name = "pixel_values_videos"

    def __init__(self, config):
        super().__init__(config)
        self.classifier = torch.nn.Linear(3, config.num_labels)
        self.post_init()

    def forward(self, pixel_values_videos, labels=None):
        logits = self.classifier(pixel_values_videos.mean((1, 3, 4)))[:, None]
        return transformers.modeling_outputs.ImageClassifierOutput(logits=logits)


def save_new(folder: Path, monkeypatch) -> NewForVideoClassification:
    """A small model of that class, registered for the test alone, with a processor's file."""
    auto = transformers.AutoModelForVideoClassification
    for mapping in (auto._model_mapping, CONFIG_MAPPING):
        monkeypatch.setattr(mapping, "_extra_content", dict(mapping._extra_content))
    transformers.AutoConfig.register("next_month", NewConfig)
    auto.register(NewConfig, NewForVideoClassification)
    model = NewForVideoClassification(NewConfig(num_labels=3)).eval()
    model.save_pretrained(folder)
    file = {**PROCESSORS["vjepa2"], "video_processor_type": "VideomtVideoProcessor"}  # any that transformers has
    (folder / "video_preprocessor_config.json").write_text(json.dumps(file))
    return model
