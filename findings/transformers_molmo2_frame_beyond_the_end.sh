#!/usr/bin/env bash
# transformers: Molmo2's video processor takes a frame that the video does not have.
#
# Versions: transformers 5.24.0, torch 2.13.0 (torchvision is not needed to get there).
# Guess:    with its default settings (two frames a second), a video of 115 frames at 30 a second gives 7 frames.
# Seen:     sample_frames steps by total / count in torch.arange, whose rounding makes one frame more for some totals;
#           the last index is the number of frames, and indexing the video fails. Qwen2-VL's, VideoLLaMA 3's and
#           Ernie 4.5-VL's processors have the same line (Qwen2-VL: num_frames=28 of 34 frames).
# Output:   114 frames: [0, 16, 32, 48, 65, 81, 97]
#           115 frames: [0, 16, 32, 49, 65, 82, 98, 115]
#           IndexError: index 115 is out of bounds for dimension 0 with size 115
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pillow torch==2.13.0 transformers==5.24.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from transformers.models.molmo2.video_processing_molmo2 import Molmo2VideoProcessor
from transformers.video_utils import VideoMetadata

processor, seen = Molmo2VideoProcessor(), {}
for total in (114, 115):
    about = VideoMetadata(total_num_frames=total, fps=30.0, duration=total / 30)
    seen[total] = processor.sample_frames(about).tolist()
    print(f"{total} frames: {seen[total]}")
assert (len(seen[114]), max(seen[114]), len(seen[115]), max(seen[115])) == (7, 97, 8, 115), seen
try:
    processor(torch.zeros(115, 3, 8, 8, dtype=torch.uint8), video_metadata=[about], return_tensors="pt")
    raise SystemExit("the video of 115 frames was processed")
except IndexError as error:
    print(f"IndexError: {error}")
PY
