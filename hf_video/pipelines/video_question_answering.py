"""`pipeline("video-question-answering")`: questions about videos, answered from known answers or given choices."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from transformers.modeling_outputs import ModelOutput

from hf_video.clips.read import ClipInputs, Event, WindowSample, read_events
from hf_video.clips.request import ClipRequest, average_views
from hf_video.data.datasets.questions import question_texts
from hf_video.errors import CheckpointError, VideoOptionError, check_count
from hf_video.pipelines import matching
from hf_video.pipelines.base import VideoPipeline
from hf_video.pipelines.generation import Asked, GenerativePipeline
from hf_video.pipelines.video_classification import NOT_GIVEN, best
from hf_video.video.frames.types import VideoSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class VideoQuestionAnsweringPipeline(VideoPipeline):
    """Answers to questions about videos.

        ask = pipeline("video-question-answering", model="folder or Hub name")
        ask("clip.mp4", question="where does the ring go?")        # [{"score": 0.93, "answer": "left"}, ...]
        ask("clip.mp4", question=["what moves?", "where to?"])     # such a list for each question, the video read once
        ask(["a.mp4", "b.mp4"], question="what moves?")            # one result for each video
        ask({"video": "a.mp4", "question": "what moves?"})         # or a list, generator or data set of such rows
        ask("clip.mp4", question="where to?", choices=["left", "up"])   # a model for multiple choice; of several
                                                    # questions, choices for all, or a list of such lists, one for each

    A model for open questions (`VioletForQuestionAnswering`) chooses among the answers of its training,
    `config.id2label`; a model for multiple choice (`VioletForMultipleChoice`) among `choices`, each put after the
    question. Videos, views, windows, workers and files that can't be read are as in `VideoClassificationPipeline`;
    probabilities of several views are averaged.

    **A model that writes** (GIT, and any `AutoModelForImageTextToText` whose processor takes videos: SmolVLM, Qwen-VL,
    LLaVA-OneVision) answers in its own words, `[{"answer": "to the left"}]`, without scores. In place of `choices` and
    `top_k` it has `max_new_tokens` and `generate_kwargs`, and its frames are chosen as in `VideoCaptioningPipeline`.

    Options, of the pipeline or of a call: `question`, a text or a list; `choices`, a list of texts, for multiple choice
    only; `top_k`, how many answers, default 5, None for all; and those for reading. A row's own `question` and
    `choices` go before those of the call.

    Raises VideoOptionError (question, choices), CheckpointError (no tokenizer, a model that answers no questions) and
    what `VideoClassificationPipeline` raises.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """A model that writes gets the pipeline for those, whose options differ."""
        model = args[0] if args else kwargs.get("model")
        writes = hasattr(model, "can_generate") and model.can_generate()
        return WrittenAnswersPipeline(*args, **kwargs) if writes else super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        name = type(self.model).__name__
        self.multiple_choice = name.endswith("ForMultipleChoice")
        if not self.multiple_choice and not name.endswith("QuestionAnswering"):
            raise CheckpointError(
                f"{name} answers no questions. Use a model for them, such as hf_video.VioletForQuestionAnswering or "
                "hf_video.VioletForMultipleChoice, or one that writes: GIT, SmolVLM, Qwen2.5-VL, LLaVA-OneVision."
            )
        self.tokenizer = matching.find_tokenizer(self.model, self.tokenizer)

    def _options(
        self,
        *,
        question: str | list[str] | None = None,
        choices: list[str] | list[list[str]] | None = None,
        top_k: int | None = NOT_GIVEN,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        asked: dict[str, Any] = {}
        if question is not None:
            asked["question"] = matching.texts_of("question", question)
            asked["single"] = isinstance(question, str)
        if choices is not None:
            asked["choices"] = _choices_of(choices)
        answer: dict[str, Any] = {}
        if top_k is not NOT_GIVEN:
            check_count("top_k", top_k, optional=True)
            answer["top_k"] = top_k
        return asked, answer

    def _reader(self, request: ClipRequest, asked: dict[str, Any]) -> Callable[[Any], Iterator[Event]]:
        return functools.partial(
            _read_asked,
            request=request,
            process=self._process,
            tokenizer=self.tokenizer,
            multiple_choice=self.multiple_choice,
            asked=asked,
        )

    def _rows(self, asked: dict[str, Any], clips: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.forward(clips)["logits"]

    def _forward(self, model_inputs: dict[str, torch.Tensor]) -> ModelOutput:
        return ModelOutput(logits=self._run(self.model, model_inputs).logits)

    def postprocess(
        self, model_outputs: ModelOutput, *, choices: list[str] | None = None, top_k: int | None = 5
    ) -> list[dict[str, Any]]:
        """Logits (views, answers) of one question to its best answers."""
        names = self.model.config.id2label if choices is None else dict(enumerate(choices))
        found = best(average_views(model_outputs["logits"], "softmax"), names, top_k)
        return [{"score": one["score"], "answer": one["label"]} for one in found]

    def _window(self, rows: torch.Tensor, seen: AskedWindow, repeated: set[int], **answer: Any) -> Any:
        found = [
            self.postprocess(ModelOutput(logits=views), choices=choices, **answer)
            for views, choices in zip(rows.unflatten(0, (-1, len(seen.choices))).unbind(1), seen.choices, strict=True)
        ]
        return found[0] if seen.single else found


@dataclasses.dataclass(frozen=True)
class AskedWindow(WindowSample):
    """A window, and what is asked of it: the `choices` of each question, None where a model knows its answers; `single`
    where not a list of questions came."""

    choices: tuple[list[str] | None, ...] = (None,)
    single: bool = True


def _read_asked(
    video: VideoSource,
    *,
    request: ClipRequest,
    process: Callable[..., Any],
    tokenizer: PreTrainedTokenizerBase,
    multiple_choice: bool,
    asked: dict[str, Any],
) -> Iterator[Event]:
    """The events of a video; each clip is there once for each question, with its tokens. So rows of a data set, with
    questions of their own, share a batch."""
    question, choices, single = _question(video, multiple_choice, **asked)
    texts = [one for text, own in zip(question, choices, strict=True) for one in question_texts(text, own)]
    tokens = matching.tokenize(tokenizer, texts)
    if multiple_choice:
        tokens = {name: value.unflatten(0, (len(question), -1)) for name, value in tokens.items()}
    for event in read_events(video, request, process):
        if isinstance(event, ClipInputs):
            crops = len(next(iter(event.inputs.values())))
            inputs = {name: value.repeat_interleave(len(question), 0) for name, value in event.inputs.items()}
            inputs |= {name: value.repeat(crops, *[1] * (value.ndim - 1)) for name, value in tokens.items()}
            yield dataclasses.replace(event, inputs=inputs)
        elif isinstance(event, list):
            yield [AskedWindow(seen.seconds, seen.sample, choices, single) for seen in event]
        else:
            yield event


def _question(
    video: VideoSource,
    multiple_choice: bool,
    question: list[str] | None = None,
    single: bool = True,
    choices: list[Any] | None = None,
) -> tuple[list[str], tuple[list[str] | None, ...], bool]:
    """Questions, the choices of each, and whether one question is meant, of a row or else of the call. Raises
    VideoOptionError."""
    if isinstance(video, Mapping):
        if video.get("question") is not None:
            question, single = matching.texts_of("question", video["question"]), isinstance(video["question"], str)
        if video.get("choices") is not None:
            choices = _choices_of(video["choices"])
    if question is None:
        raise VideoOptionError(
            "question is missing: pass question=, or rows with one, {'video': ..., 'question': ...}."
        )
    each = choices if choices and isinstance(choices[0], list) else [choices] * len(question)
    if multiple_choice and (choices is None or min(map(len, each)) < 2):
        raise VideoOptionError(f"choices={choices!r}: this model chooses; pass two texts or more to choose from.")
    if multiple_choice and (len(each) != len(question) or len({len(own) for own in each}) > 1):
        raise VideoOptionError(
            f"{len(question)} questions and {len(each)} lists of {sorted({len(own) for own in each})} choices came: "
            "give each question of a video a list, all of one length."
        )
    if choices is not None and not multiple_choice:
        raise VideoOptionError(
            "choices are for a model for multiple choice (VioletForMultipleChoice); this one knows its answers from "
            "training (config.id2label)."
        )
    return question, tuple(each), single


def _choices_of(given: object) -> list[Any]:
    """Texts to choose from, or a list of such for each question."""
    if isinstance(given, (list, tuple)) and given and all(isinstance(one, (list, tuple)) for one in given):
        return [matching.texts_of("choices", one) for one in given]
    return matching.texts_of("choices", given)


class WrittenAnswersPipeline(GenerativePipeline):
    """What `VideoQuestionAnsweringPipeline` makes of a model that writes its answers."""

    window_key = "predictions"

    def _options(
        self,
        *,
        question: str | list[str] | None = None,
        max_new_tokens: int | None = None,
        generate_kwargs: Mapping[str, Any] | None = None,
        choices: object = None,
        top_k: int | None = NOT_GIVEN,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if choices is not None or top_k is not NOT_GIVEN:
            raise VideoOptionError(
                f"{'top_k' if choices is None else 'choices'} is for models that choose among answers; "
                f"{type(self.model).__name__} writes one of its own."
            )
        own: dict[str, Any] = {}
        if question is not None:
            own = {"question": matching.texts_of("question", question), "single": isinstance(question, str)}
        return self._writing(max_new_tokens, generate_kwargs, **own)

    def _asked(self, asked: dict[str, Any]) -> Callable[[VideoSource], Asked]:
        return functools.partial(
            _own_question, **{name: asked[name] for name in ("question", "single") if name in asked}
        )

    def _answers(self, texts: list[str], single: bool, seen: WindowSample, repeated: tuple[int, ...]) -> Any:
        found = [[{"answer": text}] for text in texts]
        return found[0] if single else found


def _own_question(video: VideoSource, **asked: Any) -> Asked:
    questions, _, single = _question(video, False, **asked)
    return questions, single
