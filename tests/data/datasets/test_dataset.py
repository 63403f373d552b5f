"""VideoDataset: the same samples whoever reads them, and what happens to files that can't be read."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hf_video.data import Skipped, VideoCollator, VideoDataset, VideoRow, VideoRows, load_videos
from hf_video.errors import DamagedVideoError, DataError, NotAVideoError, VideoOptionError
from hf_video.video import VideoReader, sample_video
from hf_video.video import reader as reader_module
from hf_video.video.augment.augmentation import Augmentation
from hf_video.video.augment.temporal import TemporalAugmentation
from hf_video.video.writer import write_video


@pytest.fixture
def rows(clips):
    return load_videos(clips, split="train", inspect=None)["train"]


def training(rows, processor, **options):
    return VideoDataset(rows, processor, augmentation=Augmentation(32, flip=0.5), **options)


def batches(dataset, size, workers=0, **options):
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=size, collate_fn=VideoCollator(), num_workers=workers, **options
    )
    return torch.cat([batch["pixel_values"] for batch in loader])


class TestDeterminism:
    def test_workers_and_batch_size_change_nothing(self, rows, processor):
        dataset = training(rows, processor)
        alone = torch.stack([dataset[i]["pixel_values"] for i in range(16)])
        assert torch.equal(batches(dataset, 4, workers=2), alone)
        assert torch.equal(batches(dataset, 5), alone)
        assert torch.equal(training(rows, processor)[9]["pixel_values"], alone[9])

    def test_seed_and_epoch_change_it_also_in_workers_that_live_on(self, rows, processor):
        dataset = training(rows, processor)
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=8, collate_fn=VideoCollator(), num_workers=1, persistent_workers=True
        )
        epochs = []
        for epoch in (0, 1, 0):
            dataset.set_epoch(epoch)
            epochs.append(torch.cat([batch["pixel_values"] for batch in loader]))
        assert torch.equal(epochs[0], epochs[2])
        assert not torch.equal(epochs[0], epochs[1])
        dataset.set_epoch(1)
        assert torch.equal(epochs[1][3], dataset[3]["pixel_values"])
        assert not torch.equal(training(rows, processor, seed=5)[0]["pixel_values"], epochs[0][0])

    def test_samples_do_not_draw_from_the_global_generators(self, rows, processor):
        dataset = training(rows, processor)
        torch.manual_seed(1)
        np.random.seed(1)
        first, state = dataset[0]["pixel_values"], torch.get_rng_state()
        torch.manual_seed(1)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        assert torch.equal(dataset[0]["pixel_values"], first)


class TestSamples:
    def test_evaluation_is_what_the_processor_makes_of_the_file(self, rows, processor):
        dataset = VideoDataset(rows, processor)
        sample = dataset[6]
        assert torch.equal(sample["pixel_values"], processor(rows[6].source, return_tensors="pt").pixel_values[0])
        assert sample["labels"] == rows[6].label
        assert sample["pixel_values"].dtype == torch.float32
        assert set(sample) == {"pixel_values", "labels", "seed"}
        assert torch.equal(dataset[-1]["pixel_values"], dataset[15]["pixel_values"])
        with pytest.raises(IndexError):
            dataset[16]

    def test_training_by_hand(self, rows, processor):
        """The sampler's frames, the same crop for all, normalised by the processor alone."""
        augmentation = Augmentation(32, rand_augment=None, erase_prob=0, flip=0)
        dataset = VideoDataset(rows, processor, augmentation=augmentation, sampler="dense", num_frames=3)
        sample = dataset[2]
        found = []
        with VideoReader(rows[2].source) as reader:
            for start in range(6):
                clip = torch.from_numpy(reader.get_frames(range(start, start + 3)).data)
                g = torch.Generator().manual_seed(sample["seed"])
                values = processor(
                    augmentation(clip, generator=g), do_resize=False, do_center_crop=False, return_tensors="pt"
                ).pixel_values[0]
                found.append(torch.equal(values, sample["pixel_values"]))
        assert sum(found) == 1

    def test_training_samples_start_anywhere_and_evaluation_does_not(self, rows, processor):
        for sampler, options in ((None, None), ("dense", {"stride": 1}), ("at_fps", {"rate": 1, "target_fps": 8})):
            train = training(rows, processor, sampler=sampler, sampler_options=options)
            test = VideoDataset(rows, processor, sampler=sampler, sampler_options=options)
            with VideoReader(rows[0].source) as reader:
                assert len({tuple(train.request.choose(reader, s).indices[0]) for s in range(20)}) > 2
                assert len({tuple(test.request.choose(reader, s).indices[0]) for s in range(20)}) == 1
        fixed = training(rows, processor, sampler="dense", sampler_options={"start": "spread"})
        with VideoReader(rows[0].source) as reader:
            assert len({tuple(fixed.request.choose(reader, s).indices[0]) for s in range(20)}) == 1

    def test_the_processors_sampler_keeps_its_stride(self, rows, processor):
        strided = type(processor)(**{**processor.to_dict(), "sampler": "center", "sampler_options": {"stride": 2}})
        with VideoReader(rows[0].source) as reader:
            indices = training(rows, strided).request.choose(reader, 0).indices[0]
        assert (np.diff(indices) == 2).all()

    def test_repeats_decode_once_and_differ(self, rows, processor, monkeypatch):
        reads = []
        real = reader_module.VideoReader.get_frames
        monkeypatch.setattr(
            reader_module.VideoReader, "get_frames", lambda self, i: reads.append(len(i)) or real(self, i)
        )
        dataset = training(rows, processor, repeats=3)
        samples = dataset[0]
        assert reads == [4]
        assert len(samples) == 3
        assert not torch.equal(samples[0]["pixel_values"], samples[1]["pixel_values"])
        assert len({sample["seed"] for sample in samples}) == 3
        assert torch.equal(samples[0]["pixel_values"], training(rows, processor)[0]["pixel_values"])
        assert batches(dataset, 2).shape == (48, 4, 3, 32, 32)

    def test_temporal_augmentation_changes_the_frames(self, rows, processor):
        augmentation = Augmentation(32, crop="center", short_side=32, rand_augment=None, erase_prob=0, flip=0)
        plain = VideoDataset(rows, processor, sampler="uniform", augmentation=augmentation)[0]
        back = VideoDataset(
            rows, processor, sampler="uniform", augmentation=augmentation, temporal=TemporalAugmentation(reverse=1.0)
        )[0]
        assert torch.equal(back["pixel_values"], plain["pixel_values"].flip(0))

    def test_mirrored_clips_may_change_their_label(self, rows, processor):
        augmentation = Augmentation(32, flip="swap").for_labels(rows.labels)
        dataset = VideoDataset(rows, processor, augmentation=augmentation)
        labels = {rows.labels[row.label]: set() for row in rows}
        for i, row in enumerate(rows):
            for epoch in range(6):
                dataset.set_epoch(epoch)
                labels[rows.labels[row.label]].add(rows.labels[dataset[i]["labels"]])
        assert labels == {"up": {"up"}, "down": {"down"}, "left": {"left", "right"}, "right": {"left", "right"}}

    def test_unlabelled_rows_have_no_labels(self, rows, processor):
        bare = VideoRows([VideoRow(row.source, None, row.name) for row in rows])
        sample = training(bare, processor)[0]
        assert set(sample) == {"pixel_values", "seed"}
        assert set(VideoCollator()([sample])) == {"pixel_values"}

    def test_frames_are_read_small(self, rows, processor):
        assert training(rows, processor, resize=16).request.decode == {"shortest_edge": 16}
        assert training(rows, processor).request.decode == {}
        assert VideoDataset(rows, processor).request.decode == {"shortest_edge": 32}
        fixed = Augmentation(16, crop="random", short_side=24, rand_augment=None)
        assert VideoDataset(rows, processor, augmentation=fixed).request.decode == {"shortest_edge": 24}
        ranged = Augmentation(16, crop="random", short_side=(24, 28), rand_augment=None)
        assert VideoDataset(rows, processor, augmentation=ranged).request.decode == {}


class TestViews:
    def test_every_view_is_that_of_the_processor(self, tmp_path, processor):
        frames = np.random.default_rng(0).integers(0, 256, (20, 32, 64, 3), dtype=np.uint8)
        path = write_video(tmp_path / "wide.mkv", frames, 8, codec="ffv1")
        rows = VideoRows([VideoRow(str(path), 0, "a"), VideoRow(str(path), 0, "b")], ["x"])
        dataset = VideoDataset(rows, processor, sampler="dense", sampler_options={"stride": 2}, views=(2, 3))
        assert len(dataset) == 12
        truth = processor(
            path, sampler="dense", sampler_options={"stride": 2, "num_clips": 2}, num_crops=3, return_tensors="pt"
        ).pixel_values
        assert torch.equal(batches(dataset, 5), torch.cat([truth, truth]))
        spread = VideoDataset(rows, processor, views=2)
        with VideoReader(path) as reader:
            sample = sample_video(reader, 4, sampler="uniform_views", num_clips=2)
            clip = reader.get_frames(sample.indices[1]).data
        truth = processor(clip, return_tensors="pt").pixel_values[0]
        assert torch.equal(spread[3]["pixel_values"], truth)

    def test_wrong_views(self, rows, processor):
        for views in (0, (2, 2), (1, 2, 3), "5x2"):
            with pytest.raises(VideoOptionError, match="views="):
                VideoDataset(rows, processor, views=views)
        with pytest.raises(VideoOptionError, match="views are for evaluation"):
            training(rows, processor, views=2)


class TestFlow:
    def test_two_streams_see_the_same_augmented_frames(self, rows):
        pytest.importorskip("cv2")
        from hf_video import TwoStreamImageProcessor

        processor = TwoStreamImageProcessor(num_frames=2, flow_length=3, size=32, crop_size=32, flow_method="dis")
        sample = training(rows, processor)[0]
        assert sample["pixel_values"].shape == (2, 3, 32, 32)
        assert sample["flow_values"].shape == (2, 6, 32, 32)
        again = batches(training(rows, processor), 16, workers=1)
        assert torch.equal(again[0], sample["pixel_values"])
        plain = VideoDataset(rows, processor)[0]
        whole = processor(rows[0].source, return_tensors="pt")
        assert torch.equal(plain["pixel_values"], whole.pixel_values[0])
        assert torch.equal(plain["flow_values"], whole.flow_values[0])


class TestErrors:
    @pytest.fixture
    def broken(self, rows, tmp_path):
        """16 clips, of which number 3 is text and number 5 has two frames."""
        (tmp_path / "text.mp4").write_text("no video\n" * 50)
        write_video(tmp_path / "two.mp4", np.zeros((2, 32, 32, 3), np.uint8), 8)
        changed = list(rows)
        changed[3] = VideoRow(str(tmp_path / "text.mp4"), 1, "text.mp4")
        changed[5] = VideoRow(str(tmp_path / "two.mp4"), 1, "two.mp4")
        return VideoRows(changed, rows.labels)

    def test_a_bad_file_is_replaced_alike_everywhere_and_named_once(self, broken, processor, tmp_path):
        log = tmp_path / "logs" / "skipped.jsonl"
        dataset = training(broken, processor, skipped_log=log)
        alone = torch.stack([dataset[i]["pixel_values"] for i in range(16)])
        assert torch.equal(batches(dataset, 3, workers=2), alone)
        assert {(entry.name, entry.kind, entry.used) for entry in dataset.skipped()} == {
            ("text.mp4", "not a video", False),
            ("two.mp4", "short", True),
        }
        (entry,) = [entry for entry in dataset.skipped() if entry.name == "text.mp4"]
        assert "not a video" in entry.reason
        assert str(tmp_path) not in entry.reason
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert 2 <= len(lines) <= 6  # at most once for each process
        log.write_text(log.read_text() + '{"name": "cut o')
        assert len(training(broken, processor, skipped_log=log).skipped()) == 2

    def test_raise(self, broken, processor):
        with pytest.raises(NotAVideoError):
            training(broken, processor, on_error="raise")[3]

    def test_too_many_stop(self, broken, processor, tmp_path):
        rows = [broken[3], *[VideoRow(str(tmp_path / "gone.mp4"), 0, f"gone{i}") for i in range(3)], *list(broken)[:2]]
        dataset = training(VideoRows(rows, broken.labels), processor, max_errors=0.2)
        found = [dataset[0], dataset[1]]
        assert len(found) == 2
        with pytest.raises(DataError, match=r"3 of 6 videos could not be read, and max_errors=0.2 allows 2"):
            dataset[2]

    def test_processes_count_together(self, broken, processor, tmp_path):
        rows = [VideoRow(str(tmp_path / "gone.mp4"), 0, f"gone{i}") for i in range(4)] + list(broken)[:3]
        log = tmp_path / "skipped.jsonl"
        first, second = (
            training(VideoRows(rows, broken.labels), processor, max_errors=0.2, skipped_log=log, seed=3)
            for _ in range(2)
        )
        for name in ("gone0", "gone1", "of another data set"):
            first._log.add(Skipped(name, "", "damaged"))
        with pytest.raises(DataError, match="3 of 7 videos"):
            second[2]

    def test_a_video_damaged_inside_is_recorded(self, tmp_path, rows, processor, monkeypatch):
        def damaged(self, indices):
            raise DamagedVideoError("frame 3 can't be decoded")

        dataset = training(rows, processor, max_errors=1.0)
        monkeypatch.setattr(reader_module.VideoReader, "get_frames", damaged)
        with pytest.raises(DataError, match="20 files in a row"):
            dataset[0]

    def test_options_without_meaning(self, rows, processor):
        for wrong in ({"on_error": "stop"}, {"max_errors": 2}, {"repeats": 0}, {"repeats": True}):
            with pytest.raises(VideoOptionError, match=next(iter(wrong))):
                VideoDataset(rows, processor, **wrong)
        with pytest.raises(DataError, match="no videos"):
            VideoDataset(VideoRows([]), processor)
        with pytest.raises(VideoOptionError, match="how many frames"):
            VideoDataset(rows, type(processor)())
