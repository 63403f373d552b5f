"""Which places of a clip an answer rests on: attention rollout and Grad-CAM.

Rollout follows Abnar & Zuidema, "Quantifying Attention Flow in Transformers" (2020, section 3): an attention with its
skip connection is the matrix 0.5 A + 0.5 I, A the mean over heads; the matrices of all layers are multiplied, and the
row of what is classified says how much of it comes from each token. Where attention is divided, A is what the model
computes: a patch attends to its own place at other times, then to its own time's other places, each with a skip
connection. Only attention is followed, not the layers' values, MLPs and norms.

Grad-CAM follows Selvaraju et al. (2017, equations 1 and 2): activations weighted by the mean gradient of the class's
score, negative sums left out. Of convolutions and of transformers that average tokens it is taken at the last map; of
those with a class token at the input of the last block, behind which patches no longer count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_video.base.exported import refuse_exported
from hf_video.base.modeling import clip_logits, inputs_for
from hf_video.errors import CheckpointError, VideoOptionError, is_whole

Step = Callable[[torch.Tensor], torch.Tensor]


def attention_rollout(model: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """How much attention carries from each place of a clip to the answer.

    Args:
        model: TimeSformer, ViViT, VideoMAE, V-JEPA 2 or VideoPrism, a classifier or an encoder, in eval mode.
        pixel_values: Clips (B, T, C, H, W), as the processor makes them.

    Returns:
        Shares (B, t, h, w), float32, of the model's own grid of patches or tubelets. Of models that classify from a
        class token they sum to less than 1: the rest comes from that token itself. Where a learned pooling follows
        (V-JEPA 2, VideoPrism) every token counts alike at the top, as in a mean.

    Raises:
        CheckpointError: The model has no attention from each place to each other (convolutions, windows, pooled
            attention), is of another library, or an export.
    """
    if hasattr(model, "graphs"):
        refuse_exported(model.folder, "asked for attentions")
    rule = _RULES.get(getattr(model.config, "model_type", ""))
    if rule is None or not hasattr(model, "get_video_features"):
        raise CheckpointError(
            f"{type(model).__name__} has no attention maps over whole clips, which a rollout multiplies; TimeSformer, "
            "ViViT, VideoMAE, V-JEPA 2 and VideoPrism have. Grad-CAM (grad_cam) works for every classifier."
        )
    with torch.no_grad():
        features = model.get_video_features(pixel_values, return_dict=True)
        outputs = model(**inputs_for(model, {"pixel_values": pixel_values}), output_attentions=True, return_dict=True)
    batch, *grid = features.feature_map.shape[:4]
    if getattr(model.config, "attention_type", None) == "space_only":
        grid[0] = pixel_values.shape[1]  # its map is the mean over frames
    start, steps = rule(model, outputs, batch, tuple(grid))
    for step in reversed(steps):
        start = 0.5 * start + 0.5 * step(start)
    return _places(model, start, tuple(grid), batch)


def _heads(probs: torch.Tensor) -> torch.Tensor:
    return probs.float().mean(1)


def _joint(model: Any, outputs: Any, batch: int, grid: tuple[int, ...]) -> tuple[torch.Tensor, list[Step]]:
    """Every token attends to every other: rows (B, tokens)."""
    maps = [_heads(probs) for probs in outputs.attentions]
    tokens, places = maps[0].shape[-1], grid[0] * grid[1] * grid[2]
    start = maps[0].new_zeros(batch, tokens)
    first = tokens > places or getattr(model.config, "use_mean_pooling", True) is False
    start[:, : 1 if first else tokens] = 1 if first else 1 / tokens
    return start, [partial(_over_all, map) for map in maps]


def _over_all(map: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    return (row[:, None] @ map)[:, 0]


def _timesformer(model: Any, outputs: Any, batch: int, grid: tuple[int, ...]) -> tuple[torch.Tensor, list[Step]]:
    kind, frames = model.config.attention_type, grid[0]
    if kind == "joint_space_time":
        return _joint(model, outputs, batch, grid)
    if kind == "space_only":  # each frame by itself, and their mean
        start, within = _joint(model, outputs, batch * frames, (1, *grid[1:]))
        return start / frames, within
    start = torch.zeros(batch, 1 + grid[0] * grid[1] * grid[2])
    start[:, 0] = 1
    steps: list[Step] = []
    for in_space, in_time in zip(outputs.attentions, outputs.temporal_attentions, strict=True):
        space = _heads(in_space).unflatten(0, (batch, frames)).cpu()  # (B, T, 1 + N, 1 + N)
        time = _heads(in_time).unflatten(0, (batch, -1)).cpu()  # (B, N, T, T)
        steps += [partial(_over_time, time), partial(_over_space, space)]
    return start, steps


def _over_time(map: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """Each place over its frames; the class token doesn't take part. Tokens lie place by place."""
    patches = row[:, 1:].unflatten(1, map.shape[1:3])
    return torch.cat([row[:, :1], (patches[:, :, None] @ map).flatten(1)], dim=1)


def _over_space(map: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """Each frame over its places and the class token, of whose answers in all frames the mean is taken."""
    frames = map.shape[1]
    cls = row[:, :1, None].expand(-1, frames, 1) / frames
    patches = row[:, 1:].unflatten(1, (-1, frames)).transpose(1, 2)
    moved = (torch.cat([cls, patches], 2)[:, :, None] @ map)[:, :, 0]  # (B, T, 1 + N)
    return torch.cat([moved[:, :, 0].sum(1, keepdim=True), moved[:, :, 1:].transpose(1, 2).flatten(1)], dim=1)


def _vivit(model: Any, outputs: Any, batch: int, grid: tuple[int, ...]) -> tuple[torch.Tensor, list[Step]]:
    kind, times = model.config.attention_type, grid[0]
    if kind == "spacetime":
        return _joint(model, outputs, batch, grid)
    if kind == "factorized_encoder":
        # The tokens over time are the class tokens of the times: the product of both products.
        over_time, steps = _joint(model, type(outputs)(attentions=outputs.temporal_attentions), batch, (times, 1, 1))
        for step in reversed(steps):
            over_time = 0.5 * over_time + 0.5 * step(over_time)
        start, steps = _joint(model, outputs, batch * times, (1, *grid[1:]))
        return start * over_time[:, 1:].flatten()[:, None], steps
    start = torch.full((batch, times, grid[1] * grid[2]), 1 / (times * grid[1] * grid[2]))
    steps = []
    for in_space, in_time in zip(outputs.attentions, outputs.temporal_attentions, strict=True):
        space = _heads(in_space).unflatten(0, (batch, times)).cpu()  # (B, t, n, n)
        time = _heads(in_time).unflatten(0, (batch, -1)).cpu()  # (B, n, t, t)
        if kind == "factorized_self_attention_block":
            steps += [partial(_in_time, time), partial(_in_space, space)]
        else:  # half of the heads in time, half in space, at once
            steps.append(partial(_in_both, time, space))
    return start, steps


def _in_time(map: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    return (row.transpose(1, 2)[:, :, None] @ map)[:, :, 0].transpose(1, 2)


def _in_space(map: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    return (row[:, :, None] @ map)[:, :, 0]


def _in_both(time: torch.Tensor, space: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    return 0.5 * _in_time(time, row) + 0.5 * _in_space(space, row)


def _videoprism(model: Any, outputs: Any, batch: int, grid: tuple[int, ...]) -> tuple[torch.Tensor, list[Step]]:
    """Layers within frames, then layers over time, each place by itself."""
    times = grid[0]
    config = getattr(model.config, "vision_config", model.config)
    within = config.num_spatial_layers
    start = torch.full((batch, times, grid[1] * grid[2]), 1 / (times * grid[1] * grid[2]))
    maps = [_heads(probs).cpu() for probs in outputs.attentions]
    space = [partial(_in_space, map.unflatten(0, (batch, times))) for map in maps[:within]]
    return start, [*space, *(partial(_in_time, map.unflatten(0, (batch, -1))) for map in maps[within:])]


_RULES: dict[str, Callable[[Any, Any, int, tuple[int, ...]], tuple[torch.Tensor, list[Step]]]] = {
    "timesformer": _timesformer,
    "vivit": _vivit,
    "videomae": _joint,
    "vjepa2": _joint,
    "videoprism_vision_model": _videoprism,
}


def _places(model: Any, tokens: torch.Tensor, grid: tuple[int, ...], batch: int) -> torch.Tensor:
    """Tokens (B, tokens, ...) or (B·t, tokens, ...), perhaps with a class token first, (B, t, n, ...), or maps
    (B, D, t, h, w) -> (B, t, h, w, ...)."""
    times, places = grid[0], grid[1] * grid[2]
    if tokens.shape[2:] == grid:
        return tokens.movedim(1, -1)
    if tokens.ndim >= 3 and tokens.shape[1:3] == (times, places):
        return tokens.unflatten(2, grid[1:])
    if tokens.shape[0] == batch * times and batch < tokens.shape[0]:
        return tokens[:, -places:].unflatten(0, (batch, times)).unflatten(2, grid[1:])
    if tokens.shape[1] not in (times * places, times * places + 1):
        raise CheckpointError(
            f"{type(model).__name__} has {tokens.shape[1]} tokens where its last map has {times}x{grid[1]}x{grid[2]} "
            "places, so that none can be told: its last block changes the grid, or it leaves tokens out "
            '(static_patches="keep" keeps all).'
        )
    tokens = tokens[:, -times * places :]
    if model.config.model_type == "timesformer":  # tokens lie place by place
        return tokens.unflatten(1, (*grid[1:], times)).movedim(3, 1)
    return tokens.unflatten(1, grid)


def grad_cam(
    model: PreTrainedModel, pixel_values: torch.Tensor, label: int | Sequence[int] | None = None
) -> torch.Tensor:
    """Where evidence for a class lies.

    Args:
        model: A classifier of videos of this package.
        pixel_values: Clips (B, T, C, H, W), as the processor makes them.
        label: Number of the class, or one for each clip. Default: each clip's best.

    Returns:
        Evidence (B, t, h, w), float32, from 0 up, of the grid of the model's last map.

    Raises:
        CheckpointError: The model is no classifier, or has no map (a two-stream network of frames and flow; an export).
        VideoOptionError: There is no class of that number.
    """
    if hasattr(model, "graphs"):
        refuse_exported(model.folder, "asked for gradients")
    if not hasattr(model, "get_video_features"):
        raise CheckpointError(f"{type(model).__name__} is no model of this package, or has no map of a clip.")
    with torch.no_grad():
        feature_map = getattr(model.get_video_features(pixel_values, return_dict=True), "feature_map", None)
    if feature_map is None:
        raise CheckpointError(f"{type(model).__name__} has no map over time and place; Grad-CAM needs one.")
    batch, *grid = feature_map.shape[:4]
    if getattr(model.config, "attention_type", None) == "space_only":
        grid[0] = pixel_values.shape[1]  # its map is the mean over frames
    outputs: list[Any] = []
    maps: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        if hasattr(output, "last_hidden_state"):
            outputs.append(output)
        elif isinstance(output, torch.Tensor) and output.ndim == 5 and list(output.shape[2:]) == grid:
            maps.append(output)

    hooks = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        with torch.enable_grad():
            clips = pixel_values.detach().requires_grad_()  # weights may be frozen
            named = inputs_for(model, {"pixel_values": clips})
            logits = clip_logits(model, model(**named, output_hidden_states=True, return_dict=True))
    finally:
        for hook in hooks:
            hook.remove()
    if outputs and _has_class_token(model, outputs[0], feature_map):
        candidates = [outputs[0].hidden_states[-2]]
    else:  # a classifier that reads maps gives no gradient to the tokens that are made of them
        candidates = [*maps, *(output.last_hidden_state for output in outputs[:1])]
    if not candidates:
        raise CheckpointError(f"{type(model).__name__} has no map over time and place; Grad-CAM needs one.")
    score = logits.gather(1, _chosen(logits, label)[:, None]).sum()
    gradients = torch.autograd.grad(score, candidates, allow_unused=True)
    found = [(one, slope) for one, slope in zip(candidates, gradients, strict=True) if slope is not None]
    values, slopes = (_places(model, one.detach().float(), tuple(grid), batch) for one in found[-1])
    return (values * slopes.mean((1, 2, 3), keepdim=True)).sum(-1).clamp(min=0)


def _has_class_token(model: Any, output: Any, feature_map: torch.Tensor) -> bool:
    """Whether one token is classified, so that patches behind the last block don't count."""
    if getattr(model.config, "use_mean_pooling", True) is False:
        return True
    return output.last_hidden_state.shape[1] != feature_map[0, ..., 0].numel() and output.hidden_states is not None


def _chosen(logits: torch.Tensor, label: int | Sequence[int] | None) -> torch.Tensor:
    if label is None:
        return logits.argmax(1)
    labels = list(label) if isinstance(label, Iterable) else [label] * len(logits)
    if len(labels) != len(logits) or not all(is_whole(one) and 0 <= one < logits.shape[1] for one in labels):
        raise VideoOptionError(
            f"label={label!r} must be the number of one of the {logits.shape[1]} classes, or one for each of the "
            f"{len(logits)} clips."
        )
    return torch.tensor(labels, device=logits.device)
