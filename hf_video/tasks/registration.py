"""Our pipelines in transformers' table of tasks."""

from __future__ import annotations

PIPELINES = {"video-classification": "hf_video.tasks.video_classification.VideoClassificationPipeline"}


def register_pipelines() -> None:
    """Makes `transformers.pipeline("video-classification")` ours, whether `pipeline` was imported before or after.

    Only the name of our class is written into the table; transformers imports it when a pipeline is made. (Its own
    `register_pipeline` needs the class at once, and marks it as one whose code is to be copied to the Hub on saving.)
    """
    from transformers.pipelines import PIPELINE_REGISTRY

    for task, path in PIPELINES.items():
        PIPELINE_REGISTRY.supported_tasks[task] = {**PIPELINE_REGISTRY.supported_tasks[task], "impl": path}
