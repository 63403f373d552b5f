"""The visual tokenizer: against DALL-E's encoder written out by hand, from tensors under OpenAI's names."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from hf_video.errors import CheckpointError, ConfigError, ModelInputError
from hf_video.models.violet.visual_tokenizer import VioletVisualTokenizer, VioletVisualTokenizerConfig

WIDTH, BLOCKS, CODES = 8, 2, 24


def official_state() -> dict[str, torch.Tensor]:
    """Random tensors under OpenAI's names: `.w` (out, in, k, k) and `.b` (out,)."""
    generator, state = torch.Generator().manual_seed(0), {}

    def add(name: str, inputs: int, outputs: int, size: int) -> None:
        state[f"{name}.w"] = torch.randn(outputs, inputs, size, size, generator=generator) / (inputs * size**2) ** 0.5
        state[f"{name}.b"] = 0.3 * torch.randn(outputs, generator=generator)

    add("blocks.input", 3, WIDTH, 7)
    for group in range(4):
        for block in range(BLOCKS):
            wide = WIDTH * 2**group
            inputs = wide // 2 if group and not block else wide
            name = f"blocks.group_{group + 1}.block_{block + 1}"
            if inputs != wide:
                add(f"{name}.id_path", inputs, wide, 1)
            for conv, (a, b, size) in enumerate(
                ((inputs, wide // 4, 3), (wide // 4, wide // 4, 3), (wide // 4, wide // 4, 3), (wide // 4, wide, 1))
            ):
                add(f"{name}.res_path.conv_{conv + 1}", a, b, size)
    add("blocks.output.conv", 8 * WIDTH, CODES, 1)
    return state


def by_hand(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        weight = state[f"{name}.w"]
        return F.conv2d(x, weight, state[f"{name}.b"], padding=(weight.shape[-1] - 1) // 2)

    x = conv("blocks.input", 0.8 * images + 0.1)
    for group in range(1, 5):
        for block in range(1, BLOCKS + 1):
            name, path = f"blocks.group_{group}.block_{block}", x
            for i in range(1, 5):
                path = conv(f"{name}.res_path.conv_{i}", path.clamp_min(0))
            same = x if f"{name}.id_path.w" not in state else conv(f"{name}.id_path", x)
            x = same + path / (4 * BLOCKS) ** 2
        if group < 4:
            x = F.max_pool2d(x, 2)
    return conv("blocks.output.conv", x.clamp_min(0))


def test_official_weights():
    state, images = official_state(), torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(1))
    tokenizer = VioletVisualTokenizer.from_official(state)
    logits = tokenizer.encode(images)
    assert logits.shape == (2, CODES, 3, 4)
    torch.testing.assert_close(logits, by_hand(state, images), atol=1e-5, rtol=0)
    other = {**state, "blocks.group_4.block_2.res_path.conv_4.b": torch.ones(64)}
    assert (by_hand(other, images) - logits).abs().max() > 1e-3  # residual paths, small as their gain is, are seen


def test_clips_are_undone_and_shrunk():
    """(B, T, 3, 64, 32) as the model gets them: statistics taken off, a quarter of the size, the best code."""
    tokenizer = VioletVisualTokenizer.from_official(official_state())
    blocks = torch.rand(2, 3, 3, 4, 2, generator=torch.Generator().manual_seed(1)).round()  # corners of the colour cube
    images = blocks.repeat_interleave(16, 3).repeat_interleave(16, 4)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    codes = tokenizer((images - mean) / std)
    assert codes.shape == (2, 3, 2, 1)
    assert codes.dtype == torch.int64
    assert len(codes.unique()) > 2
    small = F.interpolate(images[1], size=(16, 8), mode="bilinear", antialias=True)
    assert torch.equal(codes[1], tokenizer.encode(small).argmax(1))


def test_saved_as_safetensors_and_loaded(tmp_path):
    tokenizer = VioletVisualTokenizer.from_official(official_state(), shrink=2)
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    loaded = VioletVisualTokenizer.from_pretrained(tmp_path)
    assert (loaded.config.shrink, loaded.config.vocab_size, loaded.config.blocks_per_group) == (2, CODES, BLOCKS)
    images = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(loaded.encode(images), tokenizer.encode(images))


def test_size_of_the_published_one():
    """256 channels, 2 blocks a group, 8192 codes: every convolution counted by hand."""

    def block(inputs: int, width: int) -> int:
        narrow = width // 4
        path = narrow * (9 * inputs + 1) + 2 * narrow * (9 * narrow + 1) + width * (narrow + 1)
        return path + (0 if inputs == width else width * (inputs + 1))

    widths = (256, 512, 1024, 2048)
    expected = 256 * (3 * 49 + 1) + 8192 * (2048 + 1) + block(256, 256)
    expected += sum(block(a, b) for a, b in itertools.pairwise(widths)) + sum(block(w, w) for w in widths)
    with torch.device("meta"):
        model = VioletVisualTokenizer(VioletVisualTokenizerConfig())
    assert sum(p.numel() for p in model.parameters()) == expected


def test_errors():
    state = official_state()
    tokenizer = VioletVisualTokenizer.from_official(state)
    with pytest.raises(CheckpointError, match=r"blocks\.output"):
        VioletVisualTokenizer.from_official({"blocks.input.w": state["blocks.input.w"]})
    del state["blocks.group_2.block_1.id_path.b"]
    with pytest.raises(CheckpointError, match=r"1 missing:\n  blocks\.group_2\.block_1\.id_path\.bias"):
        VioletVisualTokenizer.from_official(state)
    for pixels, message in (
        (torch.zeros(1, 2, 3, 48, 32), "stands for 32x32"),
        (torch.zeros(2, 3, 32, 32), "five dimensions"),
        (torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8), "image processor"),
    ):
        with pytest.raises(ModelInputError, match=message):
            tokenizer(pixels)
    with pytest.raises(ModelInputError, match="multiples of 8"):
        tokenizer.encode(torch.zeros(1, 3, 12, 16))
    with pytest.raises(ModelInputError, match=r"\[0, 1\]"):
        tokenizer.encode(torch.zeros(3, 16, 16))
    with pytest.raises(ConfigError, match="multiple of 4"):
        VioletVisualTokenizerConfig(hidden_size=6)
