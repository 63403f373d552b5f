"""VideoStream: every video once, whoever reads, and the same samples each time."""

from __future__ import annotations

import datasets
import pytest
import torch
from sources.test_load_other import add, write_shard

import hf_video
from hf_video.data import VideoCollator, VideoStream
from hf_video.errors import DataError
from hf_video.training import VideoTrainer, VideoTrainingArguments
from hf_video.video.augment.augmentation import Augmentation

LABELS = ["down", "left", "right", "up"]


@pytest.fixture
def shards(clips, tmp_path):
    """Three shards of 16 clips."""
    paths = sorted(clips.rglob("*.mp4"))
    for shard in range(3):
        write_shard(tmp_path / f"{shard}.tar", paths[shard::3], "json")
    return str(tmp_path / "{0..2}.tar")


def samples(stream, workers=0):
    """`{sum of pixels: label}`: which samples came, in whatever order."""
    loader = torch.utils.data.DataLoader(stream, batch_size=3, num_workers=workers, collate_fn=VideoCollator())
    found = {}
    for batch in loader:
        for values, label in zip(batch["pixel_values"], batch["labels"].tolist(), strict=True):
            found[float(values.double().sum())] = label
    return found


def test_workers_share_out_shards_or_samples(shards, processor):
    stream = VideoStream(shards, processor, labels=LABELS, augmentation=Augmentation(32), shuffle=4)
    alone = samples(stream)
    assert len(alone) == 16
    assert sorted(alone.values()) == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    for workers in (2, 4):
        assert samples(stream, workers) == alone
    stream.set_epoch(1)
    assert samples(stream).keys() != alone.keys()


def test_order_is_kept_without_shuffling_and_drawn_with(shards, processor):
    stream = VideoStream(shards, processor, labels=LABELS)
    assert [s["labels"] for s in stream][:6] == [0, 0, 1, 2, 3, 3]  # every third of 16
    shuffled = VideoStream(shards, processor, labels=LABELS, shuffle=8)
    orders = []
    for epoch in (0, 1, 0):
        shuffled.set_epoch(epoch)
        orders.append([float(s["pixel_values"].sum()) for s in shuffled])
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_datasets_streams(clips, processor):
    paths = sorted(clips.rglob("*.mp4"))
    features = datasets.Features({"video": datasets.Video(), "label": datasets.ClassLabel(names=LABELS)})
    cells = {"video": [str(p) for p in paths], "label": [p.parent.name for p in paths]}
    stream = datasets.Dataset.from_dict(cells, features=features).to_iterable_dataset(num_shards=4)
    found = samples(VideoStream(stream, processor), 2)
    assert sorted(found.values()) == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert [s["labels"] for s in VideoStream(stream, processor, repeats=1)][:5] == [0, 0, 0, 0, 1]
    reversed_names = VideoStream(stream, processor, labels=LABELS[::-1])
    assert next(iter(reversed_names))["labels"] == 3


def test_a_webdataset_builders_stream(shards, processor, tmp_path):
    stream = datasets.load_dataset(
        "webdataset", data_files=str(tmp_path / "*.tar"), streaming=True, split="train", cache_dir=str(tmp_path / "c")
    )
    found = [sample["labels"] for sample in VideoStream(stream, processor, labels=LABELS)]
    assert sorted(found) == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4


def test_what_is_broken_is_passed_over_and_named(clips, processor, tmp_path):
    paths = sorted(clips.rglob("*.mp4"))[:4]
    write_shard(tmp_path / "a.tar", paths, "cls", extra=("bad.mp4", b"no video"))
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[: len(whole) // 2])
    stream = VideoStream([tmp_path / "a.tar", tmp_path / "b.tar"], processor, labels=LABELS)
    found = list(stream)
    assert 4 < len(found) < 8
    assert {entry.name for entry in stream.skipped()} == {"a.tar/bad.mp4", "b.tar"}
    strict = VideoStream(tmp_path / "a.tar", processor, labels=LABELS, on_error="raise")
    with pytest.raises(ValueError, match="not a video"):
        list(strict)


def test_too_many_broken_ones_stop(processor, tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(20):
            add(tar, f"{number}.mp4", b"no video")
    with pytest.raises(DataError, match="11 of 11 videos could not be read"):
        list(VideoStream(tmp_path / "a.tar", processor))


def test_labels_that_are_names_need_their_order(shards, processor):
    with pytest.raises(DataError, match="which is a name: pass labels="):
        next(iter(VideoStream(shards, processor)))
    with pytest.raises(DataError, match="none of the 1 classes"):
        list(VideoStream(shards, processor, labels=["down"]))


def test_a_trainer_reads_it(shards, processor, tmp_path):
    """Two passes over 16 clips, of which one worker has 11 and one 5: five batches each, all clips, in new orders."""
    config = {"image_size": 32, "patch_size": 16, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 1}
    torch.manual_seed(0)
    model = hf_video.VideoMAEForVideoClassification(
        hf_video.VideoMAEConfig(**config, num_attention_heads=2, intermediate_size=16, num_labels=4)
    )
    stream = VideoStream(shards, processor, labels=LABELS, shuffle=8, augmentation=Augmentation(32, erase_prob=0))
    seen = []
    model.register_forward_pre_hook(lambda _, args, inputs: seen.append(inputs["labels"].tolist()), with_kwargs=True)
    arguments = VideoTrainingArguments(
        str(tmp_path / "run"), max_steps=10, per_device_train_batch_size=4, dataloader_num_workers=2, use_cpu=True,
        report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = VideoTrainer(model, arguments, train_dataset=stream, processing_class=processor)
    trainer.train()
    assert trainer.state.global_step == len(seen) == 10
    for epoch in (seen[:5], seen[5:]):
        assert sorted(label for batch in epoch for label in batch) == sorted(4 * [0, 1, 2, 3])
    assert seen[:5] != seen[5:]
    assert trainer.state.log_history[-1]["train_loss"] > 0
