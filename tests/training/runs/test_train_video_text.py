"""Contrastive training from a list of pairs to pipelines: the plan, resuming, gradient caching, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_text import tiny_tokenizer
from tiny_video_text import save_videoclip, save_violet
from transformers import AutoModel, AutoProcessor, CLIPConfig, pipeline

import hf_video
from hf_video.data.moving_glyphs import moving_glyph
from hf_video.errors import CheckpointError, ConfigError, DataError
from hf_video.training.contrastive_trainer import ContrastiveTrainer
from hf_video.training.recipes import load_recipe
from hf_video.training.runs.video_text import fit_to_captions, train_video_text, video_text_recipe
from hf_video.video import write_video

QUICK = (
    *("training.use_cpu=true", "training.dataloader_num_workers=0", "training.report_to=none"),
    *("training.per_device_train_batch_size=6", "training.num_train_epochs=2", "training.min_train_steps=0"),
    *("training.save_steps=1", "data.num_frames=4"),
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    rng, lines = np.random.default_rng(0), ["video,caption"]
    for i in range(16):
        clip = moving_glyph(("left", "right", "up", "down")[i % 4], rng, num_frames=6, size=32)
        write_video(folder / f"{i}.mp4", clip.frames, 8.0)
        lines.append(f"{i}.mp4,{clip.caption} {i}")
    (folder / "pairs.csv").write_text("\n".join(lines))
    return folder / "pairs.csv"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_videoclip(tmp_path_factory.mktemp("model"))


def run(pairs, model, output, *settings, **options):
    options = {"recipe": "video_text_small", "test_size": 0.25, **options}
    return train_video_text(pairs, str(model), output=output, settings=[*QUICK, *settings], **options)


def weights(folder):
    return AutoModel.from_pretrained(folder).state_dict()


def test_from_pairs_to_pipelines(pairs, model, tmp_path, capsys):
    summary = run(pairs, model, tmp_path, hard_negatives=True)
    told = capsys.readouterr().out
    assert "12 train (of 12 videos), 4 test (of 4 videos)" in told
    assert "hard negatives" in told
    assert summary["steps"] == 4
    assert set(summary["evaluation"]["test"]) >= {"test_text_to_video_R1", "test_video_to_text_median_rank"}
    assert json.loads((tmp_path / "training_summary.json").read_text())["evaluation"] == summary["evaluation"]
    assert any((value != weights(model)[name]).any() for name, value in weights(tmp_path).items())
    assert AutoProcessor.from_pretrained(tmp_path).image_processor.num_frames == 4
    classify = pipeline("zero-shot-video-classification", model=str(tmp_path), device="cpu")
    assert len(classify(str(pairs.parent / "0.mp4"), candidate_labels=["ring", "disc"])) == 2


def test_a_batch_is_no_larger_than_the_captions_are_many(pairs, model, tmp_path):
    """A second video with the same caption would be taken for a wrong one."""
    videos = [line.partition(",")[0] for line in pairs.read_text().splitlines()[1:]]
    settings = [one for one in QUICK if "batch_size" not in one]
    for captions, batch in ((16, 16), (5, 4)):
        rows = [{"video": name, "caption": f"ring {i % captions}"} for i, name in enumerate(videos)]
        listed = tmp_path / "list.json"
        listed.write_text(json.dumps(rows))
        options = {"recipe": "video_text_small", "videos": pairs.parent, "test_size": 0.0, "settings": settings}
        summary = train_video_text(listed, str(model), output=tmp_path / str(captions), **options)
        assert summary["plan"]["batch"] == batch
    listed.write_text(json.dumps([{**row, "caption": "ring"} for row in rows]))
    with pytest.raises(DataError, match="nothing to tell apart"):
        train_video_text(listed, str(model), output=tmp_path / "1", **options)


@pytest.mark.parametrize(("captions", "batch", "steps"), [(64, 32, 1200), (19, 16, 2400), (3, 2, 4800)])
def test_smaller_batches_more_steps(captions, batch, steps):
    rows = [SimpleNamespace(name=str(i), caption=f"ring {i % captions}") for i in range(200)]
    made = fit_to_captions(load_recipe("video_text_small"), rows)["training"]
    assert (made["per_device_train_batch_size"], made["min_train_steps"]) == (batch, steps)
    typed = fit_to_captions(load_recipe("video_text_small"), rows, ["training.min_train_steps=1200"])["training"]
    assert typed["min_train_steps"] == 1200


def test_gradient_caching_trains_alike(pairs, model, tmp_path):
    plain, cached = tmp_path / "plain", tmp_path / "cached"
    # Adam makes steps of rounding where a gradient is 0 in exact arithmetic (the bias of attention's keys).
    sgd = ("training.optim=sgd", "training.learning_rate=0.1", "training.num_train_epochs=1")
    run(pairs, model, plain, *sgd)
    run(pairs, model, cached, *sgd, chunk_size=4)
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(cached)[name], value, atol=1e-4, rtol=1e-4, msg=name)


def test_resuming_is_as_if_nothing_had_happened(pairs, model, tmp_path):
    whole = tmp_path / "whole"
    run(pairs, model, whole)
    cut = shutil.copytree(whole, tmp_path / "cut")
    for path in [cut / "model.safetensors", *(cut / "checkpoint-4").iterdir()]:
        path.unlink()  # as if it had been killed in the third or fourth step
    with pytest.raises(ConfigError, match="--resume"):
        run(pairs, model, cut)
    with pytest.raises(ConfigError, match="hard_negatives"):
        run(pairs, model, cut, resume=True, hard_negatives=True)
    assert run(pairs, model, cut, resume=True)["steps"] == 4
    for name, value in weights(whole).items():
        assert torch.equal(weights(cut)[name], value), name


def test_from_clip_and_violet(pairs, model, tmp_path, tmp_path_factory):
    from tiny_text import tiny_clip_text, tiny_clip_vision
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer, folder = tiny_tokenizer(), tmp_path / "clip"
    text = tiny_clip_text(len(tokenizer)).to_dict()
    torch.manual_seed(0)
    CLIPModel(
        CLIPConfig(text_config=text, vision_config=tiny_clip_vision().to_dict(), projection_dim=64)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size, half = {"height": 32, "width": 32}, [0.5] * 3
    CLIPImageProcessorPil(size=size, crop_size=size, image_mean=half).save_pretrained(folder)
    run(pairs, folder, tmp_path / "lstm", "training.num_train_epochs=1", recipe="clip4clip:lstm")
    trained = AutoModel.from_pretrained(tmp_path / "lstm")
    assert trained.config.temporal == "lstm"
    assert AutoProcessor.from_pretrained(tmp_path / "lstm").image_processor.image_mean == half
    assert trained.config.num_frames == 4
    violet = save_violet(tmp_path_factory.mktemp("violet"))
    output = tmp_path / "violet-out"
    summary = run(pairs, violet, output, "training.num_train_epochs=1", recipe="violet_retrieval")
    assert summary["evaluation"]["test"]["test_text_to_video_R10"] == 1
    match = pipeline("video-text-retrieval", model=str(tmp_path / "violet-out"), device="cpu")
    assert type(match.model).__name__ == "VioletForVideoTextRetrieval"


def test_the_papers_recipe():
    recipe = load_recipe("clip4clip")
    training = recipe["training"]
    assert (training["learning_rate"], training["backbone_rate"], training["weight_decay"]) == (1e-4, 1e-3, 0.2)
    assert (training["adam_beta1"], training["adam_beta2"], training["adam_epsilon"]) == (0.9, 0.98, 1e-6)
    assert (training["per_device_train_batch_size"], training["num_train_epochs"]) == (128, 5)
    assert (training["warmup_steps"], training["schedule"], training["max_grad_norm"]) == (0.1, "cosine", 1.0)
    assert recipe["data"]["num_frames"] == 12
    heads = {variant: load_recipe(f"clip4clip:{variant}")["model"]["temporal"] for variant in ("lstm", "tight")}
    assert heads == {"lstm": "lstm", "tight": "tight"}


def test_new_modules_learn_faster(model, tmp_path):
    config = hf_video.VideoCLIPConfig.from_pretrained(model)
    config.temporal = "transformer"
    fresh = hf_video.VideoCLIPModel(config)
    processor = AutoProcessor.from_pretrained(model)
    args = hf_video.training.VideoTrainingArguments(
        output_dir=str(tmp_path),
        learning_rate=1e-4,
        backbone_rate=1e-3,
        weight_decay=0.2,
        use_cpu=True,
        report_to="none",
    )
    trainer = ContrastiveTrainer(fresh, args, processing_class=processor)
    groups = trainer.create_optimizer().param_groups
    names = {id(p): name for name, p in fresh.named_parameters()}
    assert sum(len(group["params"]) for group in groups) == len(names)
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["lr"] == pytest.approx(1e-4 if name.startswith("temporal_head.") else 1e-7), name
            assert group["weight_decay"] == (0.0 if parameter.ndim <= 1 else 0.2), name


def test_layers_learn_at_their_own_rates_beside_new_modules(model, tmp_path):
    """`layer_decay` and `backbone_rate` together: the product for what was there, the full rate for the new head."""
    config = hf_video.VideoCLIPConfig.from_pretrained(model)
    config.temporal = "transformer"
    fresh = hf_video.VideoCLIPModel(config)
    rates = {"learning_rate": 1e-2, "backbone_rate": 0.1, "layer_decay": 0.5}
    args = hf_video.training.VideoTrainingArguments(str(tmp_path), **rates, use_cpu=True, report_to="none")
    trainer = ContrastiveTrainer(fresh, args, processing_class=AutoProcessor.from_pretrained(model))
    found = {id(p): group["lr"] for group in trainer.create_optimizer().param_groups for p in group["params"]}
    layers = fresh.layer_groups()
    depth = {name: len(layers) - 1 - layer for layer, names in enumerate(layers) for name in names}
    assert max(depth.values()) >= 2
    for name, parameter in fresh.named_parameters():
        backbone = 1.0 if name.startswith("temporal_head.") else 0.1
        assert found[id(parameter)] == pytest.approx(1e-2 * backbone * 0.5 ** depth[name]), name


@pytest.mark.parametrize(
    ("settings", "options", "error", "message"),
    [
        (("training.gradient_accumulation_steps=2",), {}, ConfigError, "chunk_size"),
        (("training.per_device_train_batch_size=64",), {}, ConfigError, "64 videos"),
        (("augmentation.flip=0.5",), {}, ConfigError, "mirrors"),
        (("data.frames=3",), {}, ConfigError, "'frames'"),
        ((), {"recipe": "small_data"}, ConfigError, "is for classification, and this is video-text"),
        ((), {"chunk_size": 0}, ConfigError, "chunk_size"),
    ],
)
def test_what_is_refused(pairs, model, tmp_path, settings, options, error, message):
    with pytest.raises(error, match=message):
        run(pairs, model, tmp_path, *settings, **options)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_no_such_model(pairs, tmp_path):
    with pytest.raises(CheckpointError, match="no model"):
        run(pairs, tmp_path / "none", tmp_path / "out")
    with pytest.raises(ConfigError, match="processor="):
        train_video_text(
            pairs, hf_video.VideoCLIPModel.from_pretrained(save_videoclip(tmp_path / "m")), recipe="video_text_small",
            output=tmp_path / "out", settings=QUICK,
        )  # fmt: skip


DRIVER = """
import os, sys
import hf_video.training.contrastive_trainer as trainer
from hf_video.training.runs.video_text import train_video_text

plain = trainer.evaluate_retrieval

def told(*given, **options):
    print("reads the videos:", os.environ["RANK"], flush=True)
    return plain(*given, **options)

trainer.evaluate_retrieval = told
made = train_video_text(
    sys.argv[1], sys.argv[2], output=sys.argv[3], recipe="video_text_small", test_size=0.25, settings=sys.argv[4:]
)
print("rank", os.environ["RANK"], made["evaluation"]["test"], flush=True)
"""


@pytest.mark.slow
def test_one_of_two_processes_evaluates(pairs, model, tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    root = str(Path(__file__).parents[3])
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONPATH": root}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29547"]
    done = subprocess.run(
        [*launch, str(script), str(pairs), str(model), str(tmp_path / "out"), *QUICK],
        env={**os.environ, **quiet}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("reads the videos") == done.stdout.count("reads the videos: 0") == 1
    first, second = (line for line in sorted(done.stdout.splitlines()) if line.startswith("rank "))
    assert first.removeprefix("rank 0") == second.removeprefix("rank 1")
    told = json.loads((tmp_path / "out" / "training_summary.json").read_text())["evaluation"]["test"]
    assert f"'test_text_to_video_mean_rank': {told['test_text_to_video_mean_rank']}" in first


def test_the_recipe_where_none_is_named():
    """By the kind of the model, and whether it is wide enough for the rates of the papers."""
    tiny = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
    swin = {"embed_dim": 8, "num_heads": (1, 1, 1, 1), "temporal_stride": 1}
    for config, recipe in (
        (CLIPConfig(), "clip4clip"),
        (CLIPConfig(text_config=tiny), "video_text_small"),
        (hf_video.VioletConfig(), "violet_retrieval"),
        (
            hf_video.VioletConfig(video_config=swin, text_config=tiny),
            "violet_retrieval:small",
        ),
    ):
        assert video_text_recipe(SimpleNamespace(config=config)) == recipe
    with pytest.raises(CheckpointError, match="is no model here or on the Hub"):
        video_text_recipe("./nowhere")
