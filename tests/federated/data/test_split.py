"""Natural clients, files of who holds what, their table and picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_video.cli.__main__ import main
from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.data.rows import ListedVideo, VideoRow, VideoRows
from hf_video.data.sources.division import assign_groups
from hf_video.errors import FederatedError, MetricError
from hf_video.evaluation.figures import holdings_figure
from hf_video.federated.data.partition import natural_clients
from hf_video.federated.data.split import ClientSplit, divide_rows

FACTS = json.loads((Path(__file__).parent.parent.parent / "golden_federated" / "golden_federated.json").read_text())
LABELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def quick_figures():
    """Here the figure is looked at."""


def rows_of(names, labels=("x",)):
    videos = [ListedVideo(name, name) for name in names]
    assign_groups(videos, None)
    return VideoRows(
        [VideoRow(one.source, n % len(labels), one.name, one.group) for n, one in enumerate(videos)], labels
    )


def test_recordings_and_clients_of_known_data_sets():
    for case in FACTS["natural_groups"]["names"]:
        for name in (case["name"], f"some_class/{case['name']}"):
            rows = rows_of([name])
            assert rows[0].group.rpartition("/")[2] == case["recording"]
            assert natural_clients(rows) == [case["client"]]


@pytest.mark.parametrize(
    ("name", "recording"),
    [
        ("climb_stairs/The_Climb_climb_stairs_f_cm_np1_fr_med_12.avi", "The_Climb"),
        ("sword/kick_ball_sword_h_nm_np2_le_bad_3.avi", "kick_ball"),
        ("train/Fight/-1l5631l3fg_0.avi", "-1l5631l3fg"),
        ("val/NonFight/10uSOcwS_12.avi", "10uSOcwS"),
        ("other/10uSOcwS_12.avi", None),
        ("brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "April_09"),
    ],
)
def test_recordings_of_hmdb51_and_rwf2000(name, recording):
    assert rows_of([name])[0].group == recording


def test_natural_clients_cut_across_classes():
    names = [f"{c}/v_{c}_g{g:02d}_c{n:02d}.avi" for c in ("Archery", "YoYo") for g in (1, 2, 25) for n in (1, 2)]
    rows = rows_of(names, LABELS)
    parts = divide_rows(rows, "natural", None)
    assert [{rows[row].name.split("_")[2] for row in part} for part in parts] == [{"g01"}, {"g02"}, {"g25"}]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert len(divide_rows(rows, "recording", 6)) == 6  # by recording, classes are apart
    with pytest.raises(FederatedError, match=r"which recording 'plain\.mp4'"):
        divide_rows(rows_of(["plain.mp4"]), "natural", None)
    with pytest.raises(FederatedError, match="How many clients"):
        divide_rows(rows, "iid", None)


def test_a_split_is_written_and_read(tmp_path):
    rows = rows_of([f"{n:02d}.mp4" for n in range(24)], LABELS)
    split = ClientSplit.of(rows, "dirichlet:0.5", 4, seed=3)
    split.save(tmp_path / "split.json")
    assert ClientSplit.read(tmp_path / "split.json") == split
    assert divide_rows(rows, str(tmp_path / "split.json"), None) == split.parts(rows)
    assert split.parts(rows) == divide_rows(rows, "dirichlet:0.5", 4, seed=3)
    counts = split.counts(rows)
    assert counts.sum(0).tolist() == [8, 8, 8]
    lines = split.table(rows).splitlines()
    assert lines[0].split() == ["client", "videos", *LABELS]
    assert [int(cell) for cell in lines[2].split()[1:]] == [counts[1].sum(), *counts[1]]
    assert split.table(rows, most_classes=2).splitlines()[1].split()[2] == str((counts[0] > 0).sum())


def test_splits_that_are_wrong(tmp_path):
    rows, path = rows_of(["a.mp4", "b.mp4"]), tmp_path / "split.json"
    ClientSplit({"one": ["a.mp4"], "two": ["c.mp4"]}, ["x"], "iid").save(path)
    with pytest.raises(FederatedError, match=r"'two' should have 'c\.mp4'"):
        divide_rows(rows, str(path), None)
    with pytest.raises(FederatedError, match="has 2 clients, and 3"):
        divide_rows(rows, str(path), 3)
    ClientSplit({"one": ["a.mp4"], "two": ["a.mp4"]}, ["x"], "iid").save(path)
    with pytest.raises(FederatedError, match="stands there twice"):
        ClientSplit.read(path)
    for text in ("[]", '{"clients": 3}', "nothing"):
        path.write_text(text)
        with pytest.raises(FederatedError, match="no division of videos"):
            ClientSplit.read(path)


def test_the_picture_has_a_disc_for_each_holding(tmp_path):
    def blue(counts):
        path = holdings_figure(np.array(counts), ["one", "two"], LABELS, tmp_path / "who.png")
        pixels = np.asarray(Image.open(path).convert("RGB"), dtype=int)
        return (np.abs(pixels - (47, 109, 181)).sum(2) < 30).sum()

    # Areas are numbers of videos, the largest being the same in all pictures.
    assert blue([[9, 0, 4], [0, 1, 0]]) / blue([[9, 0, 0], [0, 0, 0]]) == pytest.approx(14 / 9, rel=0.1)
    with pytest.raises(MetricError, match="Counts of 1 clients"):
        holdings_figure(np.ones((2, 3)), ["one"], LABELS, tmp_path / "who.png")


def test_the_command_prints_writes_and_draws(tmp_path, capsys):
    write_moving_glyphs(tmp_path / "videos", 16, size=32, num_frames=2)
    written, drawn = tmp_path / "split.json", tmp_path / "who.png"
    arguments = ["--clients", "3", "--partition", "labels:2", "--output", str(written), "--figure", str(drawn)]
    assert main(["federated", "partition", str(tmp_path / "videos"), *arguments]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["client", "videos", "down", "left", "right", "up"]
    split = ClientSplit.read(written)
    assert sum(map(len, split.clients.values())) == 16
    assert all(len({name.split("/")[0] for name in names}) == 2 for names in split.clients.values())
    assert drawn.stat().st_size > 1000
    assert main(["federated", "partition", str(tmp_path / "videos"), "--partition", "iidd"]) != 0
