"""How well clips and texts fit, by any model of video and text.

A **dual encoder** (VideoCLIP, VideoPrism) embeds both sides apart; what fits is near. A **pair scorer** (VIOLET,
VideoCLIP's "tight" head, X-CLIP, whose texts' vectors are made anew for each video) looks at each pair together and has
no vector for a text alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from hf_video.base.modeling import VideoPreTrainedModel
from hf_video.errors import CheckpointError, VideoOptionError
from hf_video.features.vectors import pooled_vectors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Texts of one forward; of a pair scorer each is one more pass for every clip.
TEXT_BATCH = 256
PAIR_BATCH = 32

# Of models of transformers' that learnt none, or whose file has none: the temperature of the authors' example
# (google-deepmind/videoprism, colabs/videoprism_video_text_demo.ipynb).
TEMPERATURES = {"videoprism": 0.01}

Tokens = dict[str, torch.Tensor]


def is_dual_encoder(model: PreTrainedModel) -> bool:
    """Whether video and text have vectors of their own, in one space."""
    embeds_both = hasattr(model, "get_text_features") and hasattr(model, "get_video_features")
    joined = getattr(model.config, "temporal", None) == "tight" or model.config.model_type == "xclip"
    return embeds_both and not joined


def check_matches(model: PreTrainedModel) -> None:
    """Raises CheckpointError for a model that does not bring video and text together."""
    scores_pairs = "text" in getattr(model, "input_modalities", ()) or hasattr(model, "get_text_features")
    if not scores_pairs or (isinstance(model, VideoPreTrainedModel) and hasattr(model, "classifier")):
        raise CheckpointError(
            f"{type(model).__name__} does not score texts against videos. Use a hf_video.VideoCLIPModel (also out "
            "of any CLIP: VideoCLIPModel.from_clip) or a VioletForVideoTextRetrieval."
        )


def find_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> PreTrainedTokenizerBase:
    """The tokenizer that a pipeline got, or the one beside the model's weights. Raises CheckpointError."""
    if tokenizer is not None:
        return tokenizer
    from transformers import AutoTokenizer

    origin, reason = getattr(model, "name_or_path", ""), ""
    try:
        if origin:
            return AutoTokenizer.from_pretrained(origin)
    except Exception as error:  # whatever tokenizers raise
        reason = f" ({str(error).strip().splitlines()[0]})"
    raise CheckpointError(
        f"No tokenizer was found beside the model{f' in {origin!r}' if origin else ''}{reason}. Save one there, or the "
        "model's whole processor, or pass tokenizer=."
    )


def texts_of(name: str, given: object) -> list[str]:
    """A list of texts from one or several. Raises VideoOptionError for none, empty ones, and what is no text."""
    texts = [given] if isinstance(given, str) else list(given) if isinstance(given, (list, tuple)) else None
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise VideoOptionError(f"{name}={given!r} must be a text, or a list of at least one; none may be empty.")
    return texts


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], model: PreTrainedModel | None = None) -> Tokens:
    """Token ids, mask and what else the tokenizer's models read, each (N, L), padded to the longest, or as a model's
    `text_padding` says (VideoPrism's texts fill all of its places); on the model's device."""
    padding = getattr(model, "text_padding", True)
    length = None
    if model is not None and model.config.model_type == "videoprism":
        padding, length = "max_length", model.config.text_config.max_position_embeddings
    made = tokenizer(list(texts), padding=padding, truncation=True, max_length=length, return_tensors="pt")
    device = "cpu" if model is None else model.device
    return {name: value.to(device) for name, value in made.items() if isinstance(value, torch.Tensor)}


@torch.inference_mode()
def text_vectors(model: Any, tokens: Tokens) -> torch.Tensor:
    """Embeds texts.

    Args:
        model: A dual encoder.
        tokens: Of N texts, each (N, L).

    Returns:
        Vectors (N, D), of unit length where the model's are.
    """
    count = len(tokens["input_ids"])
    takes = {name: value for name, value in tokens.items() if name != "token_type_ids" or _segments(model)}
    training = model.training
    model.eval()
    try:
        parts = [
            _embedding(
                model,
                model.get_text_features(
                    **{name: value[i : i + TEXT_BATCH] for name, value in takes.items()}, return_dict=True
                ),
            )
            for i in range(0, count, TEXT_BATCH)
        ]
    finally:
        model.train(training)
    return torch.cat(parts)


def averaged(model: PreTrainedModel, vectors: torch.Tensor, groups: int) -> torch.Tensor:
    """(groups · k, D), k in a row for one thing, to the vectors (groups, D) of their means (CLIP's prompt ensembles),
    of unit length where the model's are."""
    means = vectors.unflatten(0, (groups, -1)).mean(1)
    return F.normalize(means, dim=-1) if getattr(model.config, "normalize", True) else means


def similarity(model: Any, clips: Tokens, *, vectors: torch.Tensor) -> torch.Tensor:
    """Dot products (B, N) of a dual encoder's clips with texts' vectors (N, D): cosines, where vectors are of unit
    length."""
    return _embedding(model, model.get_video_features(**clips, return_dict=True)) @ vectors.t().to(model.dtype)


def _embedding(model: Any, features: Any) -> torch.Tensor:
    """The vectors (N, D) of clips or texts that are compared. A model of transformers' whose configuration doesn't say
    how long they are compares directions, as CLIP does."""
    if hasattr(features, "embedding"):
        return features.embedding
    vectors = pooled_vectors(features)
    text = getattr(model.config, "text_config", model.config)
    return vectors if hasattr(text, "apply_l2norm") else F.normalize(vectors, dim=-1)


def logits_of(model: PreTrainedModel, products: torch.Tensor) -> torch.Tensor:
    """What the model's loss sees of dot products: over the temperature and with the bias, where it has them."""
    scale, bias = getattr(model, "logit_scale", None), getattr(model, "logit_bias", None)
    logits = products.float() / TEMPERATURES.get(model.config.model_type, 1.0)
    logits = logits if scale is None else products.float() * scale.detach().float().exp()
    return logits if bias is None else logits + bias.detach().float()


def pair_logits(model: Any, clips: Tokens, *, tokens: Tokens) -> torch.Tensor:
    """Scores (B, N) of a pair scorer's clips with tokenized texts, as its loss sees them.

    Clips are embedded once where the model does that apart from the texts."""
    texts = {name: value for name, value in tokens.items() if name != "token_type_ids" or _segments(model)}
    batch, count = len(next(iter(clips.values()))), len(tokens["input_ids"])
    size = max(PAIR_BATCH // batch, 1) if hasattr(model, "embed_video") else TEXT_BATCH
    parts = [{name: value[i : i + size] for name, value in texts.items()} for i in range(0, count, size)]
    if not hasattr(model, "embed_video"):
        return torch.cat([model(**clips, **part).logits_per_video for part in parts], dim=1)
    video = model.embed_video(**clips)
    rows = []
    for part in parts:
        words = model.embed_text(part["input_ids"], part.get("token_type_ids"))
        pairs = len(words)
        scores = model.pair_scores(
            video.repeat_interleave(pairs, 0),
            words.repeat(batch, 1, 1),
            part["attention_mask"].repeat(batch, 1),
        )
        rows.append(scores.unflatten(0, (batch, pairs)))
    return torch.cat(rows, dim=1) / model.config.matching_temperature


def _segments(model: PreTrainedModel) -> bool:
    """Whether the text side tells segments apart, as BERT does; CLIP's takes no `token_type_ids`."""
    text = getattr(model.config, "text_config", model.config)
    return bool(getattr(text, "type_vocab_size", 0))
