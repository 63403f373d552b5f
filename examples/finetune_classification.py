"""Fine-tune a video classifier on a folder of videos: the steps of `hf-video train`, to read and to change.

    python examples/finetune_classification.py videos/ --model MCG-NJU/videomae-base --output my-model

The folder holds train/<label>/*.mp4 and test/<label>/*.mp4, or <label>/*.mp4. `hf-video train` does the same and also
resumes, self-tests, evaluates by a paper's protocol and pushes to the Hub; every option of it works here too.
"""

from __future__ import annotations

import sys

from hf_video.cli import main
from hf_video.data import VideoCollator, VideoDataset, load_videos
from hf_video.evaluation import evaluate_videos
from hf_video.training import VideoTrainer, VideoTrainingArguments
from hf_video.training.runs.model_loading import find_source, load_model
from hf_video.video.augment.augmentation import Augmentation
from hf_video.video.augment.mixing import Mixing


def by_hand(folder: str, model: str, output: str) -> float:
    """The same without a recipe, in a page: what to copy into a script of your own. Returns the test's accuracy."""
    splits = load_videos(folder)
    labels = splits["train"].labels
    start = load_model(find_source(model), labels=labels)  # model and processor, with a head for these classes
    processor = start.processor

    augmentation = Augmentation(tuple(processor.crop_size.values()), scale=(0.5, 1.0), flip="swap", rand_augment=None)
    data = VideoDataset(splits["train"], processor, augmentation=augmentation.for_labels(labels), sampler="random")
    arguments = VideoTrainingArguments(
        output,
        per_device_train_batch_size=8,
        num_train_epochs=10,
        learning_rate=3e-4,
        layer_decay=0.75,
        weight_decay=0.05,
        schedule="cosine",
        warmup_epochs=1,
        dataloader_num_workers=2,
        save_strategy="epoch",
        save_total_limit=1,
    )
    collator = VideoCollator(Mixing(mixup=0.2, cutmix=0), num_labels=len(labels))
    trainer = VideoTrainer(start.model, arguments, collator, train_dataset=data, processing_class=processor)
    trainer.train()
    trainer.save_model()

    processor.sampler, processor.sampler_options = "uniform", None  # the whole video, as in training
    report = evaluate_videos(trainer.model, processor, splits["test"])
    print(report)
    for one in data.skipped():
        print(one)
    return report.top1


if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
