"""VIOLET learns from scratch, on generated clips: to answer questions, to find texts, and all three parts of its
pretraining."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny_violet import ANSWERS, clips, questions, tiny_config, tokens
from torch.nn import functional as F

from hf_video.data.moving_glyphs import DIRECTIONS, OPPOSITE
from hf_video.models.violet.modeling_violet import (
    VioletForPreTraining,
    VioletForQuestionAnswering,
    VioletForVideoTextRetrieval,
    VioletVisualTokenizer,
    VioletVisualTokenizerConfig,
)

pytestmark = pytest.mark.slow
CLIPS = 2400


def untrained(cls, layers: int = 1, **changes):
    """48 channels; one block in each of the video encoder's two stages, `layers` of BERT's above."""
    torch.manual_seed(0)
    config = tiny_config(24, **changes)
    config.video_config.depths, config.text_config.num_hidden_layers = (1, 1), layers
    return cls(config).train()


def train(model, step: Callable[[torch.Tensor], torch.Tensor], *, steps: int, batch: int) -> None:
    """`step` gives the loss of the clips with these numbers."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        step(torch.randint(CLIPS, (batch,))).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(), schedule.step(), optimizer.zero_grad()
    model.eval()


def of_rows(texts: dict[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: value[rows] for name, value in texts.items()}


def asked(made) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Three questions of each clip, one after the other, and the numbers of their answers."""
    pairs = [pair for clip in made for pair in questions(clip)]
    return tokens([question for question, _ in pairs]), torch.tensor([ANSWERS.index(answer) for _, answer in pairs])


def test_open_questions(cpu_seconds):
    """Of three shapes: where does it move, what is it, what colour has it; 16 answers. Glyphs are 9 pixels wide."""
    shapes = ("ring", "square", "cross")
    model = untrained(VioletForQuestionAnswering, num_labels=len(ANSWERS))
    made, videos = clips(CLIPS, seed=0, shapes=shapes)
    texts, answers = asked(made)

    def step(rows: torch.Tensor) -> torch.Tensor:
        """All three questions of a clip: the video, which costs most, is encoded once."""
        picked = (3 * rows[:, None] + torch.arange(3)).flatten()
        text = of_rows(texts, picked)
        video = model.violet.embed_video(videos[rows]).repeat_interleave(3, 0)
        states = model.violet.join(video, model.violet.embed_text(text["input_ids"]), text["attention_mask"])
        return F.cross_entropy(model.classifier(states.text_cls), answers[picked])

    train(model, step, steps=500, batch=32)
    made, videos = clips(300, seed=1, shapes=shapes)
    texts, answers = asked(made)
    with torch.no_grad():
        found = model(**texts, pixel_values=videos.repeat_interleave(3, 0)).logits.argmax(-1)
        turned = model(**of_rows(texts, slice(0, None, 3)), pixel_values=videos.flip(1)).logits.argmax(-1)
    right = [(found == answers)[kind::3].float().mean().item() for kind in range(3)]
    opposite = torch.tensor([ANSWERS.index(OPPOSITE[clip.direction]) for clip in made])
    backwards = (turned == opposite).float().mean().item()
    print(f"where, what, colour {right}, backwards {backwards:.3f}, {cpu_seconds():.0f} CPU seconds")
    assert min(right) >= 0.9
    assert backwards >= 0.9


def caption(clip) -> str:
    return f"a {clip.color} glyph moving {clip.direction}"


def test_retrieval(cpu_seconds):
    """24 texts, of 6 colours and 4 directions, both ways. With one layer of BERT only colours are found in this time:
    words must meet the video before [CLS] reads them."""
    model = untrained(VioletForVideoTextRetrieval, layers=2)
    made, videos = clips(CLIPS, seed=0)
    captions = np.array([caption(clip) for clip in made])
    texts = tokens(list(captions))

    def step(rows: torch.Tensor) -> torch.Tensor:
        rows = rows[torch.from_numpy(np.unique(captions[rows], return_index=True)[1])]  # one clip a caption
        return model(**of_rows(texts, rows), pixel_values=videos[rows], return_loss=True).loss

    train(model, step, steps=700, batch=20)
    made, videos = clips(200, seed=1)
    names = sorted({caption(clip) for clip in made})
    own = torch.tensor([names.index(caption(clip)) for clip in made])
    texts = tokens(names)
    with torch.no_grad():
        parts = [model(**texts, pixel_values=part).logits_per_video for part in videos.split(20)]
    logits = torch.cat(parts)
    to_text = (logits.argmax(1) == own).float().mean().item()
    to_video = (own[logits.argmax(0)] == torch.arange(len(names))).float().mean().item()
    print(f"{len(names)} texts: of a video {to_text:.3f}, video of a text {to_video:.3f}, {cpu_seconds():.0f} CPU s")
    assert len(names) == 6 * len(DIRECTIONS)
    assert to_text >= 0.9
    assert to_video >= 0.9


def balanced_tokenizer(videos: torch.Tensor) -> VioletVisualTokenizer:
    """Random weights, with codes that come about equally often: their logits are made alike over `videos`."""
    torch.manual_seed(0)
    half = (0.5, 0.5, 0.5)
    sizes = {"hidden_size": 16, "blocks_per_group": 1, "vocab_size": 32, "shrink": 1}
    tokenizer = VioletVisualTokenizer(VioletVisualTokenizerConfig(**sizes, image_mean=half, image_std=half)).eval()
    last = tokenizer.blocks.output.conv
    with torch.no_grad():
        logits = tokenizer.encode((videos.flatten(0, 1) + 1) / 2)
        spread, middle = logits.std((0, 2, 3)), logits.mean((0, 2, 3))
        last.weight /= spread[:, None, None, None]
        last.bias.copy_((last.bias - middle) / spread)
    return tokenizer


def entropy(labels: torch.Tensor) -> float:
    """What the best guess costs that looks at nothing: the entropy of labels that are not -100."""
    share = torch.bincount(labels[labels >= 0]).float()
    share = share[share > 0] / share.sum()
    return -(share * share.log()).sum().item()


def test_pretraining(cpu_seconds):
    """Held out, each loss against what can be had without the other side: for words, knowing the place in the sentence;
    for visual tokens, how often each code comes; for matching, a guess."""
    model = untrained(VioletForPreTraining)
    made, videos = clips(CLIPS, seed=0)
    tokenizer = balanced_tokenizer(videos[:200])
    texts = tokens([clip.caption for clip in made])
    codes = torch.cat([tokenizer(part) for part in videos.split(200)])

    def step(rows: torch.Tensor) -> torch.Tensor:
        return model(**of_rows(texts, rows), pixel_values=videos[rows], visual_tokens=codes[rows]).loss

    train(model, step, steps=500, batch=24)
    made, videos = clips(320, seed=1)
    texts, codes = tokens([clip.caption for clip in made]), tokenizer(videos)
    generator, losses, words, patches = torch.Generator().manual_seed(0), [], [], []
    with torch.no_grad():
        for rows in torch.arange(len(made)).split(16):
            hidden = model.hide(
                **of_rows(texts, rows), pixel_values=videos[rows], visual_tokens=codes[rows], generator=generator
            )
            output = model(**hidden)
            losses.append(torch.stack([output.mtm_loss, output.mvm_loss, output.vtm_loss]))
            words.append(output.mtm_labels), patches.append(output.mvm_labels)
    mtm, mvm, vtm = torch.stack(losses).mean(0).tolist()
    words = torch.cat(words)
    counts = (words >= 0).sum(0)
    placed = sum(entropy(words[:, i]) * counts[i].item() for i in range(1, 6)) / counts.sum().item()
    coded, guessed = entropy(torch.cat(patches)), np.log(4)
    print(
        f"words {mtm:.3f} (without the video {placed:.3f}), visual tokens {mvm:.3f} ({coded:.3f}), "
        f"matching {vtm:.3f} ({guessed:.3f}), {cpu_seconds():.0f} CPU seconds"
    )
    assert mtm < 0.95 * placed
    assert mvm < 0.9 * coded
    assert vtm < 0.9 * guessed
