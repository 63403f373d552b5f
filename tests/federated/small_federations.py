"""A model and settings of federations that take a second: SGD on whole clips, alike in every order."""

from __future__ import annotations

VIDEOMAE = {
    **{"model_type": "videomae", "image_size": 16, "patch_size": 8, "num_frames": 2, "tubelet_size": 2},
    **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
}
SETTINGS = (
    "training.optim=sgd",
    "training.learning_rate=0.1",
    "training.weight_decay=0",
    "training.max_grad_norm=0",
    "training.per_device_train_batch_size=64",
    "training.dataloader_num_workers=0",
    "data.sampler=uniform",
    "augmentation.crop=center",
    "augmentation.short_side=16",
    "augmentation.flip=0",
    "mixing=null",
)
