#!/usr/bin/env bash
# transformers: VideoPrism's `logits_per_video` are probabilities over the videos of the batch, and for one video all 1.
#
# Versions: transformers 5.24.0, torch 2.13.0.
# Guess:    As in CLIP and SigLIP: one row per video with a score for each text, which no other video has a part in, and
#           whose softmax or maximum names the text that fits best.
# Seen:     Scores are exponentiated and divided by their sum over the videos, so columns sum to 1 and not rows: a single
#           video has 1.0 for every text, and its row changes with the video beside it. `logits_per_text` is divided over
#           the texts, and so is the one to take a video's best text from, as a column.
# Output:   one video, three texts: logits_per_video [1.0, 1.0, 1.0], logits_per_text sums to 1.000 over texts
#           the same video beside another: row of logits_per_video moves: True, column of logits_per_text moves: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0 transformers==5.24.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from transformers import VideoPrismConfig
from transformers.models.videoprism.modeling_videoprism import VideoPrismClipModel

tower = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
config = VideoPrismConfig(
    vision_config={
        **tower, "image_size": 36, "num_frames": 4, "num_spatial_layers": 1, "num_temporal_layers": 1,
        "num_auxiliary_layers": 1,
    },
    text_config={**tower, "num_hidden_layers": 1, "vocab_size": 99, "max_position_embeddings": 8},
)
torch.manual_seed(0)
model = VideoPrismClipModel(config).eval()
videos = torch.randn(2, 4, 3, 36, 36)
words = torch.randint(1, 99, (3, 8))
inputs = {"input_ids": words, "attention_mask": torch.ones_like(words)}
with torch.no_grad():
    alone = model(pixel_values_videos=videos[:1], **inputs)
    beside = model(pixel_values_videos=videos, **inputs)
row, column = alone.logits_per_video[0], alone.logits_per_text[:, 0]
print(f"one video, three texts: logits_per_video {row.tolist()}, logits_per_text sums to {column.sum():.3f} over texts")
moves = [
    not torch.allclose(a, b, atol=1e-5)
    for a, b in ((row, beside.logits_per_video[0]), (column, beside.logits_per_text[:, 0]))
]
print(
    f"the same video beside another: row of logits_per_video moves: {moves[0]}, column of logits_per_text moves: {moves[1]}"
)
assert row.tolist() == [1.0, 1.0, 1.0] and moves == [True, False], (row, moves)
PY
