"""The code of pages is run as it stands: where a page names a model on the Hub or a folder of videos, a tiny model or
generated clips lie in the working folder under that name; what is replaced is in this file. A block that does not run
has a comment before it that says why, `<!-- not run: … -->`, which readers don't see.

- `python` blocks of a page run one after the other with the same variables.
- `bash` blocks run line by line. `hf-video` is called in this process, other programs in processes of their own; of
  `pip install` it is only checked that the extras exist.
- A verb that looks out for labels may end with the exit code that says that it found some.
- A published size with random weights (`videomae:small`) is the tiny checkpoint.
- Trainings are cut to `SHORT`; `hf-video serve` opens the index, and shows no page: it would not end.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from pipelines.tiny_generation import save_git, save_llava_onevision
from tiny_text import tiny_clip_text, tiny_clip_vision, tiny_tokenizer
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import hf_video
from hf_video import cli
from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.data.untrimmed_glyphs import write_untrimmed_glyphs
from hf_video.retrieval import page as retrieval_page
from hf_video.video import write_video

ROOT = Path(__file__).parents[2]
# Classifiers on the Hub, and the classes of the tiny models in their place.
CLASSIFIERS = {
    "MCG-NJU/videomae-base-finetuned-kinetics": "VideoMAE",
    "facebook/timesformer-base-finetuned-k400": "Timesformer",
    "google/vivit-b-16x2-kinetics400": "Vivit",
    "facebook/vjepa2-vitl-fpc16-256-ssv2": "VJEPA2",
}
SIZES = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32}
DECODER = {f"decoder_{name}": value for name, value in TINY.items() if name != "image_size"}
_STEPS = ("max_steps=2", "warmup_steps=0", "report_to=none", "use_cpu=true", "dataloader_num_workers=0")
SHORT = [word for step in _STEPS for word in ("--set", f"training.{step}")]


class Block(NamedTuple):
    """A fenced block: its language ("{code-cell}" and the like for directives), its code, and why it does not run."""

    language: str
    code: str
    not_run: str

    @property
    def runs(self) -> bool:
        return self.language in ("python", "bash") and not self.not_run


def blocks(page: str | Path) -> Iterator[Block]:
    """Every fenced block of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    pattern = r"^(?:<!-- not run: ([^>]*?) -->\n+)?```([^\s`]*)[^\n`]*\n(.*?)^```[ ]*$"
    for reason, language, code in re.findall(pattern, text, re.S | re.M):
        yield Block(language, code, reason)


def run_page(page: str | Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs the page's blocks in the working folder.

    Returns:
        How many blocks ran.
    """
    monkeypatch.setattr(retrieval_page, "serve", lambda index, *, host, port: len(index))
    variables: dict = {"__name__": "__main__"}
    count = 0
    for block in blocks(page):
        if block.runs and block.language == "python":
            exec(compile(block.code, str(page), "exec"), variables)
        elif block.runs:
            run_lines(block.code)
        count += block.runs
    return count


def run_lines(code: str) -> None:
    """Runs the commands of a `bash` block; each must succeed."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if "--output" in words and (made := Path(words[words.index("--output") + 1])).is_symlink():
            made.unlink()  # the page makes itself what other pages take as given
        if words[0] == "pip":
            extras = re.findall(r"\[(.*)\]", line.partition("#")[0])
            known = (ROOT / "pyproject.toml").read_text()
            assert all(re.search(rf"^{one} = \[", known, re.M) for group in extras for one in group.split(",")), line
        elif words[0] == "hf-video":
            run_verb(words[1:])
        elif words[0] == "ffmpeg":
            if shutil.which("ffmpeg"):
                subprocess.run(words, check=True, capture_output=True)
        else:
            run_program(words)


def run_verb(words: list[str]) -> None:
    out = None
    if ">" in words:
        words, out = words[: words.index(">")], words[words.index(">") + 1]
    words = ["MCG-NJU/videomae-base" if re.fullmatch(r"videomae:\w+", word) else word for word in words]
    command = words + (SHORT if words[0] in ("train", "pretrain") else [])
    stdout = sys.stdout
    try:
        if out:
            sys.stdout = open(out, "w")  # noqa: SIM115
        code = cli.main(command)
    finally:
        if out:
            sys.stdout.close()
            sys.stdout = stdout
    allowed = {cli.DONE, cli.FOUND} if "--labels-of-interest" in words else {cli.DONE}
    assert code in allowed, f"hf-video {shlex.join(words)}: exit code {code}"


def run_program(words: list[str]) -> None:
    """`accelerate launch` and `python`, on the CPU."""
    options = []
    if words[:2] == ["accelerate", "launch"]:
        launch = ["accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1"]
        words = ["python", "-m", *launch, "--mixed_precision", "no", "--dynamo_backend", "no", *words[2:]]
    if "hf_video.cli" in words:
        options = SHORT
    assert words[0] == "python", f"nothing here says how to run {shlex.join(words)}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, *words[1:], *options], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def write_world(folder: Path) -> Path:
    """Everything that pages name: clips, folders of clips, and tiny models with random weights under their names."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    for name, frames in (("clip", 40), ("other", 40), ("long", 80), ("match", 40)):
        write_video(folder / f"{name}.mp4", rng.integers(0, 255, (frames, 48, 64, 3), dtype=np.uint8), fps=10)
    write_moving_glyphs(folder / "videos", 20)
    (folder / "labelled").symlink_to("videos")
    write_moving_glyphs(folder / "clips", 12, seed=1)
    write_untrimmed_glyphs(
        folder / "untrimmed", 4, minutes=(0.1, 0.15), size=32, test=1, lengths=(0.5, 2), pauses=(0.5, 1)
    )
    for name, model in CLASSIFIERS.items():
        save_classifier(folder / name, model)
    save_classifier(folder / "my-model", "VideoMAE")
    save_classifier(folder / "moderation-model", "VideoMAE", ["weapons", "smoke", "other"])
    (folder / "uploads").symlink_to("clips")
    labels = sorted(path.name for path in (folder / "videos").iterdir())
    for name in ("first-model", "second-model"):
        save_classifier(folder / name, "VideoMAE", labels)
    encoder = hf_video.VideoMAEForPreTraining(hf_video.VideoMAEConfig(**TINY, **DECODER, num_frames=4, patch_size=8))
    for name in ("MCG-NJU/videomae-base", "my-encoder"):
        encoder.save_pretrained(folder / name)
        hf_video.VideoMAEImageProcessor(**SIZES, num_frames=4).save_pretrained(folder / name)
    # SmolVLM's own processor needs torchvision; LLaVA-OneVision's stands in.
    save_llava_onevision(folder / "HuggingFaceTB/SmolVLM2-500M-Video-Instruct")
    save_git(folder / "microsoft/git-base-msrvtt-qa")
    save_image_text(folder / "openai/clip-vit-base-patch32")
    for part in hf_video.video_clip(folder / "openai/clip-vit-base-patch32"):
        part.save_pretrained(folder / "my-clip")
    return folder


def save_classifier(folder: Path, model: str, labels: list[str] | None = None) -> None:
    names = labels or [f"LABEL_{i}" for i in range(5)]
    ids = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    sizes = {name: size for name, size in TINY.items() if (name, model) != ("intermediate_size", "VJEPA2")}
    config = getattr(hf_video, f"{model}Config")(**sizes, **ids)
    getattr(hf_video, f"{model}ForVideoClassification")(config).save_pretrained(folder)
    getattr(hf_video, f"{model}ImageProcessor")(**SIZES).save_pretrained(folder)


def save_image_text(folder: Path) -> None:
    """An image-text model as the Hub's CLIP."""
    tokenizer = tiny_tokenizer()
    text, vision = tiny_clip_text(len(tokenizer)).to_dict(), tiny_clip_vision().to_dict()
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(**SIZES).save_pretrained(folder)
