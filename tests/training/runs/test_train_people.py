"""From videos and AVA's CSV to a folder that tells what people do, in a few steps; whether it learns is a slow test."""

from __future__ import annotations

import json
import time

import pytest
from moving_people import ACTIONS, write_scenes
from transformers import pipeline

import hf_video
from hf_video.cli import main
from hf_video.data.sources.box_files import read_boxes
from hf_video.errors import ConfigError, DataError
from hf_video.evaluation.detection.boxes import frame_map_of_files
from hf_video.training.recipes import load_recipe
from hf_video.training.runs.spatio_temporal import train_people

SLOWFAST = {
    "model_type": "slowfast", "stem_channels": 8, "beta_inverse": 4, "depths": [1, 1], "slow_kernels": [1, 3],
    "fast_kernels": [3, 3], "num_frames": 8, "image_size": 32,
}  # fmt: skip
VIDEOMAE = {
    "model_type": "videomae", "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 24, "patch_size": 8, "num_frames": 4, "image_size": [32, 48],
}  # fmt: skip
QUICK = ("training.max_steps=2", "training.per_device_train_batch_size=2", "training.report_to=none")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    actions = "".join(f'item {{ name: "{name}" id: {number} }}\n' for number, name in ACTIONS.items())
    (folder / "actions.pbtxt").write_text(actions)
    return folder / "videos", write_scenes(folder / "videos", 5)


def configured(folder, fields):
    path = folder / f"{fields['model_type']}.json"
    path.write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize("fields", [SLOWFAST, VIDEOMAE], ids=lambda fields: fields["model_type"])
def test_a_finished_folder(scenes, tmp_path, capsys, fields):
    videos, annotations = scenes
    actions = annotations.parent / "actions.pbtxt"
    output, model = tmp_path / "run", configured(tmp_path, fields)
    settings = [part for one in (*QUICK, f"data.actions={actions}") for part in ("--set", one)]
    asked = ["--task", "spatio-temporal-detection", "--annotations", str(annotations), "--model", str(model)]
    assert main(["train", str(videos), *asked, "--output", str(output), *settings]) == 0
    summary = json.loads((output / "training_summary.json").read_text())
    assert set(summary["evaluation"]) == {"test"}
    assert (output / "README.md").is_file()
    report = json.loads((output / "evaluation" / "test" / "report.json").read_text())
    assert set(report["average_precision"]) <= set(ACTIONS.values())
    # The files say the same as the run.
    found = frame_map_of_files(output / "evaluation" / "test" / "detections.csv", annotations, actions=actions)
    files = ["--predictions", str(output / "evaluation" / "test" / "detections.csv"), "--annotations", str(annotations)]
    assert main(["evaluate", "--task", "spatio-temporal-detection", *files, "--actions", str(actions), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.partition("Saved to")[2].partition("\n")[2])
    assert said["average_precision"] == found.ap
    tested = {line.video for line in read_boxes(output / "evaluation" / "test" / "detections.csv").lines}
    assert 0 < len(tested) < 5
    assert set(found.ap) == set(ACTIONS.values())
    # The model says the same as the run, on the videos that it has not seen.
    asked = ["evaluate", str(videos), "--task", "spatio-temporal-detection", "--model", str(output), "--json"]
    assert main([*asked, "--annotations", str(annotations), "--output", str(tmp_path / "again")]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["average_precision"] == pytest.approx(report["average_precision"], abs=1e-6)
    assert (again["found"], again["total"]) == (report["found"], report["total"])
    assert (tmp_path / "again" / "detections.csv").is_file()
    assert main([*asked, "--annotations", str(annotations), "--split", "validation"]) == 2
    assert "There is no split 'validation'" in capsys.readouterr().err
    detect = pipeline("spatio-temporal-action-detection", model=str(output))
    assert detect.model.config.action_ids == list(ACTIONS)
    events = detect(videos / "scene_000.mp4", boxes={1.0: [[10, 10, 30, 30]]}, threshold=0.0)
    assert {event.label for event in events} == set(ACTIONS.values())
    if fields is SLOWFAST:
        assert detect.model.config.map_stride == 4  # the last stage kept its size
    assert detect.image_processor.sampler_options == {"stride": 1 if fields is SLOWFAST else 2}


def test_a_classifier_s_folder_is_a_start(scenes, tmp_path):
    config = hf_video.SlowFastConfig(**{k: v for k, v in SLOWFAST.items() if k != "model_type"}, num_labels=3)
    start = tmp_path / "classifier"
    hf_video.SlowFastForVideoClassification(config).save_pretrained(start)
    hf_video.SlowFastImageProcessor(size={"shortest_edge": 32}).save_pretrained(start)
    output = tmp_path / "run"
    train_people(*scenes, start, output=output, settings=(*QUICK, "training.learning_rate=0"))
    loaded = hf_video.SlowFastForSpatioTemporalActionDetection.from_pretrained(output)
    assert (loaded.config.spatial_strides, loaded.config.num_labels) == ([1, 1], 4)
    before = hf_video.SlowFastForVideoClassification.from_pretrained(start)
    name = "slowfast.encoder.layer.1.slow.conv_b.conv.weight"
    assert loaded.state_dict()[name].equal(before.state_dict()[name])


def test_what_can_not_be_trained(scenes, tmp_path):
    videos, annotations = scenes
    model = configured(tmp_path, SLOWFAST)
    with pytest.raises(ConfigError, match="no ForSpatioTemporalActionDetection"):
        train_people(videos, annotations, "c3d", output=tmp_path / "a")
    with pytest.raises(ConfigError, match="frame_sampling_rate"):
        train_people(videos, annotations, model, output=tmp_path / "a", settings=["data.frame_sampling_rates=2"])
    with pytest.raises(ConfigError, match="is for classification"):
        train_people(videos, annotations, model, output=tmp_path / "a", recipe="tiny")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(annotations.read_text() + "scene_000,1,0.5,0.5,0.4,0.6,3,0\n")
    with pytest.raises(DataError, match=r"line \d+: the box"):
        train_people(videos, wrong, model, output=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_recipes_are_the_authors():
    slow, mae = load_recipe("people:slow-ava"), load_recipe("people:videomae-ava")
    fast = load_recipe("people:slowfast-ava")["training"]
    assert (fast["learning_rate"], fast["effective_batch_size"], fast["num_train_epochs"]) == (0.1, 64, 20)
    assert (fast["weight_decay"], fast["milestone_epochs"], fast["warmup_epochs"]) == (1e-7, [10, 15], 5)
    assert (slow["data"]["num_frames"], slow["data"]["frame_sampling_rate"]) == (4, 16)
    assert mae["augmentation"]["jitter"] == [0.2, 0.1, 0.1, 0.05]
    training = mae["training"]
    assert (training["base_learning_rate"], training["base_batch_size"], training["layer_decay"]) == (5e-4, 256, 0.75)
    assert (training["num_train_epochs"], training["weight_decay"], mae["model"]["drop_path_rate"]) == (30, 0.05, 0.2)


@pytest.mark.slow
def test_it_learns_what_figures_do(tmp_path):
    """At least 85 % frame-mAP on held-out scenes, in less than ten minutes of two cores."""
    annotations = write_scenes(tmp_path / "videos", 100)
    fields = {
        "model_type": "videomae", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "intermediate_size": 256, "patch_size": 8, "num_frames": 8, "image_size": [64, 96],
    }  # fmt: skip
    begin = time.process_time()
    summary = train_people(tmp_path / "videos", annotations, configured(tmp_path, fields), output=tmp_path / "run")
    assert time.process_time() - begin < 2 * 600
    assert summary["evaluation"]["test"]["mean_average_precision"] >= 0.85
