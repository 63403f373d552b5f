#!/usr/bin/env bash
# torch: what nn.MultiheadAttention gives for a sequence that is all padding depends on grad mode and need_weights.
#
# Versions: torch 2.13.0 (CPU); 2.14.1 does the same.
# Guess:    a module in eval mode gives the same numbers inside and outside of torch.no_grad(); and since
#           scaled_dot_product_attention gives zeros for a query that may look at nothing, so does the module built on it.
# Seen:     with gradients and need_weights=False it gives the finite value of the output bias; under no_grad (another
#           kernel) or with need_weights=True it gives NaN. One video of a batch without a single valid frame is enough.
# Output:   sdpa finite
#           module grad, need_weights=False finite
#           module grad, need_weights=True nan
#           module no_grad, need_weights=False nan
#           module no_grad, need_weights=True nan
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from torch.nn import functional as F

torch.manual_seed(0)
x = torch.randn(2, 5, 16)
padding = torch.zeros(2, 5, dtype=torch.bool)
padding[1] = True  # True is padding
seen = {}


def note(name, output):
    seen[name] = "nan" if output[1].isnan().any() else "finite"
    print(name, seen[name])


note("sdpa", F.scaled_dot_product_attention(x, x, x, ~padding[:, None].expand(2, 5, 5)))
module = torch.nn.MultiheadAttention(16, 2, batch_first=True).eval()
for grad in (True, False):
    for weights in (False, True):
        with torch.set_grad_enabled(grad):
            output, _ = module(x, x, x, key_padding_mask=padding, need_weights=weights)
        note(f"module {'grad' if grad else 'no_grad'}, need_weights={weights}", output)
assert list(seen.values()) == ["finite", "finite", "nan", "nan", "nan"], seen
PY
