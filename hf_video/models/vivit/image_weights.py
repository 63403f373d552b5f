"""A ViViT that starts from an image model (section 3.4 of the paper)."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from hf_video.base.configuration import pair
from hf_video.base.convert import StateDict
from hf_video.errors import CheckpointError
from hf_video.layers.embeddings import resize_grid
from hf_video.models.vivit.configuration_vivit import VivitConfig
from hf_video.models.vivit.convert_vivit import vit_names
from hf_video.models.vivit.embeddings import at_central_frame
from hf_video.models.vivit.modeling_vivit import VivitForVideoClassification, VivitPreTrainedModel

SHARED_FIELDS = (
    "image_size", "num_channels", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "hidden_act", "layer_norm_eps", "qkv_bias",
)  # fmt: skip


def from_image_model(
    image_model: PreTrainedModel,
    *,
    model_class: type[VivitPreTrainedModel] = VivitForVideoClassification,
    tubelet_frames: int = 2,
    **config_values: Any,
) -> VivitPreTrainedModel:
    """A ViViT with the weights of an image ViT, as the authors start all of theirs (ImageNet-21k).

        vit = transformers.ViTModel.from_pretrained("google/vit-base-patch16-224-in21k")
        model = from_image_model(vit, num_frames=32, num_labels=400)

    Tubelet filters (D, C, t, p, q) are the image's at the central frame, t // 2, and zero elsewhere (equation 9), and
    positions are the image's, interpolated to the new size and the same at all times. So a clip is at first seen as its
    central frames are by the image model. Of the four models
        1, 4: blocks are the image's;
        2: the first transformer is the image model, the second starts anew;
        3: spatial attention is the image's, temporal attention too but for its output projection, which is zero, so
           that it adds nothing at first. (With all of its weights at zero, as the paper says, no gradient would ever
           reach them.)
    The classifier starts anew; models 3 and 4 leave the class token out.

    Args:
        image_model: a transformers `ViTModel`, or a model with one inside (`ViTForImageClassification`).
        model_class: `VivitForVideoClassification` or `VivitModel`.
        tubelet_frames: frames of a tubelet.
        config_values: fields of `VivitConfig` that differ from the image model's: `num_frames`, `num_labels`,
            `attention_type`, `image_size`, …

    Returns:
        The model, in eval mode, float32.

    Raises:
        CheckpointError: `image_model` is no ViT, or its tensors don't fit; all of them are named.
    """
    source = image_model.config
    if source.model_type != "vit":
        raise CheckpointError(f"from_image_model takes a ViT (model_type vit), and this is {source.model_type!r}.")
    values = {name: getattr(source, name) for name in SHARED_FIELDS}
    patch = pair(source.patch_size, "patch_size")
    values |= {"tubelet_size": [tubelet_frames, *patch], "tubelet_initializer": "central_frame"}
    model = model_class(VivitConfig(**{**values, **config_values}))
    height, width = pair(source.image_size)
    state = image_state(image_model.base_model.state_dict())
    copy_weights(model.base_model, state, (height // patch[0], width // patch[1]))
    return model.eval()


def image_state(state: StateDict) -> StateDict:
    """A ViT's tensors under the names of files, without its pooler and what only other tasks have."""
    state = vit_names(state)
    return {key: value for key, value in state.items() if not key.startswith("pooler.") and "mask_token" not in key}


@torch.no_grad()
def copy_weights(model: VivitPreTrainedModel, state: StateDict, image_grid: tuple[int, int]) -> None:
    """Fills a `VivitModel` from `image_state`; raises CheckpointError for what is missing or of another shape."""
    t, rows, columns = model.config.grid
    state = dict(state)
    table = state.pop("embeddings.position_embeddings")
    places = resize_grid(table[:, 1:], image_grid, (rows, columns)).repeat(1, 1 if model.two_stages else t, 1)
    if model.config.has_class_token:
        places = torch.cat([table[:, :1], places], dim=1)
    else:
        state.pop("embeddings.cls_token")
    state["embeddings.position_embeddings"] = places
    filters = state["embeddings.patch_embeddings.projection.weight"]
    state["embeddings.patch_embeddings.projection.weight"] = at_central_frame(filters, model.config.patch[0])
    ours = model.state_dict()
    if model.config.attention_type == "factorized_self_attention_block":
        state |= temporal_attention(state)
    anew = {key for key in ours if key.startswith(("temporal_", "pooler."))}
    problems = sorted(set(state) ^ (set(ours) - anew))
    problems += sorted(key for key in set(state) & set(ours) if state[key].shape != ours[key].shape)
    if problems:
        raise CheckpointError(
            "The image model does not fit the video model. Tensors that one of them lacks, or of other shapes:\n  "
            + "\n  ".join(problems)
            + "\nWidth, depth, heads and patch are the image model's; don't pass others."
        )
    for key, value in state.items():
        ours[key].copy_(value)


def temporal_attention(state: StateDict) -> StateDict:
    """Model 3's temporal attention: the spatial one's weights and norm, and an output projection of zero."""
    temporal: StateDict = {}
    for key, value in state.items():
        if ".attention." in key:
            new = key.replace(".attention.", ".temporal_attention.", 1)
            temporal[new] = torch.zeros_like(value) if ".output." in key else value
        elif ".layernorm_before." in key:
            temporal[key.replace("layernorm_before", "temporal_layernorm")] = value
    return temporal
