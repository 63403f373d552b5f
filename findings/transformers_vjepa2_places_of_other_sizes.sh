#!/usr/bin/env bash
# transformers: V-JEPA 2 gives the tokens of a clip of another size the places of a clip of crop_size.
#
# Versions: transformers 5.24.0, torch 2.13.0.
# Guess:    Its positions are rotary, so a clip of any size has its own rows and columns, as in the authors' encoder.
# Seen:     Rows are counted by crop_size // patch_size: in a clip of 2 x 6 patches the first token of the second row is
#           taken for the third of the second row where crop_size makes 4 columns, and is said to be of a later time
#           where it makes 2. Nothing is said.
# Output:   2x6 patches, crop_size of 6x6: token 6 is time 0, row 1, column 0
#           2x6 patches, crop_size of 4x4: token 6 is time 0, row 1, column 2
#           2x6 patches, crop_size of 2x2: token 6 is time 1, row 1, column 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0 transformers==5.24.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from transformers import VJEPA2Config
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Model, VJEPA2RopeAttention

seen = []
for columns in (6, 4, 2):
    config = VJEPA2Config(
        crop_size=16 * columns, frames_per_clip=2, hidden_size=24, num_attention_heads=2, num_hidden_layers=1,
        pred_hidden_size=24, pred_num_attention_heads=2, pred_num_hidden_layers=1,
    )
    model, taken = VJEPA2Model(config).eval(), []
    known = VJEPA2RopeAttention.get_position_ids
    VJEPA2RopeAttention.get_position_ids = lambda self, x, masks=None: taken.append(known(self, x, masks)) or taken[-1]
    with torch.no_grad():
        model(torch.zeros(1, 2, 3, 2 * 16, 6 * 16), skip_predictor=True)
    VJEPA2RopeAttention.get_position_ids = known
    seen.append([int(ids[6]) for ids in taken[0]])
    print("2x6 patches, crop_size of {0}x{0}: token 6 is time {1}, row {2}, column {3}".format(columns, *seen[-1]))
assert seen == [[0, 1, 0], [0, 1, 2], [1, 1, 0]], seen
PY
