"""VideoMAE: masks that can not be batched are refused, in graphs too."""

from __future__ import annotations

import pytest
import torch
from configs import CLIP, half_hidden, videomae
from contract import assert_close

from hf_video.errors import ModelInputError
from hf_video.models.videomae.masking import tube_mask
from hf_video.models.videomae.modeling_videomae import (
    VideoMAEForPreTraining,
    VideoMAEModel,
)


@pytest.mark.parametrize("cls", [VideoMAEModel, VideoMAEForPreTraining])
def test_uneven_and_misshapen_masks_are_clear_errors(cls):
    model, mask = videomae(cls), half_hidden()
    mask[0, mask[0].nonzero()[0]] = False
    with pytest.raises(ModelInputError, match=r"\[7, 8\]"):
        model(CLIP, bool_masked_pos=mask)
    with pytest.raises(ModelInputError, match=r"\(2, 16\)"):
        model(CLIP, bool_masked_pos=mask[:, :8])
    with pytest.raises(ModelInputError, match="hides all"):
        model(CLIP, bool_masked_pos=torch.ones(2, 16, dtype=torch.bool))


def test_pretraining_needs_something_hidden():
    model = videomae(VideoMAEForPreTraining)
    with pytest.raises(ModelInputError, match="hides no token"):
        model(CLIP, bool_masked_pos=torch.zeros(2, 16, dtype=torch.bool))
    with pytest.raises(ModelInputError, match="missing"):
        model(CLIP, bool_masked_pos=None)


@pytest.mark.no_cover
def test_graphs_check_masks_too():
    """Another number of hidden tokens is right in the same compiled or exported model; uneven rows raise there."""
    model, mask = videomae(VideoMAEForPreTraining, num_hidden_layers=1), half_hidden()
    names = ("pixel_values", "bool_masked_pos")
    batch = torch.export.Dim("batch", min=1, max=8)
    shapes = {name: {0: batch} for name in names}
    program = torch.export.export(model, (), dict(zip(names, (CLIP, mask), strict=True)), dynamic_shapes=shapes)
    torch._dynamo.reset()
    other, uneven = tube_mask(2, (2, 2, 4), 0.75), mask.clone()
    uneven[0, uneven[0].nonzero()[0]] = False
    for graph in (program.module(), torch.compile(model, fullgraph=True, backend="eager")):
        for m in (mask, other):
            got, expected = graph(pixel_values=CLIP, bool_masked_pos=m), model(CLIP, bool_masked_pos=m)
            assert_close((got.loss, got.logits), (expected.loss, expected.logits))
        with pytest.raises(RuntimeError, match="same number"):
            graph(pixel_values=CLIP, bool_masked_pos=uneven)
