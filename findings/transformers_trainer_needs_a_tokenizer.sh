#!/usr/bin/env bash
# transformers: Trainer can't train with a processor that has no tokenizer.
#
# Versions: transformers 5.24.0, accelerate 1.15.0, torch 2.13.0.
# Guess:    `processing_class`, which may be a ProcessorMixin by its type hint, may be one of images alone, such as SAM's.
# Seen:     train() looks for its tokenizer before the first step; the image processor inside is accepted.
# Output:   SamProcessor: AttributeError
#           SamImageProcessorPil: trained 1 step
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pillow torch==2.13.0 \
    transformers==5.24.0 accelerate==1.15.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from transformers import SamProcessor, Trainer, TrainingArguments, ViTConfig, ViTForImageClassification
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=16)
rows = [{"pixel_values": torch.zeros(3, 16, 16), "labels": torch.tensor(0)}] * 2
arguments = TrainingArguments("run", max_steps=1, report_to="none", use_cpu=True, save_strategy="no", disable_tqdm=True)
seen = []
for processor in (SamProcessor(SamImageProcessorPil()), SamImageProcessorPil()):
    model = ViTForImageClassification(config)
    try:
        Trainer(model, arguments, train_dataset=rows, processing_class=processor).train()
        seen.append("trained 1 step")
    except AttributeError as error:
        assert "tokenizer" in str(error), error
        seen.append("AttributeError")
    print(f"{type(processor).__name__}: {seen[-1]}")
assert seen == ["AttributeError", "trained 1 step"], seen
PY
