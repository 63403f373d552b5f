#!/usr/bin/env bash
# Opacus: the validator that refuses batch norms passes over a subclass of one.
#
# Versions: Opacus 1.6.0, torch 2.13.0.
# Guess:    ModuleValidator, which refuses nn.BatchNorm3d because it mixes the samples of a batch, refuses what derives
#           from it too.
# Seen:     it looks types up exactly: a subclass without a line of its own passes as faultless.
# Output:   BatchNorm3d: 1 fault
#           subclass: 0 faults
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0 opacus==1.6.0
"$folder/venv/bin/python" -W ignore - <<'PY'
from opacus.validators import ModuleValidator
from torch import nn


class ClipNorm(nn.BatchNorm3d):
    pass


seen = [len(ModuleValidator.validate(nn.Sequential(nn.Conv3d(3, 4, 1), norm(4)))) for norm in (nn.BatchNorm3d, ClipNorm)]
print(f"BatchNorm3d: {seen[0]} fault\nsubclass: {seen[1]} faults")
assert seen == [1, 0], seen
PY
