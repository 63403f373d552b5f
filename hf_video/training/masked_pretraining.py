"""Masked pretraining: batches with masks, predictions back as pixels, and what a model has to beat. Of pixels
(VideoMAE, Tong et al., 2022, arXiv:2203.12602, section 3), and of features (V-JEPA 2, Assran et al., 2025,
arXiv:2506.09985, section 2).

Two predictors without a model are measured with the model's own loss, on the same hidden tokens:

- the mean of the patch: one colour for each hidden tubelet, its true mean (with `norm_pix_loss` that is zero);
- the nearest visible tube: a copy of the nearest token that is seen, of the same time where tubes are masked.

A model whose loss is above either of these is of no use yet. Of features, which the model makes itself, the first is
the mean of the tokens that are seen, and the second a copy of the nearest one's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_video.base.modeling import CLIP_NAMES
from hf_video.data.datasets.dataset import generator, sample_seed
from hf_video.errors import ModelInputError, check_choice
from hf_video.layers.embeddings import patch_view
from hf_video.models.videomae.masking import random_mask, running_cell_mask, split_by_mask, tube_mask
from hf_video.models.vjepa2.masks import block_masks, draw_block_masks, take_tokens

if TYPE_CHECKING:
    from hf_video.models.videomae.modeling_videomae import VideoMAEForPreTraining
    from hf_video.models.vjepa2.modeling_vjepa2 import VJEPA2ForPreTraining

MASKS = {"tube": tube_mask, "random": random_mask}
PREDICTORS = ("masked_loss", "mean_of_patch", "copy_of_nearest")
FEATURE_PREDICTORS = ("masked_loss", "mean_of_seen", "copy_of_nearest")
MASK = 4  # the purpose of this draw: one that `VideoDataset` has not


def stack_clips(rows: Sequence[Any]) -> tuple[torch.Tensor, list[torch.Generator | None]]:
    """Rows of a `VideoDataset`, or lists of its repeats -> clips (B, T, C, H, W), and what draws each one's mask: by
    its `seed` alone, so that it does not depend on the batch, the worker or where a run was resumed. None without."""
    rows = [part for row in rows for part in ([row] if isinstance(row, Mapping) else row)]
    seeds = (row.get("seed") for row in rows)
    generators = [None if n is None else generator(sample_seed(int(n), 0, 0, 0, MASK)) for n in seeds]
    name = next(name for name in CLIP_NAMES if name in rows[0])
    return torch.stack([row[name] for row in rows]), generators


def tokens_of(clips: torch.Tensor, patch: tuple[int, int, int]) -> tuple[int, int, int]:
    """How many tubelets clips (B, T, C, H, W) have: (times, rows, columns)."""
    _, frames, _, height, width = clips.shape
    return frames // patch[0], height // patch[1], width // patch[2]


class MaskedVideoCollator:
    """Rows of a `VideoDataset` -> `pixel_values` (B, T, C, H, W) and `bool_masked_pos` (B, tokens), True = hidden.

    A row's mask is drawn from its `seed`, see `stack_clips`; without one anew every time. `patch` is a tubelet (frames,
    rows, columns), a config's `patch`; the grid is read from the clip. `decoder_mask_ratio` adds VideoMAE v2's
    `decoder_masked_pos`.

    Raises ModelInputError for an unknown kind of mask, and for a ratio that hides no token or all.
    """

    def __init__(
        self,
        patch: tuple[int, int, int],
        mask_ratio: float = 0.9,
        *,
        mask: str = "tube",
        decoder_mask_ratio: float | None = None,
    ) -> None:
        check_choice("mask", mask, MASKS, ModelInputError)
        self.patch, self.mask_ratio, self.mask, self.decoder_mask_ratio = patch, mask_ratio, mask, decoder_mask_ratio

    def __call__(self, rows: Sequence[Any]) -> dict[str, torch.Tensor]:
        clips, generators = stack_clips(rows)
        grid, draw = tokens_of(clips, self.patch), MASKS[self.mask]
        batch = {"pixel_values": clips}
        batch["bool_masked_pos"] = torch.cat([draw(1, grid, self.mask_ratio, generator=g) for g in generators])
        if self.decoder_mask_ratio is not None:
            cells = [running_cell_mask(1, grid, self.decoder_mask_ratio, generator=g) for g in generators]
            batch["decoder_masked_pos"] = torch.cat(cells)
        return batch


class BlockMaskCollator:
    """Rows of a `VideoDataset` -> `pixel_values_videos` (B, T, C, H, W), and as `context_mask` and `target_mask` a
    tuple of int64 (B, tokens), one for each of `kinds` of masks: fields of `BlockMask`. See `draw_block_masks`.

    Where a row's blocks lie is drawn from its seed, see `stack_clips`; how large they are, which is one for a batch,
    from that of its first row. `patch` is a tubelet (frames, rows, columns), a config's `patch`.

    Raises ConfigError for kinds of masks that there are not, and ModelInputError for clips too small for them.
    """

    def __init__(self, patch: tuple[int, int, int], kinds: Sequence[Mapping[str, Any]]) -> None:
        self.patch, self.kinds = patch, block_masks(kinds)

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        clips, generators = stack_clips(rows)
        grid = tokens_of(clips, self.patch)
        drawn = [draw_block_masks(kind, grid, generators, size_generator=generators[0]) for kind in self.kinds]
        contexts, targets = zip(*drawn, strict=True)
        return {"pixel_values_videos": clips, "context_mask": contexts, "target_mask": targets}


def nearest_visible(mask: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
    """bool (B, t·h·w), True = hidden -> for every token the number of the nearest visible one, (B, t·h·w).

    Distances are counted in tokens over time, rows and columns alike; of several at the same distance the first in
    order is taken. Visible tokens are their own nearest.
    """
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in grid), indexing="ij")
    places = torch.stack([axis.flatten() for axis in axes], dim=1).to(mask.device)
    distance = torch.cdist(places, places)
    return torch.stack([distance.masked_fill(hidden, torch.inf).argmin(1) for hidden in mask])


def unpatchify(patches: torch.Tensor, grid: tuple[int, int, int], patch: tuple[int, int, int]) -> torch.Tensor:
    """Tokens (B, t·h·w, n·p·q·C), channel last as the decoder gives them -> frames (B, t·n, C, h·p, w·q)."""
    (t, h, w), (n, p, q) = grid, patch
    x = patches.view(len(patches), t, h, w, n, p, q, -1).permute(0, 1, 4, 7, 2, 5, 3, 6)
    return x.reshape(len(patches), t * n, x.shape[3], h * p, w * q)


@dataclass(frozen=True)
class Reconstruction:
    """Frames in [0, 1], each (B, T, C, H, W): the clips, the same with hidden tubelets in grey, with their true mean in
    their place, and with the model's prediction. `mask` (B, t·h·w)."""

    input: torch.Tensor
    masked: torch.Tensor
    means: torch.Tensor
    predicted: torch.Tensor
    mask: torch.Tensor


class MaskedTargets:
    """The targets of every token of a batch, and the way back from them to pixels.

    `values` (B, t·h·w, n·p·q·C) is what the loss compares with; `mean` and `scale` (B, t·h·w, 1, C) undo the
    normalisation: pixels in [0, 1] are value · scale + mean, with each tubelet's own statistics, as the official
    visualisation does it. Without `norm_pix_loss` values are pixels already.
    """

    def __init__(self, model: VideoMAEForPreTraining, pixel_values: torch.Tensor) -> None:
        config = model.config
        self.patch, self.channels = config.patch, config.num_channels
        self.grid = model.videomae.token_grid(pixel_values)
        self.pixels = pixel_values.float()
        if len(config.image_mean) == config.num_channels:
            mean, std = (self.pixels.new_tensor(v).view(-1, 1, 1) for v in (config.image_mean, config.image_std))
            self.pixels = self.pixels * std + mean
        tokens = patch_view(self.pixels, self.patch).flatten(1, 3).flatten(3).transpose(2, 3)
        if config.norm_pix_loss:
            variance, self.mean = torch.var_mean(tokens, dim=2, unbiased=True, keepdim=True)
            self.scale = variance.sqrt() + 1e-6
        else:
            self.mean, self.scale = torch.zeros_like(tokens[:, :, :1]), torch.ones_like(tokens[:, :, :1])
        self.values = ((tokens - self.mean) / self.scale).flatten(2)

    def to_pixels(self, values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Predictions (B, n, n·p·q·C) of tokens `index` (B, n) as pixels, about [0, 1], of the same shape."""
        rows = torch.arange(len(index), device=index.device)[:, None]
        values = values.float().unflatten(2, (-1, self.channels))
        return (values * self.scale[rows, index] + self.mean[rows, index]).flatten(2)

    def mean_of_patch(self) -> torch.Tensor:
        """Each tubelet's mean, in the space of `values`: zeros where they are normalised."""
        values = self.values.unflatten(2, (-1, self.channels))
        return values.mean(2, keepdim=True).expand_as(values).flatten(2)

    def copy_of_nearest(self, mask: torch.Tensor) -> torch.Tensor:
        """The values of the nearest visible token for every token."""
        rows = torch.arange(len(mask), device=mask.device)[:, None]
        return self.values[rows, nearest_visible(mask, self.grid)]


@torch.no_grad()
def masked_errors(
    model: VideoMAEForPreTraining, pixel_values: torch.Tensor, bool_masked_pos: torch.Tensor
) -> torch.Tensor:
    """Mean squared error over the hidden tokens of each clip: (B, 3), in the order of `PREDICTORS`: the model's (their
    mean is its loss), that of the mean of the patch, and that of a copy of the nearest visible tube."""
    mask = bool_masked_pos.to(pixel_values.device)
    logits = model(pixel_values=pixel_values, bool_masked_pos=mask).logits.float()
    targets = MaskedTargets(model, pixel_values)
    rows, hidden = torch.arange(len(mask), device=mask.device)[:, None], split_by_mask(mask)[1]
    wanted = targets.values[rows, hidden]
    guesses = [logits, targets.mean_of_patch()[rows, hidden], targets.copy_of_nearest(mask)[rows, hidden]]
    return torch.stack([(guess - wanted).square().mean((1, 2)) for guess in guesses], dim=1)


@torch.no_grad()
def feature_errors(
    model: VJEPA2ForPreTraining,
    pixel_values: torch.Tensor,
    context_mask: Sequence[torch.Tensor],
    target_mask: Sequence[torch.Tensor],
) -> torch.Tensor:
    """The model's error over the hidden tokens of each clip, the mean over the pairs of masks: (B, 4), in the order of
    `FEATURE_PREDICTORS`: the model's (their mean is its loss), that of the mean of what is seen, and that of a copy of
    the nearest token that is. The last is the deviation of the targets within the clip, mean over channels: 0 where
    all tokens have become the same."""
    predicted = model(pixel_values, context_mask, target_mask).logits
    targets, grid = model.targets(pixel_values), model.token_grid(pixel_values)
    found = []
    parts = predicted.split([mask.shape[1] for mask in target_mask], dim=1)
    for part, context, hidden in zip(parts, context_mask, target_mask, strict=True):
        wanted = take_tokens(targets, [hidden])
        mean = take_tokens(targets, [context]).mean(1, keepdim=True)
        unseen = torch.ones(targets.shape[:2], dtype=torch.bool, device=targets.device)
        unseen.scatter_(1, context.to(targets.device), False)
        nearest = nearest_visible(unseen, grid).gather(1, hidden.to(targets.device))
        guesses = (part, mean, take_tokens(targets, [nearest]))
        found.append(torch.stack([model.errors(guess, wanted).mean((1, 2)) for guess in guesses], dim=1))
    spread = targets.std(1, correction=0).mean(1, keepdim=True)
    return torch.cat([torch.stack(found).mean(0), spread], dim=1)


def summarise_errors(
    errors: np.ndarray | torch.Tensor, predictors: tuple[str, str, str] = PREDICTORS
) -> dict[str, float]:
    """Errors of clips (N, 3) to their means by name, and `explained`: how much of the better trivial predictor's error
    the model does away with (below 0: it is worse than that). A fourth column is `target_deviation`."""
    columns = np.asarray(errors, dtype=np.float64).mean(0).tolist()
    means = dict(zip((*predictors, "target_deviation"), columns, strict=False))
    trivial = min(means[name] for name in predictors[1:])
    return {**means, "explained": 1 - means["masked_loss"] / trivial if trivial > 0 else 0.0}


@torch.no_grad()
def reconstruct(
    model: VideoMAEForPreTraining, pixel_values: torch.Tensor, bool_masked_pos: torch.Tensor
) -> Reconstruction:
    """What the model makes of masked clips (B, T, C, H, W), as frames."""
    mask = bool_masked_pos.to(pixel_values.device)
    logits = model(pixel_values=pixel_values, bool_masked_pos=mask).logits
    targets = MaskedTargets(model, pixel_values)
    rows, hidden = torch.arange(len(mask), device=mask.device)[:, None], split_by_mask(mask)[1]
    tokens = patch_view(targets.pixels, targets.patch).flatten(1, 3).flatten(3).transpose(2, 3).flatten(2)
    masked, means, predicted = tokens.clone(), tokens.clone(), tokens.clone()
    masked[rows, hidden] = 0.5
    means[rows, hidden] = targets.to_pixels(targets.mean_of_patch()[rows, hidden], hidden)
    predicted[rows, hidden] = targets.to_pixels(logits, hidden)
    frames = [unpatchify(x, targets.grid, targets.patch).clamp(0, 1) for x in (tokens, masked, means, predicted)]
    return Reconstruction(*frames, mask=mask)
