"""Our pipelines in transformers' table of tasks."""

from __future__ import annotations

from hf_video.tasks.loading import SavedVideoModel

PIPELINES = {"video-classification": "hf_video.tasks.video_classification.VideoClassificationPipeline"}
# Tasks that transformers has not.
NEW_PIPELINES = {
    "video-feature-extraction": "hf_video.tasks.features.VideoFeatureExtractionPipeline",
    "video-question-answering": "hf_video.tasks.question_answering.VideoQuestionAnsweringPipeline",
    "video-text-retrieval": "hf_video.tasks.retrieval.VideoTextRetrievalPipeline",
    "zero-shot-video-classification": "hf_video.tasks.zero_shot.ZeroShotVideoClassificationPipeline",
}


def register_pipelines(*, override: bool = True) -> None:
    """Makes `transformers.pipeline(task)` ours, whether `pipeline` was imported before or after. `override=False` adds
    only the tasks that transformers has not.

    Only the name of our class is written into the table; transformers imports it when a pipeline is made. (Its own
    `register_pipeline` needs the class at once, and marks it as one whose code is to be copied to the Hub on saving.)
    """
    from transformers.pipelines import PIPELINE_REGISTRY

    table = PIPELINE_REGISTRY.supported_tasks
    for task, path in PIPELINES.items() if override else ():
        table[task] = {**table[task], "impl": path}
    for task, path in NEW_PIPELINES.items():
        table[task] = {"impl": path, "pt": (SavedVideoModel,), "default": {}, "type": "multimodal"}
