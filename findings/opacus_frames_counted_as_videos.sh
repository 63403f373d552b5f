#!/usr/bin/env bash
# Opacus: for a model that folds frames into the batch, gradients "of each sample" are those of each frame, silently.
#
# Versions: Opacus 1.6.0, torch 2.13.0.
# Guess:    GradSampleModule gives one gradient for each of the videos that the model was called with, or refuses; a step
#           with max_grad_norm=C then moves by at most C for each video.
# Seen:     layers see (videos x frames) rows, as in divided space-time attention, and so many gradients come out: 8 for
#           2 videos of 4 frames. The optimiser clips each frame to C, so one video can move the sum by 4 C, and neither
#           the validator nor the optimiser says a word.
# Output:   faults found by the validator: 0
#           gradients for 2 videos: 8
#           sum moved by one video, in units of C: 4.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0 opacus==1.6.0
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import nn

CLIP = 1e-3


class OverFrames(nn.Module):
    """Looks at each frame by itself and takes the mean of the frames' answers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, videos):  # (videos, frames, 6)
        count, frames, width = videos.shape
        return self.layer(videos.reshape(count * frames, width)).view(count, frames, 3).mean(1)


torch.manual_seed(0)
faults = ModuleValidator.validate(OverFrames())
print("faults found by the validator:", len(faults))
model = GradSampleModule(OverFrames())
frame = torch.randn(2, 1, 6)
videos = frame.expand(2, 4, 6)  # still pictures: the gradients of a video's frames are the same
nn.functional.cross_entropy(model(videos), torch.tensor([0, 1]), reduction="sum").backward()
rows = len(model._module.layer.weight.grad_sample)
print("gradients for 2 videos:", rows)
optimizer = DPOptimizer(
    torch.optim.SGD(model.parameters(), lr=1.0), noise_multiplier=0.0, max_grad_norm=CLIP, expected_batch_size=1
)
of_one = [parameter.grad_sample[:4].clone() for parameter in model.parameters()]
for parameter, gradients in zip(model.parameters(), of_one):
    parameter.grad_sample = gradients
optimizer.clip_and_accumulate()
moved = sum(parameter.summed_grad.pow(2).sum() for parameter in model.parameters()).sqrt().item() / CLIP
print(f"sum moved by one video, in units of C: {moved:.2f}")
assert (len(faults), rows, round(moved, 2)) == (0, 8, 4.0)
PY
