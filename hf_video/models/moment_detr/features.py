"""What Moment-DETR reads: vectors of clips and of words, as QVHighlights' are made (start_end_dataset.py of the
official code): each stream brought to length 1, and each clip's start and end as parts of the video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel

from hf_video.errors import DataError

EPSILON = 1e-5  # that the official code adds to lengths


def unit_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows (..., D) at length 1, or a little less, as the official code has them."""
    return rows / (torch.linalg.vector_norm(rows, dim=-1, keepdim=True) + EPSILON)


def moment_features(streams: torch.Tensor | Sequence[torch.Tensor], width: int | None = None) -> torch.Tensor:
    """Puts the features of a video together.

    Args:
        streams: (T, D), vectors of clips that lie side by side, or several of such from several encoders, which are cut
            to the shortest.
        width: `config.video_size` of the model. Two columns more than the vectors have are each clip's start and end as
            parts of the video; None adds them.

    Returns:
        (T, width) float32.

    Raises:
        DataError: The vectors have another width, or one has another shape.
    """
    several = [streams] if isinstance(streams, torch.Tensor) else list(streams)
    if not several or any(one.ndim != 2 or not len(one) for one in several):
        shapes = [tuple(one.shape) for one in several]
        raise DataError(f"Features of a video are (clips, columns), one clip or more; shapes {shapes} came.")
    length = min(len(one) for one in several)
    features = torch.cat([unit_rows(one[:length].float()) for one in several], dim=1)
    if width is None or width == features.shape[1] + 2:
        start = torch.arange(length, device=features.device) / length
        features = torch.cat((features, torch.stack((start, start + 1 / length), dim=1)), dim=1)
    if width not in (None, features.shape[1]):
        raise DataError(
            f"The vectors of clips have {features.shape[1]:,} columns and the model takes {width:,} (with start and "
            f"end {width - 2:,}): use the encoder that it was trained on."
        )
    return features


@torch.inference_mode()
def sentence_features(model: PreTrainedModel, tokens: Mapping[str, torch.Tensor], most: int) -> list[torch.Tensor]:
    """The states of words, of a model of video and text.

    Args:
        model: has `get_text_features`, which gives `last_hidden_state`.
        tokens: `input_ids` (N, L), `attention_mask` and what else its tokenizer makes.
        most: words of a sentence, those behind are left out.

    Returns:
        For each sentence (words, D) float32, at length 1; padding is left out.
    """
    segments = getattr(getattr(model.config, "text_config", model.config), "type_vocab_size", 0)
    takes = {name: value for name, value in tokens.items() if name != "token_type_ids" or segments}
    states = model.get_text_features(**takes, return_dict=True).last_hidden_state.float()
    mask = tokens.get("attention_mask", torch.ones_like(tokens["input_ids"])).bool()
    return [unit_rows(row[seen][:most]) for row, seen in zip(states, mask, strict=True)]
