"""What tells encoders apart: 16 hex digits of weights, and of the configurations and processors that vectors depend on.

A field of its class's default value does not count, so that a class may get further fields and what was saved before
stays valid. Version 0.1.0 counted all fields that it had; its digests are known too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedConfig

from hf_video.base.configuration import BoxHeadConfig

if TYPE_CHECKING:
    from typing import TypeAlias

    from hf_video.data.types import FrameProcessor

    Owner: TypeAlias = PreTrainedConfig | FrameProcessor

NOT_COUNTED = {
    *("_name_or_path", "transformers_version", "_commit_hash", "dtype", "processor_class", "architectures"),
    *BoxHeadConfig.__annotations__,  # of a head, which no vector of a clip sees
}
KIND = {"model_type", "image_processor_type", "video_processor_type"}
FIELDS_OF_0_1_0 = """
alpha any_grid architecture attention_probs_dropout_prob attention_type batch_norm_eps batch_norm_momentum beta_inverse
bottleneck_factor classifier_dropout cosine_attention crop_size decoder_hidden_size decoder_intermediate_size
decoder_num_attention_heads decoder_num_hidden_layers depth_factor depths dim_mul dim_mul_in_attention do_center_crop
do_flip_channel_order do_horizontal_flip do_normalize do_rescale do_resize do_sample_frames drop_path_rate embed_dim
end_token_ids fast_kernels fast_pathway fc_size feature_dim flow_bound flow_length flow_mean flow_method flow_std
frozen_batch_norm fusion fusion_kernel fusion_ratio fusion_scores fusion_weights gating head_mul head_norm_eps head_pool
head_size hidden_act hidden_dropout_prob hidden_size image_mean image_processor_type image_size image_std initializer
initializer_range intermediate_size kernel_blocks layer_norm_eps logit_bias_init_value logit_scale_init_value
logit_scale_max loss mask_probability mask_token_id matching_negatives matching_temperature max_frames max_patches
max_position_embeddings max_segments mlp_ratio nonlocal_blocks nonlocal_normalization nonlocal_pool norm_pix_loss
normalize num_attention_heads num_channels num_crops num_frames num_heads num_hidden_layers num_temporal_layers offset
patch_frames patch_kernel patch_norm patch_size patch_stride pool5_padding pool_kernel pool_kv_stride
pool_kv_stride_adaptive pool_q_stride pooler_act pooler_output_size position_grid projection_dim qkv_bias qv_bias
rel_pos_spatial rel_pos_temporal resample rescale_factor residual_pooling retrieval_loss sampler sampler_options
se_ratio segment_frames size slow_kernels space_to_depth spatial_config spatial_dilations spatial_strides
special_token_ids stem_channels stem_temporal_kernel streams temporal temporal_config temporal_kernels temporal_layers
temporal_pool temporal_stride text_config text_pooling time_embedding_init_std tubelet_initializer tubelet_size
use_absolute_positions use_mean_pooling video_config visual_vocab_size width_factor window_size
"""


def weights_digest(model: torch.nn.Module) -> str:
    """Computes 16 hex digits from every tensor's name and bytes, which tell weights apart."""
    seen = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        seen.update(name.encode())
        seen.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return seen.hexdigest()


def left_out(config: PreTrainedConfig) -> dict[str, float]:
    """What tells models of the same weights apart: `static_threshold`, where a model leaves out static patches."""
    drops = getattr(config, "static_patches", "keep") == "drop"
    return {"static_threshold": config.static_threshold} if drops else {}


def facts_digest(facts: object) -> str:
    """Computes 16 hex digits from what JSON can hold."""
    return hashlib.blake2b(json.dumps(facts, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def changed_fields(owner: Owner) -> dict[str, Any]:
    """The fields of a configuration or processor, and of the configurations in it, that differ from the defaults of
    their class, and which class it is; without where it came from and who wrote it."""
    return _fields(owner, lambda _: KIND)


def fields_of_0_1_0(owner: Owner) -> dict[str, Any]:
    """The fields that version 0.1.0 counted: those that it had, all of other packages' classes, and what differs from
    the defaults."""
    known = {*FIELDS_OF_0_1_0.split(), *PreTrainedConfig().to_dict()}
    return _fields(owner, lambda one: known if type(one).__module__.startswith("hf_video.") else one.to_dict())


def _fields(owner: Owner, always: Callable[[Owner], Container[str]]) -> dict[str, Any]:
    """The fields that count whatever their value is, and those that differ from the default."""
    try:
        default = type(owner)().to_dict()
    except (TypeError, ValueError):  # made of other configurations, without which there is none
        default = {}
    counted, found = always(owner), {}
    for name, value in owner.to_dict().items():
        inner = getattr(owner, name, None)
        if name in NOT_COUNTED:
            continue
        if isinstance(inner, PreTrainedConfig):
            found[name] = _fields(inner, always)
        elif name in counted or name not in default or _counted(default[name]) != _counted(value):
            found[name] = _counted(value)
    return found


def _counted(value: object) -> object:
    if isinstance(value, dict):
        return {str(name): _counted(one) for name, one in value.items() if name not in NOT_COUNTED}
    return [_counted(one) for one in value] if isinstance(value, (list, tuple)) else value
