#!/usr/bin/env bash
# torch: FlopCounterMode counts no operation of fused attention on a CPU, and says nothing.
#
# Versions: torch 2.13.0, transformers 5.24.0.
# Guess:    a model has as many FLOPs on a CPU as on a GPU, whichever kernel of attention it takes.
# Seen:     on a CPU F.scaled_dot_product_attention is an operator that the counter's table doesn't have, so it counts
#           0: of a layer of VideoMAE-S (1568 tokens) 34 % are missing with transformers' default attention, "sdpa". With
#           "eager", or the kernel "math", all are counted. GPU kernels are in the table.
# Output:   attention of 1568 tokens, 6 heads of 64: 3776446464 FLOPs; counted: default 0, math 3776446464
#           VideoMAE-S, one layer: sdpa counts 7.4 GFLOP of 11.2, eager 11.2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0 transformers==5.24.0
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import VideoMAEConfig, VideoMAEModel


def count(job) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops()


heads, tokens, width = 6, 1568, 64
x = torch.randn(1, heads, tokens, width)
attention = lambda: torch.nn.functional.scaled_dot_product_attention(x, x, x)  # noqa: E731
expected = 2 * 2 * heads * tokens**2 * width
default = count(attention)
with sdpa_kernel(SDPBackend.MATH):
    math = count(attention)
print(f"attention of {tokens} tokens, {heads} heads of {width}: {expected} FLOPs; counted: default {default}, math {math}")
assert (default, math) == (0, expected)

clip = torch.randn(1, 16, 3, 224, 224)
size = dict(hidden_size=384, num_attention_heads=heads, intermediate_size=1536, num_hidden_layers=1)
found = {}
for kernel in ("sdpa", "eager"):
    model = VideoMAEModel(VideoMAEConfig(**size, attn_implementation=kernel)).eval()
    assert model.config._attn_implementation == kernel
    found[kernel] = count(lambda: model(clip))
print(f"VideoMAE-S, one layer: sdpa counts {found['sdpa'] / 1e9:.1f} GFLOP of {found['eager'] / 1e9:.1f}, "
      f"eager {found['eager'] / 1e9:.1f}")
assert found["eager"] - found["sdpa"] == expected
PY
