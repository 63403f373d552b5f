"""Moving glyphs, whose direction no single frame tells: frames alone stay at chance, flow solves it, both together too.

python -m pytest -m slow tests/models/two_stream/test_two_stream_learning.py -s
"""

from __future__ import annotations

import time

import pytest
import torch

from hf_video.data.moving_glyphs import DIRECTIONS, moving_glyphs
from hf_video.models.two_stream.configuration_two_stream import TwoStreamConfig
from hf_video.models.two_stream.image_processing_two_stream import TwoStreamImageProcessor
from hf_video.models.two_stream.modeling_two_stream import TwoStreamForVideoClassification

SMALL = {"kind": "resnet", "depths": [1, 1, 1], "widths": [16, 24, 32], "dropout": [0.0]}
PROCESSOR = {"size": {"height": 64, "width": 64}, "crop_size": {"height": 64, "width": 64}, "flow_length": 4}
LABELS = list(DIRECTIONS)


def inputs(clips: int, seed: int) -> dict[str, torch.Tensor]:
    made = moving_glyphs(clips, seed, speed=4)
    batch = TwoStreamImageProcessor(**PROCESSOR, num_frames=2)([c.frames for c in made], return_tensors="pt")
    return {**batch, "labels": torch.tensor([LABELS.index(c.direction) for c in made])}


def fit(model, rows, epochs: int, batch: int = 32):
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    steps = epochs * (len(rows["labels"]) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for picked in torch.randperm(len(rows["labels"])).split(batch)[: len(rows["labels"]) // batch]:
            loss = model(**{name: value[picked] for name, value in rows.items()}).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model, rows) -> float:
    return float((model(**rows).logits.argmax(-1) == rows["labels"]).float().mean())


@pytest.mark.slow
def test_flow_tells_the_direction_and_frames_do_not():
    pytest.importorskip("cv2", reason="OpenCV is an extra: pip install hf_video[flow]")
    torch.manual_seed(0)
    start = time.process_time()
    train, test = inputs(800, seed=0), inputs(200, seed=1)
    streams = {}
    for stream, other in (("spatial", "temporal"), ("temporal", "spatial")):
        settings = {f"{stream}_config": SMALL, f"{other}_config": None}
        config = TwoStreamConfig(**settings, flow_length=4, num_frames=2, num_labels=4)
        streams[stream] = fit(TwoStreamForVideoClassification(config), train, epochs=5)
    fused = TwoStreamForVideoClassification.from_streams(**streams, fusion="weighted", fusion_weights=[1.0, 1.5])
    found = {name: accuracy(model, test) for name, model in {**streams, "fused": fused}.items()}
    print(f"\n{found}, {time.process_time() - start:.0f} CPU seconds")
    assert found["spatial"] <= 0.36  # chance is .25; 200 clips make .36 a deviation of 3.6
    assert found["temporal"] >= 0.95
    assert found["fused"] >= 0.95
    mirrored = {**test, "flow_values": test["flow_values"].clone()}
    mirrored["flow_values"][:, :, 0::2] *= -1
    opposite = torch.tensor([LABELS.index({"left": "right", "right": "left"}.get(name, name)) for name in LABELS])
    assert accuracy(streams["temporal"], {**mirrored, "labels": opposite[test["labels"]]}) >= 0.95
