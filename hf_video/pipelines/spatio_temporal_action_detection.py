"""`pipeline("spatio-temporal-action-detection")`: who does what, where and when."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import ModelOutput

from hf_video.base.detection.tubes import KeyFrameBoxes, Tracker, link_tubes
from hf_video.base.detection.types import Detection
from hf_video.base.processing_config import clip_geometry, pixel_processor
from hf_video.clips.batching import VideoResult
from hf_video.clips.key_frames import around_key_frames, every, just
from hf_video.clips.read import ClipInputs, Event, read_events
from hf_video.clips.request import ClipRequest
from hf_video.errors import CheckpointError, VideoError, VideoOptionError, check_count, check_number
from hf_video.pipelines.base import VideoPipeline
from hf_video.pipelines.person_boxes import PersonDetector
from hf_video.pipelines.video_classification import thresholds_of
from hf_video.video.frames.types import Videos, VideoSource

Boxes = Mapping[float, Any]  # seconds -> boxes (N, 4)


class PeopleEvents(list[Detection]):
    """Events by start, each with its boxes: equal to such a list. `key_frames` are all boxes that were looked at, with
    the scores of all classes, and `labels` the names of these."""

    def __init__(self, events: Sequence[Detection], key_frames: Sequence[KeyFrameBoxes], labels: Mapping[int, str]):
        super().__init__(events)
        self.key_frames, self.labels = list(key_frames), dict(labels)

    def rows(self, video: str, action_ids: Sequence[int] | None = None) -> list[tuple[Any, ...]]:
        """Rows (video, second, x1, y1, x2, y2, action, score) of all boxes and classes, corners as shares of the frame,
        as AVA's evaluation and `hf_video.data.sources.box_files.write_boxes` take them. `action_ids` are the numbers of
        the classes there; by default class 0 is action 1, as in AVA. A frame without boxes is a row of two."""
        found: list[tuple[Any, ...]] = []
        for frame in self.key_frames:
            shares = frame.boxes / np.array([*frame.size[::-1]] * 2, dtype=np.float64)
            if not len(shares):
                found.append((video, frame.second))
            for box, scores in zip(shares.clip(0, 1).tolist(), frame.scores.tolist(), strict=True):
                for label, score in enumerate(scores):
                    found.append((video, frame.second, *box, action_ids[label] if action_ids else label + 1, score))
        return found


@dataclass
class GivenBoxes:
    """A video, and the boxes of its key frames by second."""

    video: Any
    boxes: dict[float, np.ndarray]


class SpatioTemporalActionDetectionPipeline(VideoPipeline):
    """What people do, by a `...ForSpatioTemporalActionDetection` of SlowFast, Slow or VideoMAE.

        detect = pipeline("spatio-temporal-action-detection", model="folder", detector="PekingU/rtdetr_r50vd")
        for event in detect("match.mp4"):
            print(event.label, event.score, event.start, event.end, event.boxes)
        detect("match.mp4", boxes={1.0: [[40, 20, 120, 200]], 2.0: [[44, 20, 124, 200]]})

    Every `key_frames` seconds people are looked for in a frame, the model sees the clip around it, and gives each of
    them a score for every class. People are linked from frame to frame, and a class that one of them shows in
    consecutive key frames is one event. Each frame is decoded once, and memory does not grow with the length of a
    video. What a video is: see `VideoClassificationPipeline`.

    Options, of the pipeline or of a call:
        detector: What finds people: a folder or name of an `AutoModelForObjectDetection` of transformers (RT-DETR,
            YOLOS), or the pair (model, image processor).
        boxes: In its place, boxes that are known: {second: (N, 4)} with x1, y1, x2, y2 in pixels of the frame; for
            several videos a list of these. Their seconds are the key frames.
        person_label, person_threshold, max_boxes: The detector's class ("person"), the score from which on it counts
            (.8), and how many boxes of a frame are taken (50).
        key_frames: Seconds from one key frame to the next, which lie in the middle of such stretches (1.0); or a list
            of seconds.
        threshold: Score from which on a person shows a class (.5), or "model" for the classes' own `label_thresholds`.
        gap: Key frames that may be missing inside an event (1).
        tracker: What links people: a callable (boxes (N, 4), scores (N,)) -> a number for each box, called frame by
            frame, such as one around a tracker of the package trackers. Default: the overlap of boxes.
        num_frames, frame_sampling_rate, sampler_options, on_error, bad_files, backend, fps, batch_size, num_workers: As
            in `VideoClassificationPipeline`.

    Results are `PeopleEvents`: lists of `Detection`, with `.key_frames` and `.rows(video)` for AVA's CSV.

    Raises VideoOptionError (options, boxes outside the frame), CheckpointError (another model, no processor) and the
    exceptions of `VideoReader`.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not hasattr(self.model, "box_head"):
            raise CheckpointError(
                f"{type(self.model).__name__} does not classify boxes. Load a ...ForSpatioTemporalActionDetection."
            )
        self._detectors: dict[Any, PersonDetector] = {}

    def _options(
        self,
        *,
        detector: Any = None,
        boxes: Any = None,
        person_label: str | None = None,
        person_threshold: float | None = None,
        max_boxes: int | None = None,
        key_frames: float | Sequence[float] | None = None,
        threshold: float | str | None = None,
        gap: int | None = None,
        tracker: Tracker | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        check_number("person_threshold", person_threshold, least=0, most=1, optional=True)
        check_count("max_boxes", max_boxes, optional=True)
        check_count("gap", gap, least=0, optional=True)
        if threshold != "model":
            check_number("threshold", threshold, optional=True)
        if key_frames is not None and not isinstance(key_frames, (list, tuple, np.ndarray)):
            check_number("key_frames", key_frames, above=0)
        if tracker is not None and not callable(tracker):
            raise VideoOptionError(
                f"tracker must be callable (boxes, scores) -> numbers; a {type(tracker).__name__} came."
            )
        asked = {
            "detector": detector,
            "label": person_label,
            "threshold": person_threshold,
            "max_boxes": max_boxes,
            "key_frames": key_frames,
            "boxes": boxes,
        }
        answer = {"threshold": threshold, "gap": gap, "tracker": tracker}
        return tuple({n: v for n, v in given.items() if v is not None} for given in (asked, answer))  # type: ignore[return-value]

    def _ask(self, *, key_frames: float | Sequence[float] = 1.0, boxes: Any = None, **detecting: Any) -> dict[str, Any]:
        """The detector, loaded once, and where key frames lie."""
        if boxes is not None:
            return {"people": None}
        detector = detecting.pop("detector", None)
        if detector is None:
            raise VideoOptionError(
                "Nothing says where people are: pass detector=, a folder or name of an object detector such as "
                "RT-DETR, or boxes={second: [[x1, y1, x2, y2], ...]}."
            )
        key = (detector if isinstance(detector, str) else id(detector), *sorted(detecting.items()))
        if key not in self._detectors:
            self._detectors[key] = PersonDetector(detector, device=self.device, dtype=self.dtype, **detecting)
        several = isinstance(key_frames, (list, tuple, np.ndarray))
        moments = functools.partial(just, tuple(key_frames)) if several else functools.partial(every, float(key_frames))
        return {"people": self._detectors[key], "moments": moments}

    def _all(self, videos: Videos, batch_size: int | None, num_workers: int | None, **options: Any) -> Iterator[Any]:
        given = {**self._forward_params, **options}.get("boxes")
        if given is not None:
            several = [given] if isinstance(given, Mapping) else list(given)
            if not hasattr(videos, "__len__") or len(several) != len(videos):
                raise VideoOptionError(
                    f"boxes= are for {len(several)} videos, and "
                    f"{len(videos) if hasattr(videos, '__len__') else 'a stream of them'} came: give one mapping each."
                )
            videos = [GivenBoxes(video, checked_boxes(one)) for video, one in zip(videos, several, strict=True)]
        return super()._all(videos, batch_size, num_workers, **options)

    # -- reading

    def _reader(self, request: ClipRequest, asked: dict[str, Any]) -> Callable[[Any], Iterator[Event]]:
        request = around_key_frames(request, asked.get("moments"))
        process = functools.partial(with_key_frame, self._process)
        return functools.partial(read_around, request=request, process=process)

    # -- the model

    def _rows(self, asked: dict[str, Any], clips: dict[str, torch.Tensor]) -> list[KeyFrameBoxes]:
        frames = clips.pop("key_frame").numpy()
        height, width = frames.shape[1:3]
        seconds = clips.pop("second").tolist()
        if (known := clips.pop("boxes", None)) is None:
            found = asked["people"](frames)
        else:
            found = [(one[: int(n)].numpy(), np.ones(int(n))) for one, n in zip(known, clips.pop("count"), strict=True)]
        for (boxes, _), second in zip(found, seconds, strict=True):
            check_in_frame(boxes, width, height, second)
        processor = pixel_processor(self.image_processor or self.video_processor)
        geometry = clip_geometry(processor, height, width)
        most = max((len(boxes) for boxes, _ in found), default=0)
        classes = self.model.config.num_labels
        scores = np.zeros((len(found), most, classes), dtype=np.float32)
        if most:
            places = np.zeros((len(found), most, 4), dtype=np.float32)
            for place, (boxes, _) in zip(places, found, strict=True):
                place[: len(boxes)] = geometry.place(boxes)
            given = {**clips, "boxes": torch.from_numpy(places)}
            scores = self.forward(given)["logits"].float().sigmoid().numpy()
        return [
            KeyFrameBoxes(second, boxes, people, scores[number, : len(boxes)], (height, width))
            for number, (second, (boxes, people)) in enumerate(zip(seconds, found, strict=True))
        ]

    def _forward(self, model_inputs: dict[str, torch.Tensor]) -> ModelOutput:
        return ModelOutput(logits=self._run(self.model, model_inputs).logits)

    def _answer(self, result: VideoResult, request: ClipRequest, answer: dict[str, Any]) -> PeopleEvents:
        return self.postprocess(result.others, bounds=result.seen[0].seconds, **answer)

    def postprocess(
        self,
        model_outputs: list[KeyFrameBoxes],
        *,
        bounds: tuple[float, float] | None = None,
        threshold: float | str = 0.5,
        gap: int = 1,
        tracker: Tracker | None = None,
    ) -> PeopleEvents:
        """The key frames of one video to events."""
        config = self.model.config
        limits = thresholds_of(config, config.num_labels) if threshold == "model" else threshold
        events = link_tubes(model_outputs, config.id2label, threshold=limits, gap=gap, bounds=bounds, tracker=tracker)
        return PeopleEvents(events, model_outputs, config.id2label)


def with_key_frame(
    process: Callable[..., dict[str, torch.Tensor]], frames: np.ndarray, crops: int
) -> dict[str, torch.Tensor]:
    """Model inputs of a clip, whose last frame is the key frame and goes along as it is."""
    return {**process(frames[:-1], crops), "key_frame": torch.from_numpy(np.ascontiguousarray(frames[-1]))[None]}


def read_around(
    source: VideoSource | GivenBoxes, request: ClipRequest, process: Callable[..., dict[str, torch.Tensor]]
) -> Iterator[Event]:
    """Events of a video's clips around key frames, each with the second of its key frame, and boxes that are given."""
    known = None
    if isinstance(source, GivenBoxes):
        source, known = source.video, source.boxes
        request = around_key_frames(request, functools.partial(just, tuple(known)))
    # At full size: the detector sees the frame, and boxes are in its pixels.
    request = ClipRequest(**{**vars(request), "decode": {}})
    seconds: list[float] = []
    number = 0
    for event in read_events(source, request, process):
        if isinstance(event, ClipInputs):
            event.inputs["second"] = torch.tensor([seconds[number]], dtype=torch.float64)
            if known is not None:
                most = max(map(len, known.values()))
                boxes = list(known.values())[number]
                padded = np.zeros((1, most, 4), dtype=np.float32)
                padded[0, : len(boxes)] = boxes
                event.inputs.update(boxes=torch.from_numpy(padded), count=torch.tensor([len(boxes)]))
            number += 1
        elif not isinstance(event, VideoError):
            times = event[0].sample.seconds
            seconds = list(known) if known is not None or times is None else times[:, -1].tolist()
        yield event


def checked_boxes(boxes: Boxes) -> dict[float, np.ndarray]:
    """Boxes (N, 4) by second, in order. Raises VideoOptionError for what is none."""
    if not isinstance(boxes, Mapping) or not boxes:
        raise VideoOptionError(f"boxes must be {{second: [[x1, y1, x2, y2], ...]}} for each video; {boxes!r} came.")
    found = {}
    for second in sorted(boxes):
        given = np.asarray(boxes[second], dtype=np.float32)
        given = given.reshape(0, 4) if given.size == 0 else given
        if given.ndim != 2 or given.shape[1] != 4 or not np.isfinite(given).all():
            raise VideoOptionError(
                f"boxes of second {second:g} must be (N, 4) finite numbers x1, y1, x2, y2; shape {given.shape} came."
            )
        found[float(check_number("a second of boxes", second))] = given
    return found


def check_in_frame(boxes: np.ndarray, width: int, height: int, second: float) -> None:
    """Raises VideoOptionError for boxes that are reversed or reach out of a frame, by more than a pixel."""
    for box in boxes.tolist():
        x1, y1, x2, y2 = box
        if x2 <= x1 or y2 <= y1:
            raise VideoOptionError(
                f"The box {box} at {second:g} s ends before it begins: x1 < x2 and y1 < y2 are needed."
            )
        if min(x1, y1) < -1 or x2 > width + 1 or y2 > height + 1:
            shares = (
                " Are these shares of the frame? Multiply x by its width and y by its height." if max(box) <= 1 else ""
            )
            raise VideoOptionError(
                f"The box {box} at {second:g} s reaches out of the frame of {width}x{height} pixels.{shares}"
            )
