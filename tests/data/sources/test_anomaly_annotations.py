"""Annotations of anomalies in the forms of the data sets, and what is wrong with a line, by its number."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from hf_video.data.sources.anomalies import read_anomalies, read_video_labels, runs
from hf_video.errors import BackendError, DataError

UCF = """Abuse028_x264.mp4  Abuse  165  240  -1  -1  
Arson011_x264.mp4  Arson  150  420  680  1267  
Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1  
"""


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_ucf_crime(tmp_path):
    found = read_anomalies(write(tmp_path / "Temporal_Anomaly_Annotation.txt", UCF))
    assert found.form == "ucf-crime"
    assert found.segments == {
        "Abuse028_x264": [(165, 240)],
        "Arson011_x264": [(150, 420), (680, 1267)],
        "Normal_Videos_003_x264": [],
    }
    assert found.frames == {}
    for name in ("Abuse028_x264", "Abuse/Abuse028_x264.mp4", "Abuse028_x264.npy"):
        assert found.find(name) == "Abuse028_x264"
    assert found.find("Abuse029_x264") is None


def test_xd_violence(tmp_path):
    path = write(
        tmp_path / "annotations.txt", "Bad.Boys.1995__#01_label_G-B2-B6 157 180 185 244\nv=u5__#1_label_G-0-0 77 1430\n"
    )
    found = read_anomalies(path)
    assert found.form == "xd-violence"
    assert found.segments["Bad.Boys.1995__#01_label_G-B2-B6"] == [(157, 180), (185, 244)]
    assert found.find("test/Bad.Boys.1995__#01_label_G-B2-B6.mp4") == "Bad.Boys.1995__#01_label_G-B2-B6"
    assert found.find("v=abc__#1_label_A.mp4") == "v=abc__#1_label_A"  # normal videos have no line
    assert found.find("v=abc__#1_label_B1-0-0.mp4") is None
    kinds = write(tmp_path / "multiclass.txt", "v=u5__#1_label_B4-0-0 B4 0 1517 G 1970 3038\n")
    assert read_anomalies(kinds).segments == {"v=u5__#1_label_B4-0-0": [(0, 1517), (1970, 3038)]}


def test_shanghaitech(tmp_path):
    np.save(tmp_path / "01_0014.npy", np.array([0, 1, 1, 0, 1]))
    np.save(tmp_path / "01_0015.npy", np.zeros(3, np.uint8))
    found = read_anomalies(tmp_path)
    assert (found.form, found.frames) == ("shanghaitech", {"01_0014": 5, "01_0015": 3})
    assert found.segments == {"01_0014": [(1, 3), (4, 5)], "01_0015": []}
    np.save(tmp_path / "02.npy", np.array([0, 2]))
    with pytest.raises(DataError, match=r"02\.npy"):
        read_anomalies(tmp_path)


def test_avenue(tmp_path, monkeypatch):
    scipy_io = pytest.importorskip("scipy.io")
    masks = np.empty((1, 4), object)
    for frame in range(4):
        masks[0, frame] = np.zeros((3, 4), np.uint8)
    masks[0, 2][1, 1] = 1
    scipy_io.savemat(tmp_path / "1_label.mat", {"volLabel": masks})
    found = read_anomalies(tmp_path)
    assert (found.form, found.segments, found.frames) == ("avenue", {"01": [(2, 3)]}, {"01": 4})
    assert found.find("01.avi") == found.find("1") == "01"
    real = builtins.__import__

    def without_scipy(name, *arguments, **options):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(BackendError, match="pip install"):
        read_anomalies(tmp_path)


def test_ubnormal(tmp_path):
    """Their last frame is included."""
    folder = tmp_path / "Scene1" / "abnormal_scene_1_scenario_1_annotations"
    folder.mkdir(parents=True)
    write(folder / "abnormal_scene_1_scenario_1_tracks.txt", "3,100,119\n7.0,110,130\n")
    found = read_anomalies(tmp_path)
    assert (found.form, found.segments) == ("ubnormal", {"abnormal_scene_1_scenario_1": [(100, 120), (110, 131)]})
    assert found.find("normal_scene_1_scenario_2.mp4") == "normal_scene_1_scenario_2"


def test_own_json(tmp_path):
    path = write(tmp_path / "a.json", '{"a": {"frames": 20, "segments": [[2, 5]]}, "b": {"segments": []}}')
    found = read_anomalies(path)
    assert (found.segments, found.frames) == ({"a": [(2, 5)], "b": []}, {"a": 20})


def test_runs():
    assert runs([1, 1, 0, 1]) == [(0, 2), (3, 4)]
    assert runs([]) == []


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("ucf.txt", UCF + "Arson016_x264  Arson  1000\n", "line 4: 3 words"),
        ("ucf.txt", UCF + "Arson016_x264  Arson  1000  900  -1  -1\n", "line 4: an anomaly from frame 1000 to 900"),
        ("ucf.txt", UCF + "Arson016_x264  Arson  1000  -1  -1  -1\n", "line 4: an anomaly from frame 1000 to -1"),
        ("ucf.txt", UCF + "Arson016_x264  Arson  a  900  -1  -1\n", "line 4: 'a' and '900'"),
        ("ucf.txt", UCF + UCF, "line 4: Abuse028_x264 has a line already"),
        ("xd.txt", "a_label_G 1 2 3\n", "line 1: 3 numbers"),
        ("xd.txt", "a_label_G 2 1\n", "line 1: an anomaly"),
        ("xd.txt", "a_label_G 2 4\n\na_label_G 2 4\n", "line 3: a_label_G has a line already"),
        ("a.json", '{"a": {"frames": 20}}', "segments"),
        ("a.json", '{"a": {"frames": 20, "segments": [[5, 2]]}}', "a: an anomaly from frame 5 to 2"),
        ("a.json", "[1", "must hold"),
        ("empty.txt", "\n", "no annotations"),
    ],
)
def test_wrong_lines(tmp_path, name, text, words):
    with pytest.raises(DataError, match=words):
        read_anomalies(write(tmp_path / name, text))


def test_what_is_not_there_or_not_known(tmp_path):
    with pytest.raises(DataError, match="There is no"):
        read_anomalies(tmp_path / "none.txt")
    with pytest.raises(DataError, match="ubnormal"):
        read_anomalies(tmp_path)
    with pytest.raises(DataError, match="ucf-crime"):
        read_anomalies(write(tmp_path / "ucf.txt", UCF), "ucf")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Abuse/Abuse001_x264.mp4\nTraining-Normal-Videos-Part-1/Normal_Videos001_x264.mp4\n", [1, 0]),
        ("v=a__#1_label_A\nv=b__#1_label_B1-0-0\n", [0, 1]),
        ("abnormal_scene_1_scenario_1\nnormal_scene_1_scenario_1\n", [1, 0]),
        ("video,label\na b.mp4,normal\nc.mp4,abnormal\n", [0, 1]),
        ("01_001 0\n01_0130 1\n", [0, 1]),
    ],
)
def test_lists_of_training_videos(tmp_path, text, labels):
    assert list(read_video_labels(write(tmp_path / "list.txt", text)).values()) == labels


@pytest.mark.parametrize(
    ("text", "words"),
    [("a.mp4 0\nb.mp4\n", "line 2: 'b.mp4' doesn't tell"), ("a.mp4 0\na.mp4 1\n", "line 2: a.mp4"), ("", "names no")],
)
def test_wrong_lists(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        read_video_labels(write(tmp_path / "list.txt", text))
