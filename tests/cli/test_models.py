"""`hf-video models`: counted sizes and costs against published ones, and what is printed."""

from __future__ import annotations

import json

import pytest

import hf_video
from hf_video import cli
from hf_video.cli.published import NOT_LISTED, PUBLISHED
from hf_video.cli.verbs.models import count_cost, model_row
from hf_video.registry import MODELS

BY_NAME = {row.name: row for row in PUBLISHED}


def run(capsys, *arguments):
    code = cli.main(["models", *arguments])
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "parameters", "gflops"),
    [
        ("VideoMAE-B", 86_534_800, 180),
        ("TimeSformer", 121_566_352, 196),
        ("Video Swin-T", 28_158_070, 87.9),
        ("MViT-B 16x4", 36_610_672, 70.6),
        ("ViViT-B/16x2 FE", 115_062_928, 284),
        ("C3D UCF101", 78_409_573, 38.5),
        ("SlowFast-R50 8x8", 34_566_488, 65.71),
        ("X3D-M", 3_794_274, 4.73),
    ],
)
def test_counts_are_the_published_ones(name, parameters, gflops):
    """One multiply-add is one: the authors' tables say the same within 1 %."""
    row = model_row(BY_NAME[name])
    assert row["parameters"] == parameters
    assert row["gflops"] == pytest.approx(gflops, rel=0.01)


def test_attention_is_counted():
    """Joint attention over 1 + 8·196 tokens, by hand: projections, both products, MLP, patches, classifier."""
    from hf_video.cli.verbs.models import count_cost
    from hf_video.models.timesformer.configuration_timesformer import TimesformerConfig

    tokens, width = 1569, 768
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    expected = 2 * block + 1568 * width**2 + 400 * width
    config = TimesformerConfig(attention_type="joint_space_time", num_hidden_layers=2, num_labels=400)
    assert count_cost("timesformer", config)[1] == expected


def test_two_streams_cost_what_both_cost():
    both, rgb, flow = (model_row(BY_NAME[name]) for name in ("Two-stream I3D", "I3D RGB", "I3D flow"))
    for number in ("parameters", "gflops"):
        assert both[number] == pytest.approx(rgb[number] + flow[number], rel=1e-4)


def test_json(capsys):
    code, out, _ = run(capsys, "c3d", "x3d", "--json")
    rows = json.loads(out)
    assert code == cli.DONE
    assert {row["model_type"] for row in rows} == {"c3d", "x3d"}
    row = next(row for row in rows if row["model"] == "C3D UCF101")
    assert (row["input"], row["stride"], row["classes"], row["top1"]) == ([16, 112, 112], 1, 101, 83.08)
    assert "mmaction2" in row["source"]
    sports = next(row for row in rows if row["model"] == "C3D Sports-1M")
    assert sports["top1"] is sports["source"] is None


def test_table(capsys):
    code, out, _ = run(capsys, "timesformer")
    header, *lines = out.splitlines()
    assert code == cli.DONE
    assert header.split() == ["model", "type", "parameters", "GFLOPs", "input", "stride", "top-1", "data", "views"]
    assert len(lines) == 3
    expected = "TimeSformer timesformer 121,566,352 195.7 8x224x224 32 77.9 Kinetics-400 1x3"
    assert " ".join(lines[0].split()) == expected


def test_unknown_type(capsys):
    code, out, err = run(capsys, "resnet")
    assert (code, out) == (cli.WRONG, "")
    assert "'resnet'" in err
    assert "videomae" in err


def test_models_of_video_and_text_say_where_their_numbers_are(capsys):
    code, out, err = run(capsys, "videoclip")
    assert (code, out) == (cli.WRONG, "")
    assert "model_cards/videoclip.md" in err


def test_rows_are_whole():
    """Every type of classifier is there, names are unique, a quoted accuracy says where it is from."""
    assert {row.model_type for row in PUBLISHED} == set(MODELS) - set(NOT_LISTED)
    assert not any("AutoModelForVideoClassification" in MODELS[name].auto for name in NOT_LISTED)
    assert len(BY_NAME) == len(PUBLISHED)
    for row in PUBLISHED:
        quoted = (row.top1, row.data, row.views, row.source)
        assert all(quoted) or not any(quoted), row.name
        assert row.config().num_labels == row.classes


def test_models_that_call_their_clips_otherwise():
    """And have a pooler whose query is a view of a parameter, which torch's counter stumbled over."""
    config = hf_video.VJEPA2Config(
        patch_size=8, crop_size=16, frames_per_clip=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        pred_hidden_size=16, pred_num_attention_heads=2, pred_num_hidden_layers=1, num_pooler_layers=1, num_labels=3,
    )  # fmt: skip
    parameters, products = count_cost("vjepa2", config)
    assert parameters == sum(p.numel() for p in hf_video.VJEPA2ForVideoClassification(config).parameters())
    assert products > 8 * 3 * 2 * 8 * 8 * 16  # the patches alone
