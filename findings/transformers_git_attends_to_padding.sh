#!/usr/bin/env bash
# transformers: GIT attends to the padding of prompts when a clip has fewer frames than the model has embeddings for.
#
# Versions: transformers 5.24.0, torch 2.13.0.
# Guess:    a prompt that is padded on the left, with its attention mask, is continued as the prompt alone is.
# Seen:     so with as many frames as num_image_with_embedding. With fewer, generate gives other logits from the second
#           token on, without a warning: with a cache the mask is widened by the tokens of all frames that the model
#           knows, not of those that are there, and lies beside the keys. Without a cache the logits are the same.
# Output:   6 of 6 frames: largest difference of logits with a cache 0.00, without 0.00
#           2 of 6 frames: largest difference of logits with a cache 0.48, without 0.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pillow torch==2.13.0 transformers==5.24.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from transformers import GitConfig, GitForCausalLM

sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
config = GitConfig(
    vision_config={**sizes, "num_hidden_layers": 1, "image_size": 32, "patch_size": 16}, **sizes,
    num_hidden_layers=2, vocab_size=50, num_image_with_embedding=6, bos_token_id=1, eos_token_id=None, pad_token_id=0,
)
model = GitForCausalLM(config).eval()
generator = torch.Generator().manual_seed(0)
with torch.no_grad():
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
options = {"max_new_tokens": 8, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
prompt = torch.tensor([[1, 7, 8]])
padded, mask = torch.tensor([[0, 0, 0, 1, 7, 8]]), torch.tensor([[0, 0, 0, 1, 1, 1]])
seen = {}
for frames in (6, 2):
    clip = torch.randn(1, frames, 3, 32, 32, generator=generator)
    alone = model.generate(input_ids=prompt, pixel_values=clip, **options)
    apart = []
    for use_cache in (True, False):
        other = model.generate(
            input_ids=padded, attention_mask=mask, pixel_values=clip, use_cache=use_cache, **options
        )
        apart.append(max((a - b).abs().max().item() for a, b in zip(alone.logits, other.logits)))
    seen[frames] = [value > 1e-3 for value in apart]
    print(f"{frames} of 6 frames: largest difference of logits with a cache {apart[0]:.2f}, without {apart[1]:.2f}")
assert seen == {6: [False, False], 2: [True, False]}, seen
PY
