"""Tiny models that write words about videos, with processors and tokenizers made here: nothing is downloaded."""

from __future__ import annotations

import transformers
from contract import randomise
from tiny_text import tiny_clip_vision

from hf_video.base.processing_stock import stock_class

SPECIAL = ("<pad>", "<s>", "</s>", "<image>", "<video>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for m in messages %}<|user|>{% for c in m['content'] %}{% if c['type'] == 'video' %}VIDEO"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def letter_tokenizer(*more: str, **named: str):
    """One id for each letter, and special tokens: `decode` gives back any text, such as the seconds in a prompt."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    letters = ["\n", *map(chr, range(32, 127))]
    tokenizer = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(letters)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(.|\\n)"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([*SPECIAL, *more])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", cls_token="<s>",
        unk_token="?", model_max_length=4096, extra_special_tokens=named,
    )  # fmt: skip


def text_config(kind, tokenizer, **changes):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id}
    ids["eos_token_id"] = tokenizer.eos_token_id
    return kind(
        **{**sizes, **ids, "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 4096},
        **changes,
    )


def saved(folder, model, processor, gain: float = 2.0):
    """The folder of model and processor, the model's parameters drawn anew."""
    model = randomise(model, gain=gain)
    # Random logits seldom end a text, and never in the same place twice where they do.
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_git(folder, num_frames: int | None = 4, **changes):
    """GIT of 32 × 32 pixels; `num_frames` None is the one for images."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = letter_tokenizer()
    vision = {k: v for k, v in tiny_clip_vision().to_dict().items() if k not in ("model_type", "projection_dim")}
    config = transformers.GitConfig(
        vision_config=vision, vocab_size=len(tokenizer), hidden_size=48, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=256, num_image_with_embedding=num_frames,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        **changes,
    )  # fmt: skip
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = transformers.GitProcessor(CLIPImageProcessorPil(**size), tokenizer)
    # Its frames speak up only where the weights are large.
    return saved(folder, transformers.GitForCausalLM(config), processor, gain=8.0)


def save_llava_onevision(folder, *, template: str | None = TEMPLATE.replace("VIDEO", "<video>")):
    """LLaVA-OneVision: (32 / 8)² / 4 tokens of a frame, and one more of the clip."""
    tokenizer = letter_tokenizer(image_token="<image>", video_token="<video>")
    vision = transformers.SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    config = transformers.LlavaOnevisionConfig(
        vision_config=vision, text_config=text_config(transformers.Qwen2Config, tokenizer),
        image_token_id=tokenizer.image_token_id, video_token_id=tokenizer.video_token_id,
        vision_feature_layer=-1, image_grid_pinpoints=[[32, 32]],
    )  # fmt: skip
    size = {"height": 32, "width": 32}
    # Their values need no torchvision.
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    processor = transformers.LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessorPil(size=size, image_grid_pinpoints=[[32, 32]]),
        tokenizer,
        stock_class("LlavaOnevisionVideoProcessor")(size=size),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template,
    )
    return saved(folder, transformers.LlavaOnevisionForConditionalGeneration(config), processor)


QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def save_qwen(folder, version: str = "3"):
    """Qwen2.5-VL or Qwen3-VL of patches of 8 × 8 × 2, four of them a token."""
    names = {"vision_start_token": QWEN[0], "vision_end_token": QWEN[1]}
    tokenizer = letter_tokenizer(*QWEN, **names, image_token=QWEN[2], video_token=QWEN[3])
    ids = {
        "image_token_id": tokenizer.image_token_id, "video_token_id": tokenizer.video_token_id,
        "vision_start_token_id": tokenizer.vision_start_token_id, "vision_end_token_id": tokenizer.vision_end_token_id,
    }  # fmt: skip
    vision = {"depth": 2, "num_heads": 2, "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2}
    vision |= {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32}
    rope = {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}}
    if version == "3":
        name, text = "Qwen3VL", text_config(transformers.Qwen3VLTextConfig, tokenizer, head_dim=16, **rope)
        vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    else:
        name, text = "Qwen2_5_VL", text_config(transformers.Qwen2_5_VLTextConfig, tokenizer, **rope)
        vision |= {"fullatt_block_indexes": [1], "window_size": 32, "tokens_per_second": 2}
    config = getattr(transformers, f"{name}Config")(text_config=text.to_dict(), vision_config=vision, **ids)
    sizes = {"patch_size": 8, "temporal_patch_size": 2, "merge_size": 2}
    sizes["size"] = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    kind = transformers.Qwen3VLVideoProcessor if version == "3" else transformers.Qwen2VLVideoProcessor
    processor = getattr(transformers, f"{name}Processor")(
        transformers.Qwen2VLImageProcessor(**sizes), tokenizer, kind(**sizes),
        chat_template=TEMPLATE.replace("VIDEO", "".join((QWEN[0], QWEN[3], QWEN[1]))),
    )  # fmt: skip
    return saved(folder, getattr(transformers, f"{name}ForConditionalGeneration")(config), processor, gain=4.0)


SMOL = ("<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<|im_start|>")


def save_smolvlm(folder):
    """SmolVLM: one token of a frame. Its own template is in its processor."""
    tokenizer = letter_tokenizer(*SMOL, image_token="<image>", video_token="<video>")
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.SmolVLMConfig(
        vision_config={**vision, "image_size": 32, "patch_size": 8},
        text_config=text_config(transformers.LlamaConfig, tokenizer).to_dict(),
        image_token_id=tokenizer.image_token_id, scale_factor=4,
    )  # fmt: skip
    sizes = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 32}}
    processor = transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(**sizes), tokenizer,
        transformers.SmolVLMVideoProcessor(**sizes, num_frames=8, fps=1), image_seq_len=1,
    )  # fmt: skip
    return saved(folder, transformers.SmolVLMForConditionalGeneration(config), processor)
