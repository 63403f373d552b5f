"""The measuring core of benchmarks/ on jobs of known cost, its table, and (slow) the whole script on tiny inputs."""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import backends, clips, memory, readers, report, run
from benchmarks.measure import NotEqualError, Row, Times, absent, compare, race, ratio, require_close
from benchmarks.setting import Setting, machine, why_absent

ROOT = Path(run.__file__).resolve().parents[1]


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.slow
def test_candidates_take_turns_and_the_warm_up_is_not_counted():
    calls = []
    times = race({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert all(len(t.cpu) == len(t.wall) == 3 for t in times.values())


def test_garbage_collector_is_off_during_a_measure_and_back_afterwards():
    seen = []

    def fail():
        raise RuntimeError

    race({"a": lambda: seen.append(gc.isenabled())}, 2)
    assert seen == [False] * 3
    assert gc.isenabled()
    with pytest.raises(RuntimeError):
        race({"a": fail}, 1)
    assert gc.isenabled()


@pytest.mark.slow
def test_sleeping_costs_wall_time_and_burning_costs_both():
    times = race({"sleep": lambda: time.sleep(0.05), "burn": lambda: burn(0.05)}, 3, warmup=0)
    assert min(times["sleep"].wall) >= 50
    assert max(times["sleep"].cpu) < 25
    assert min(times["burn"].cpu) >= 50


def test_ratio_is_the_median_of_the_rounds_not_of_the_times():
    # A machine that slows down fourfold half way: each round still says one half.
    assert ratio([1.0, 1.0, 4.0], [2.0, 2.0, 8.0]) == 0.5
    assert ratio([1.0, 9.0, 3.0], [2.0, 3.0, 1.0]) == 3.0
    assert ratio([1.0, 2.0, 3.0], [20.0]) == 0.1


@pytest.mark.parametrize(("target", "met"), [(0.5, True), (0.49, False), (None, None)])
def test_row_of_a_comparison(target, met):
    times = {"ours": Times(cpu=[1, 2, 3], wall=[9, 9, 9]), "peer": Times(cpu=[2, 4, 6], wall=[3, 3, 3])}
    row = compare(times, "ours", "peer", area="reading", job="16 frames", kind="cpu", target=target)
    assert (row.ours, row.peer, row.ratio, row.other_ratio, row.rounds) == (2, 4, 0.5, 3, 3)
    assert row.met is met
    assert row.as_dict()["met"] is met


def test_unequal_results_are_not_timed():
    require_close("logits", 1e-5, 1e-4)
    for difference in (2e-4, math.nan, math.inf):
        with pytest.raises(NotEqualError, match=r"logits: results differ by .* 0\.0001 is allowed"):
            require_close("logits", difference, 1e-4)


def results(rows: list[Row]) -> dict:
    return {"machine": machine(Setting(1, 2, Path())), "rows": [row.as_dict() for row in rows]}


def test_report_tells_times_targets_and_what_is_missing():
    times = {"hf_video": Times([200.0], [250.0]), "torchcodec": Times([400.0], [1500.0])}
    common = {"area": "reading", "job": "a clip"}
    rows = [
        compare(times, "hf_video", "torchcodec", kind="cpu", target=0.65, **common),
        compare(times, "hf_video", "torchcodec", kind="wall", target=0.1, note="one round", **common),
        absent("hf_video", times["hf_video"], "decord", "not installed", kind="cpu", **common),
        Row("reading", "memory", "hf_video", 49.6, "limit", 150, 0.33, kind="memory", target=1.0),
    ]
    text = report.markdown(results(rows))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == list(report.HEADER)
    assert lines[2] == ["a clip", "hf_video", "200 ms", "torchcodec", "400 ms", "CPU", "0.50×", "≤ 0.65×", "yes"]
    assert lines[3] == ["a clip", "hf_video", "250 ms", "torchcodec", "1.5 s", "wall", "0.17×", "≤ 0.1×", "**no**"]
    assert lines[4] == ["a clip", "hf_video", "200 ms", "decord", "not installed", "CPU", "–", "", ""]
    assert lines[5][2:] == ["50 MB", "limit", "150 MB", "peak", "0.33×", "≤ 1×", "yes"]
    assert "- a clip, hf_video against torchcodec: one round." in text
    assert text.endswith("2 of 3 targets met.\n- Not met: a clip, hf_video against torchcodec (0.17×, not 0.1×).")


def test_quick_runs_judge_no_target():
    assert Setting(1, 2, Path(), quick=True).target(0.5) is None
    assert Setting(1, 2, Path()).target(0.5) == 0.5


def test_missing_package_is_named():
    assert why_absent("numpy") is None
    assert why_absent("no_such_package_here") == "not installed"


def test_repeated_clip_shows_the_stretch_again_and_readers_agree(tmp_path):
    recipe = clips.Recipe("a clip", 48, 64, frames=12, gop=6, times=3, preset="ultrafast")
    path = clips.clip(recipe, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    from hf_video.video import VideoReader

    with VideoReader(path) as reader:
        data = reader.get_frames(range(len(reader))).data
        assert len(data) == 36
        assert np.allclose(np.diff(reader.timestamps), 1 / clips.FPS)
    assert np.array_equal(data[:12], data[12:24])
    assert np.array_equal(data[:12], data[24:])
    assert not np.array_equal(data[0], data[5])
    chosen = data[readers.indices(36)]
    assert np.array_equal(readers.ours(path), chosen)
    assert np.array_equal(readers.stock(path), chosen)
    stamp = path.stat().st_mtime_ns
    assert clips.clip(recipe, tmp_path).stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_peak_memory_is_that_of_the_reading_process_alone(tmp_path):
    path = clips.clip(clips.Recipe("a clip", 480, 640, frames=32, preset="ultrafast"), tmp_path)
    ballast = np.ones(100_000_000)  # 800 MB here must not show in the other process
    used = memory.peak_mb(readers.OURS, path)
    del ballast
    frames = 16 * 480 * 640 * 3 / 1e6
    assert frames < used < 150


@pytest.mark.parametrize("argv", [["--only", "speed"], ["--rounds", "0"], ["--clip", "no_such_file.mp4"]])
def test_wrong_arguments_are_named(argv, capsys):
    with pytest.raises(SystemExit):
        run.arguments(argv)
    assert argv[1] in capsys.readouterr().err


@pytest.mark.slow
def test_quick_run_of_everything(tmp_path):
    """Every area runs, results are equal (else it stops), and the file can be reported."""
    output = tmp_path / "results.json"
    command = [sys.executable, "benchmarks/run.py", "--quick", "--cache", str(tmp_path), "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = json.loads(output.read_text())
    assert {row["area"] for row in written["rows"]} == set(run.AREAS)
    assert all(row["met"] is None for row in written["rows"])
    compared = [row for row in written["rows"] if row["ratio"] is not None]
    assert all(row["ratio"] > 0 and row["ours"] > 0 and row["peer"] > 0 for row in compared)
    assert {"stock fp32", "stock PIL processor", readers.STOCK} <= {row["peer_name"] for row in compared}
    again = subprocess.run(
        [sys.executable, "benchmarks/report.py", str(output)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert again.stdout.startswith("A quick run")


@pytest.mark.slow
def test_quick_run_of_static_patches(tmp_path):
    command = [sys.executable, "benchmarks/static_patches.py", "--quick", "--output", str(tmp_path / "rows.json")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows["accuracy"]) == 4
    assert 0.25 < rows["times"]["the small model"]["patches"] < 0.6


# -- every way to compute a model --------------------------------------------------------------------------------------


def test_table_has_a_row_for_each_candidate_and_the_floor():
    ours, other = Times(cpu=[10, 20, 40], wall=[10, 10, 20]), Times(cpu=[5, 10, 20], wall=[20, 20, 40])
    rows = [backends.row(backends.UNIT, ours, ours, 0.01), backends.row("OpenVINO f32", other, ours, 1e-6)]
    measured = {
        "model": "X3D-M 16x224²", "threads": 1, "gflop": 5.0, "gflops": {"product fp32": 100.0}, "floor": {"fp32": 4.0},
        "rows": rows, "absent": {"stock fp32": "transformers has no such model"},
    }  # fmt: skip
    told = machine(Setting(3, 1, Path()), backends.PACKAGES)
    text = backends.markdown({"machine": told, "measured": [measured]})
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines == [
        "| | X3D-M 16x224² |",
        "|---|---|",
        "| hf_video bf16 | 1.00 (1.00) |",
        "| OpenVINO f32 | 2.00 (0.50) |",
        "| floor: products in fp32 alone | 0.40 |",
        "| hf_video bf16, milliseconds | 10 ms |",
    ]
    assert told["cpu"] in text
    assert "- X3D-M 16x224², stock fp32: transformers has no such model" in text


@pytest.mark.parametrize("words", [["--models", "VideoMAE-H"], ["--rounds", "0"], ["--threads", "two"]])
def test_wrong_arguments_of_backends_are_named(words, capsys):
    with pytest.raises(SystemExit):
        backends.arguments(words)
    assert "--models takes VideoMAE-B,VideoMAE-S" in capsys.readouterr().err


@pytest.mark.slow
def test_quick_run_of_backends(tmp_path):
    command = [sys.executable, "benchmarks/backends.py", "--quick", "--rounds", "2", "--threads", "1"]
    options = ["--models", "VideoMAE-S,X3D-M", "--cache", str(tmp_path), "--output", str(tmp_path / "results.json")]
    done = subprocess.run([*command, *options, "--no-compile"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "results.json").read_text())["measured"]
    assert [one["model"].partition(" ")[0] for one in measured] == ["VideoMAE-S", "X3D-M"]
    names = {row["name"] for row in measured[0]["rows"]}
    assert {"stock fp32", "hf_video fp32", backends.UNIT} <= names
    assert all(row["wall"]["ms"] > 0 for one in measured for row in one["rows"])
    assert done.stdout.count("| floor: products in") == 2


@pytest.mark.slow
def test_every_way_to_compute_agrees_at_full_size(tmp_path):
    """The whole table with one round: what no runtime can is named, and nothing else is missing. An hour, exports
    included."""
    pytest.importorskip("nncf")
    pytest.importorskip("openvino")
    output = tmp_path / "results.json"
    command = [sys.executable, "benchmarks/backends.py", "--rounds", "1", "--threads", "1", "--cache", str(tmp_path)]
    done = subprocess.run([*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = {one["model"]: one for one in json.loads(output.read_text())["measured"]}
    absent = {name.partition(" ")[0]: sorted(one["absent"]) for name, one in measured.items()}
    assert absent == {
        "VideoMAE-B": [], "VideoMAE-S": [], "TimeSformer-B": [], "Video-Swin-T": ["stock fp32"],
        "X3D-M": ["ONNX Runtime int8", "stock fp32"],
    }  # fmt: skip
    exact = ("stock fp32", "hf_video fp32", "OpenVINO f32", "ONNX Runtime")
    rows = [row for one in measured.values() for row in one["rows"]]
    assert all(row["difference"] <= backends.EXACT for row in rows if row["name"] in exact)
    assert all(row["difference"] <= backends.EIGHT for row in rows)
