"""Batches: stacking, mixing from seeds, and the memory in which workers hand them over."""

from __future__ import annotations

import pytest
import torch

from hf_video.data import VideoCollator
from hf_video.data.datasets import collate
from hf_video.errors import DataError
from hf_video.video.augment.mixing import Mixing


def sample(number, frames=2, **more):
    generator = torch.Generator().manual_seed(number)
    return {
        "pixel_values": torch.randn(frames, 3, 8, 8, generator=generator),
        "labels": number % 3,
        "seed": number,
        **more,
    }


class Samples(torch.utils.data.Dataset):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return sample(index)


def test_samples_and_lists_of_samples_are_stacked():
    batch = VideoCollator()([[sample(0), sample(1)], sample(2)])
    assert set(batch) == {"pixel_values", "labels"}
    assert torch.equal(batch["pixel_values"][1], sample(1)["pixel_values"])
    assert batch["labels"].tolist() == [0, 1, 2]
    assert batch["labels"].dtype == torch.int64


def test_label_smoothing():
    labels = VideoCollator(num_labels=4, label_smoothing=0.2)([sample(0), sample(1)])["labels"]
    assert torch.allclose(labels, torch.tensor([[0.85, 0.05, 0.05, 0.05], [0.05, 0.85, 0.05, 0.05]]))


def test_mixing_depends_on_the_samples_alone():
    collate = VideoCollator(Mixing(), num_labels=3)
    torch.manual_seed(1)
    first = collate([sample(0), sample(1), sample(5)])
    torch.manual_seed(2)
    again, other = collate([sample(0), sample(1), sample(5)]), collate([sample(0), sample(1), sample(4)])
    assert torch.equal(first["pixel_values"], again["pixel_values"])
    assert torch.equal(first["labels"], again["labels"])
    assert not torch.equal(first["labels"][0], other["labels"][0])
    assert torch.allclose(first["labels"].sum(1), torch.ones(3))


def test_flow_is_mixed_as_frames_are():
    flows = [sample(i, flow_values=sample(i)["pixel_values"].clone()) for i in range(4)]
    batch = VideoCollator(Mixing(cutmix=0), num_labels=3)(flows)
    assert torch.equal(batch["pixel_values"], batch["flow_values"])
    assert not torch.equal(batch["pixel_values"][0], flows[0]["pixel_values"])


def test_what_does_not_stack_is_said():
    with pytest.raises(DataError, match="don't stack into one batch"):
        VideoCollator()([sample(0), sample(1, frames=3)])
    unlabelled = {name: value for name, value in sample(1).items() if name != "labels"}
    with pytest.raises(DataError, match="1 of 2 samples have no label"):
        VideoCollator()([sample(0), unlabelled])
    with pytest.raises(DataError, match="Some samples"):
        VideoCollator()([sample(0, flow_values=torch.zeros(1)), sample(1)])
    without = {name: value for name, value in sample(1).items() if name != "seed"}
    with pytest.raises(DataError, match="remove_unused_columns=False"):
        VideoCollator(Mixing(), num_labels=3)([without, without])
    with pytest.raises(DataError, match="pass num_labels"):
        VideoCollator(Mixing())


@pytest.mark.parametrize("mixing", [None, Mixing()])
def test_batches_of_workers_are_those_of_the_process_itself(mixing):
    collate = VideoCollator(mixing, num_labels=3)
    loaders = [torch.utils.data.DataLoader(Samples(10), 4, num_workers=w, collate_fn=collate) for w in (0, 2)]
    for own, theirs in zip(*loaders, strict=True):
        assert type(theirs["pixel_values"]) is torch.Tensor
        assert torch.equal(own["pixel_values"], theirs["pixel_values"])
        assert torch.equal(own["labels"], theirs["labels"])


class TestSharedMemory:
    def test_a_buffer_is_used_again_only_when_no_view_is_left(self):
        loader = torch.utils.data.DataLoader(
            Samples(120), 4, num_workers=2, collate_fn=VideoCollator(), persistent_workers=True
        )
        views = []
        for _ in range(2):
            for number, batch in enumerate(loader):
                views.append((4 * number + 1, batch["pixel_values"][1].mT if number % 2 else batch["pixel_values"][1]))
        for number, view in views:  # 60 batches were kept alive by views alone, and no buffer of theirs was written
            truth = sample(number)["pixel_values"]
            assert torch.equal(view, truth) or torch.equal(view, truth.mT)
        assert 0 < len(collate._mapped) <= 2 * collate.BUFFERS

    def test_few_buffers_serve_many_batches_and_dead_workers_are_forgotten(self):
        for _ in range(3):
            seen = 0
            for batch in torch.utils.data.DataLoader(Samples(200), 4, num_workers=2, collate_fn=VideoCollator()):
                seen += len(batch["labels"])
            assert seen == 200
            assert len(collate._mapped) <= 2 * collate.BUFFERS

    def test_what_is_computed_in_a_worker_is_an_ordinary_tensor(self):
        class Halved(VideoCollator):
            def __call__(self, samples):
                batch = super().__call__(samples)
                return {"half": batch["pixel_values"] / 2, "part": batch["pixel_values"][:, :1]}

        for number, batch in enumerate(torch.utils.data.DataLoader(Samples(48), 2, num_workers=1, collate_fn=Halved())):
            truth = sample(2 * number)["pixel_values"]
            assert torch.equal(batch["half"][0], truth / 2)
            assert torch.equal(batch["part"][0], truth[:1])
