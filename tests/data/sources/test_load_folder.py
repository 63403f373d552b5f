"""Folders of videos: splits, labels, what is skipped and why, and the automatic split."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from hf_video.data import VideoRow, VideoRows, load_videos
from hf_video.data.rows import ListedVideo
from hf_video.data.sources import inspection
from hf_video.data.sources.division import assign_groups, choose_test
from hf_video.data.sources.inspection import InspectionCache, inspect_all
from hf_video.errors import DataError, VideoOptionError
from hf_video.video.writer import write_video


def black(frames):
    return np.zeros((frames, 32, 32, 3), np.uint8)


def noise(frames):
    return np.random.default_rng(0).integers(0, 256, (frames, 48, 64, 3), dtype=np.uint8)


DIRECTIONS = ["down", "left", "right", "up"]


def kinds(rows):
    return {entry.name: entry.kind for entry in rows.skipped}


def test_label_folders_are_split_by_class_and_the_same_seed_splits_alike(folder):
    splits = load_videos(folder)
    assert list(splits) == ["train", "test"]
    assert splits["train"].labels == splits["test"].labels == DIRECTIONS
    assert splits["train"].counts() == dict.fromkeys(DIRECTIONS, 3)
    assert splits["test"].counts() == dict.fromkeys(DIRECTIONS, 1)
    names = [row.name for row in splits["test"]]
    assert names == [row.name for row in load_videos(folder)["test"]]
    assert any(names != [row.name for row in load_videos(folder, seed=seed)["test"]] for seed in (1, 2, 3))
    assert all(row.name.split("/")[0] == DIRECTIONS[row.label] for row in splits["train"])


def test_folders_of_splits_by_all_their_names(folder, tmp_path):
    root = tmp_path / "splits"
    for split, below in (("training", "left"), ("val", "left"), ("Test", "up")):
        shutil.copytree(folder / below, root / split / below)
    shutil.copy(next((folder / "up").iterdir()), root / "beside.mp4")
    splits = load_videos(root)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 4, "validation": 4, "test": 4}
    assert splits["test"].labels == ["left", "up"]
    assert splits["test"][0].label == 1
    assert kinds(splits["train"]) == {"beside.mp4": "format"}
    assert list(load_videos(root, split="test")) == ["test"]
    with pytest.raises(DataError, match=r"no split 'dev'\. Known: test, train, validation"):
        load_videos(root, split="dev")


def test_everything_that_is_not_used_is_named_with_its_kind(folder):
    clip = next((folder / "left").iterdir())
    (folder / "left" / "notes.txt").write_text("x")
    (folder / "left" / ".hidden.mp4").write_bytes(b"")
    (folder / "left" / "empty.mp4").write_bytes(b"")
    (folder / "left" / "text.mp4").write_text("no video at all\n" * 99)
    (folder / "up" / "cut.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    write_video(folder / "up" / "two.webm", black(2), 8)
    (folder / "nothing").mkdir()
    shutil.copy(clip, folder / "beside.mp4")
    (folder / "README.md").write_text("x")
    rows = load_videos(folder, split="train", num_frames=4)["train"]
    assert kinds(rows) == {
        "left/notes.txt": "format",
        "left/empty.mp4": "empty",
        "left/text.mp4": "not a video",
        "up/cut.mp4": "damaged",
        "up/two.webm": "short",
        "nothing/": "no videos",
        "beside.mp4": "unlabelled",
        "README.md": "other",
    }
    used = {entry.name for entry in rows.skipped if entry.used}
    assert used == {"up/cut.mp4", "up/two.webm"}
    assert used < {row.name for row in rows}
    assert str(folder) not in "".join(entry.reason for entry in rows.skipped)
    assert len(rows) == 18
    strict = load_videos(folder, split="train", min_frames=3)["train"]
    assert "up/two.webm" not in {row.name for row in strict}


@pytest.mark.parametrize("suffix", [".webm", ".gif", ".avi", ".mkv", ".mov"])
def test_every_container_counts_as_a_video(folder, suffix):
    write_video(folder / "up" / f"other{suffix}", black(8), 8)
    rows = load_videos(folder, split="train")["train"]
    assert f"up/other{suffix}" in {row.name for row in rows}
    assert rows.skipped == []


def test_videos_without_labels_are_one_split(clips, tmp_path):
    for number, path in enumerate(sorted(clips.rglob("*.mp4"))):
        shutil.copy(path, tmp_path / f"{number}.mp4")
    splits = load_videos(tmp_path)
    assert list(splits) == ["train"]
    assert not splits["train"].labels
    assert not splits["train"].labelled
    assert [row.name for row in splits["train"]] == [f"{i}.mp4" for i in range(16)]  # 2 before 10
    assert len(load_videos(tmp_path, test_size=0.25)["test"]) == 4


def test_wrong_sources_say_what_is_allowed(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        load_videos(tmp_path / "absent")
    with pytest.raises(DataError, match="holds no video"):
        load_videos(tmp_path)
    with pytest.raises(DataError, match="is no source of videos"):
        load_videos(3)
    (tmp_path / "x.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"None of the 1 videos .* can be used"):
        load_videos(tmp_path)
    with pytest.raises(DataError, match="one of 'folder', 'list', 'datasets', 'webdataset'"):
        load_videos(tmp_path, data_format="zip")
    with pytest.raises(VideoOptionError, match="inspect='closely' must be one of 'open', 'full', None"):
        load_videos(tmp_path, inspect="closely")


def test_labels_of_a_model_give_the_numbers(folder):
    labels = ["up", "right", "left", "down", "still"]
    rows = load_videos(folder, labels=labels)["train"]
    assert rows.labels == labels
    assert all(labels[row.label] == row.name.split("/")[0] for row in rows)
    with pytest.raises(DataError, match="'down', which is none of the 2 classes"):
        load_videos(folder, labels=["up", "downn"])


def test_rows_know_their_labels():
    rows = VideoRows([VideoRow("a", 0, "a"), VideoRow("b", 1, "b")], ["x", "y"])
    assert rows.label2id == {"x": 0, "y": 1}
    assert rows.id2label == {0: "x", 1: "y"}
    assert [row.name for row in rows.select([1])] == ["b"]
    assert len(rows[:1]) == 1
    with pytest.raises(DataError, match="has label 2"):
        VideoRows([VideoRow("a", 2, "a")], ["x", "y"])


class TestGroups:
    def test_two_clips_of_a_recording_never_stand_on_both_sides(self):
        videos = [
            ListedVideo("", f"{c}/v_{c}_g{g:02d}_c{k:02d}.avi", c)
            for c in "ABC"
            for g in range(1, 26)
            for k in range(4)
        ]
        assign_groups(videos, None)
        for seed in range(5):
            test = choose_test(videos, 0.2, seed)
            sides = {}
            for video, side in zip(videos, test, strict=True):
                sides.setdefault(video.group, set()).add(side)
            assert all(len(side) == 1 for side in sides.values())
            assert len(sides) == 75
            assert [sum(t for v, t in zip(videos, test, strict=True) if v.label == c) for c in "ABC"] == [20] * 3

    @pytest.mark.parametrize(
        ("name", "group"),
        [
            ("Archery/v_Archery_g01_c02.avi", "v_Archery_g01"),
            ("abseiling/-3B32lodo2M_000059_000069.mp4", "-3B32lodo2M"),
            ("cook/kitchen one_clip_12.mp4", "kitchen one"),
            ("cook/plain12.mp4", None),
        ],
    )
    def test_known_names(self, name, group):
        video = ListedVideo("", name, "x")
        assign_groups([video], None)
        assert video.group == group

    def test_own_pattern(self, folder):
        splits = load_videos(folder, group_pattern=r"0000(\d)")
        sides = [{row.group for row in rows if row.group} for rows in splits.values()]
        assert not sides[0] & sides[1]
        with pytest.raises(DataError, match="matches none"):
            load_videos(folder, group_pattern="nowhere")
        with pytest.raises(DataError, match="no regular expression"):
            load_videos(folder, group_pattern="(")

    def test_a_class_of_one_recording_stays_in_training_and_small_ones_are_tested(self):
        videos = [ListedVideo("", f"a{i}", "a", group="one") for i in range(5)]
        videos += [ListedVideo("", f"b{i}", "b", group="large") for i in range(9)] + [
            ListedVideo("", "b9", "b", group="small")
        ]
        for seed in range(5):
            test = choose_test(videos, 0.2, seed)
            assert [v.name for v, t in zip(videos, test, strict=True) if t] == ["b9"]

    def test_order_does_not_matter(self):
        videos = [ListedVideo("", f"{i:03d}", "ab"[i % 2]) for i in range(40)]
        chosen = {v.name for v, t in zip(videos, choose_test(videos, 0.25, 3), strict=True) if t}
        back = videos[::-1]
        assert chosen == {v.name for v, t in zip(back, choose_test(back, 0.25, 3), strict=True) if t}
        assert len(chosen) == 10


class TestInspection:
    def test_a_second_look_opens_nothing_until_a_file_changes(self, folder, monkeypatch):
        load_videos(folder)
        opened = []
        real = inspection.inspect_video
        monkeypatch.setattr(inspection, "inspect_video", lambda s, **k: opened.append(s) or real(s, **k))
        load_videos(folder)
        assert opened == []
        changed = next((folder / "up").iterdir())
        changed.write_bytes(b"")
        assert kinds(load_videos(folder)["train"]) == {f"up/{changed.name}": "empty"}
        assert opened == [str(changed)]

    def test_a_spoilt_or_forbidden_cache_is_done_without(self, folder, tmp_path):
        load_videos(folder, cache_dir=tmp_path / "c")
        (file,) = (tmp_path / "c").iterdir()
        file.write_bytes(b'\xff\xfe{"key": 1}\n[]\n' + file.read_bytes()[:-7])
        assert len(InspectionCache(str(folder), tmp_path / "c")._known) == 15
        assert len(load_videos(folder, cache_dir=tmp_path / "c")["train"]) == 12
        (tmp_path / "a_file").write_text("")
        assert len(load_videos(folder, cache_dir=tmp_path / "a_file" / "below")["train"]) == 12

    def test_full_decodes_what_open_can_not_see(self, tmp_path):
        path = write_video(tmp_path / "a.mp4", noise(40), 8, keyframe_interval=100)
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) * 3 // 4] = bytes(len(data) * 3 // 4 - len(data) // 2)
        path.write_bytes(data)
        quick, full = (inspect_all([str(path)], level=level)[0] for level in ("open", "full"))
        assert quick.kind is None
        assert full.kind == "damaged"
        assert full.usable
