"""`pipeline("zero-shot-video-classification")`: labels that no training knew, in words."""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_outputs import ModelOutput

from hf_video.clips.read import WindowSample
from hf_video.clips.request import average_views
from hf_video.errors import VideoOptionError
from hf_video.pipelines import matching
from hf_video.pipelines.base import VideoPipeline
from hf_video.pipelines.video_classification import NOT_GIVEN, Predictions, answer_options, best

TEMPLATE = "a video of {}"


class ZeroShotVideoClassificationPipeline(VideoPipeline):
    """Which of some labels, given as words, fits a video, by any model of video and text: VideoCLIP, VideoPrism,
    X-CLIP, or a CLIP or SigLIP, whose frames' vectors are averaged.

        classify = pipeline("zero-shot-video-classification", model="folder or Hub name")
        classify("clip.mp4", candidate_labels=["archery", "a dog catching a ball"])   # [{"score", "label"}, ...]
        classify(["a.mp4", "b.mp4"], candidate_labels=labels, views="3x1", hypothesis_template=["a video of {}", "{}."])

    Videos, views, windows, workers and files that can't be read are as in `VideoClassificationPipeline`; so is the
    result.

    Options, of the pipeline or of a call:
        candidate_labels: A list of texts, or one string with commas between them.
        hypothesis_template: What is compared with the video, "{}" standing for the label; default "a video of {}".
            Of several templates, a label's vectors are averaged (CLIP's prompt ensembles), or its pairs' scores where a
            model has no vectors.
        function_to_apply: "softmax" over the labels with the temperature that the model learnt (VideoPrism's files have
            none: 0.01, as in its authors' example), "sigmoid" for each label by itself, "none". Default: "sigmoid" for
            models that were trained so (SigLIP), else "softmax".
        top_k: How many labels; default all.

    Raises VideoOptionError (labels, templates), CheckpointError (no tokenizer, a model without text) and what
    `VideoClassificationPipeline` raises.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        matching.check_matches(self.model)
        self.tokenizer = matching.find_tokenizer(self.model, self.tokenizer)

    def _options(
        self,
        *,
        candidate_labels: str | list[str] | None = None,
        hypothesis_template: str | list[str] | None = None,
        top_k: int | None = NOT_GIVEN,
        function_to_apply: str | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        asked: dict[str, Any] = {}
        answer = answer_options(top_k, function_to_apply)
        if candidate_labels is not None:
            asked["candidate_labels"] = answer["candidate_labels"] = checked_labels(candidate_labels)
        if hypothesis_template is not None:
            asked["hypothesis_template"] = checked_templates(hypothesis_template)
        return asked, answer

    def _ask(
        self, *, candidate_labels: list[str] | None = None, hypothesis_template: list[str] | None = None
    ) -> dict[str, Any]:
        """The labels as text vectors (labels, D), or for pair scorers as tokens (labels · templates, L)."""
        if candidate_labels is None:
            raise VideoOptionError("candidate_labels is missing: pass the labels to choose from, a list of texts.")
        templates = hypothesis_template or [TEMPLATE]
        texts = [template.replace("{}", label) for label in candidate_labels for template in templates]
        tokens = matching.tokenize(self.tokenizer, texts, self.model)
        if not matching.is_dual_encoder(self.model):
            return {"tokens": tokens, "templates": len(templates)}
        vectors = matching.text_vectors(self.model, tokens)
        return {"vectors": matching.averaged(self.model, vectors, len(candidate_labels))}

    def _forward(self, model_inputs: dict[str, torch.Tensor], **asked: Any) -> ModelOutput:
        """Logits (clips, labels)."""

        def logits(**clips: torch.Tensor) -> torch.Tensor:
            if "vectors" in asked:
                return matching.logits_of(self.model, matching.similarity(self.model, clips, **asked))
            pairs = matching.pair_logits(self.model, clips, tokens=asked["tokens"])
            return pairs.unflatten(1, (-1, asked["templates"])).mean(2)

        return ModelOutput(logits=self._run(logits, model_inputs))

    def postprocess(
        self,
        model_outputs: ModelOutput,
        *,
        candidate_labels: list[str],
        top_k: int | None = None,
        function_to_apply: str | None = None,
    ) -> list[dict[str, Any]]:
        """Logits (views, labels) of one video to its best labels."""
        scores = average_views(model_outputs["logits"], function_to_apply or self._function())
        return best(scores, dict(enumerate(candidate_labels)), top_k)

    def _function(self) -> str:
        return "sigmoid" if getattr(self.model.config, "loss", None) == "sigmoid" else "softmax"

    def _window(self, rows: torch.Tensor, seen: WindowSample, repeated: set[int], **answer: Any) -> Predictions:
        return Predictions(super()._window(rows, seen, repeated, **answer), sample=seen.sample, repeated=repeated)


def checked_labels(given: object) -> list[str]:
    """Labels, given as a list or as one string with commas. Raises VideoOptionError."""
    labels = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
    labels = matching.texts_of("candidate_labels", labels)
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise VideoOptionError(f"candidate_labels has {twice!r} more than once; give each label once.")
    return labels


def checked_templates(given: object) -> list[str]:
    """Templates, each with one place for the label. Raises VideoOptionError."""
    templates = matching.texts_of("hypothesis_template", given)
    wrong = next((template for template in templates if template.count("{}") != 1), None)
    if wrong is not None:
        raise VideoOptionError(f'hypothesis_template {wrong!r} must have one "{{}}", where the label goes.')
    return templates
