#!/usr/bin/env bash
# torch: `len(x)` in a model fixes a dynamic batch under torch.export; `x.shape[0]` does not.
#
# Versions: torch 2.13.0.
# Guess:    `len(tensor)` is another way to write `tensor.shape[0]`.
# Seen:     len() has to give a Python int, so the size is taken at that moment: export with Dim("batch") fails with
#           "Constraints violated", and with Dim.AUTO it succeeds and leaves a program for the example's batch alone.
# Output:   shape[0], Dim: batches of 2 and 5 run
#           len, Dim: UserError, constraints violated: True
#           len, Dim.AUTO: exported for 2; 5 is refused by the program: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0
cd "$folder"
TORCH_LOGS=-all "$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from torch.export import Dim, export


class ByShape(torch.nn.Module):
    def forward(self, clips):
        return clips.reshape(clips.shape[0], -1).mean(1)


class ByLen(torch.nn.Module):
    def forward(self, clips):
        return clips.reshape(len(clips), -1).mean(1)


clips, more = torch.randn(2, 4, 3), torch.randn(5, 4, 3)
program = export(ByShape(), (clips,), dynamic_shapes=({0: Dim("batch")},)).module()
assert program(more).shape == (5,) and program(clips).shape == (2,)
print("shape[0], Dim: batches of 2 and 5 run")
try:
    export(ByLen(), (clips,), dynamic_shapes=({0: Dim("batch")},))
except Exception as error:
    kind, violated = type(error).__name__, "Constraints violated" in str(error)
else:
    raise SystemExit("len() is exported with a free batch now")
print(f"len, Dim: {kind}, constraints violated: {violated}")
assert (kind, violated) == ("UserError", True)
program = export(ByLen(), (clips,), dynamic_shapes=({0: Dim.AUTO},)).module()
assert program(clips).shape == (2,)
try:
    program(more)
except Exception:
    refused = True
else:
    refused = False
print(f"len, Dim.AUTO: exported for 2; 5 is refused by the program: {refused}")
assert refused
PY
