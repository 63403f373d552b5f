#!/usr/bin/env bash
# transformers: VideoPrism's text tower is causal only where an attention_mask is passed.
#
# Versions: transformers 5.24.0, torch 2.13.0.
# Guess:    As in CLIP, whose text tower masks later tokens by itself: texts without padding need no attention_mask, and
#           a mask of ones changes nothing.
# Seen:     Without a mask no causal one is made either, and every token sees all others; with a mask of ones each sees
#           those before it, as in the authors' code. The class token comes last and sees all of them both times, but
#           what it sees of them differs from the second layer on, and so does the text's vector.
# Output:   CLIP: the last token changed moves the first: False, and with a mask of ones: False
#           VideoPrism: the last token changed moves the first: True, and with a mask of ones: False
#           a mask of ones changes the text's vector: CLIP False, VideoPrism True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0 transformers==5.24.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from transformers import CLIPTextConfig, CLIPTextModel, VideoPrismTextConfig
from transformers.models.videoprism.modeling_videoprism import VideoPrismTextModel

sizes = {
    "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": 99,
    "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 98, "pad_token_id": 0,
}
torch.manual_seed(0)
words = torch.randint(1, 98, (1, 8))
changed = words.clone()
changed[0, -1] = words[0, -1] % 97 + 1
seen = {}
for name, kind, config in (
    ("CLIP", CLIPTextModel, CLIPTextConfig(**sizes)),
    ("VideoPrism", VideoPrismTextModel, VideoPrismTextConfig(**sizes)),
):
    model = kind(config).eval()
    first, vectors = [], []
    for mask in (None, torch.ones_like(words)):
        with torch.no_grad():
            found, other = (model(input_ids=ids, attention_mask=mask) for ids in (words, changed))
        first.append(not torch.allclose(found.last_hidden_state[:, 0], other.last_hidden_state[:, 0], atol=1e-5))
        vectors.append(found.pooler_output)
    print(f"{name}: the last token changed moves the first: {first[0]}, and with a mask of ones: {first[1]}")
    seen[name] = (*first, not torch.allclose(*vectors, atol=1e-5))
print("a mask of ones changes the text's vector: " + ", ".join(f"{name} {row[2]}" for name, row in seen.items()))
assert seen == {"CLIP": (False, False, False), "VideoPrism": (True, False, True)}, seen
PY
