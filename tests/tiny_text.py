"""A tokenizer of few words and text towers of few channels, made here: nothing is downloaded."""

from __future__ import annotations

from transformers import BertConfig, CLIPTextConfig, CLIPVisionConfig

WORDS = ("a", "the", "moving", "left", "right", "up", "down", "ring", "square", "cross", "triangle", "disc", "to")


def tiny_tokenizer(words=WORDS, max_length: int = 16):
    """One id a word; [CLS] text [SEP], as BERT has it, and the largest id ends a text, as CLIP has it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*special, *words, "[SEP]"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_length,
    )


def tiny_clip_text(vocab_size: int = 60, **changes) -> CLIPTextConfig:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"max_position_embeddings": 16, "eos_token_id": 2, "projection_dim": 64}
    return CLIPTextConfig(vocab_size=vocab_size, **{**sizes, **changes})


def tiny_clip_vision(**changes) -> CLIPVisionConfig:
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPVisionConfig(**{**sizes, "image_size": 32, "patch_size": 16, "projection_dim": 64, **changes})


def tiny_bert(vocab_size: int = 60, **changes) -> BertConfig:
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BertConfig(vocab_size=vocab_size, **{**sizes, "max_position_embeddings": 32, **changes})
