"""`pipeline("video-captioning")`: what happens in a video, in words, as a whole or window by window."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from hf_video.clips.read import WindowSample
from hf_video.errors import VideoOptionError
from hf_video.pipelines.generation import Asked, GenerativePipeline
from hf_video.video.frames.types import VideoSource


class VideoCaptioningPipeline(GenerativePipeline):
    """Captions of videos, by GIT or any `AutoModelForImageTextToText` whose processor takes videos.

        describe = pipeline("video-captioning", model="folder or Hub name")
        describe("clip.mp4")                    # {"seconds": (0.0, 9.8), "caption": "a man throws a ball"}
        describe("match.mp4", windows="10s")    # a timed transcript: such a dictionary for every 10 seconds
        describe("clip.mp4", prompt="What is the person cooking?", max_new_tokens=100)
        describe("clip.mp4", generate_kwargs={"do_sample": False, "num_beams": 4})

    Frames are chosen and decoded by hf_video and go to the model's own processor with their true seconds, also where a
    file's frame rate varies; the prompt is made by its own chat template. Videos, windows, workers and files that can't
    be read are as in `VideoClassificationPipeline`. Windows are read and described one after the other: memory does not
    grow with the length of the video.

    Options, of the pipeline or of a call:
        prompt: What the model is asked. Default: to describe what happens in the video; GIT, which has no questions,
            begins its caption with it, default nothing.
        max_new_tokens: Of a caption, default 64.
        generate_kwargs: Options of `model.generate`. What its own `generation_config` says holds beside them; many
            models draw words at random (`do_sample`) by default.
        num_frames: Of a window, evenly spread. Default: as many as the video processor's file says (by `fps`, at most
            `num_frames` or `max_frames`), never more than the window has; 8 where it says nothing; for GIT those it
            has embeddings for.
        sampler, frame_sampling_rate, windows, on_error, bad_files, backend, fps, num_workers: As in
            `VideoClassificationPipeline`.

    Results have `seconds`, (start, end) of what was described by the reader's time stamps, `caption`, and
    `repeated_frames` where damaged ones were replaced by their neighbours (`on_error="repeat"`).

    Raises VideoOptionError (options), CheckpointError (a model that writes nothing or sees nothing; a processor that is
    missing, belongs to another model, takes no videos or needs a package) and the exceptions of `VideoReader`.
    """

    def _options(
        self,
        *,
        prompt: str | None = None,
        max_new_tokens: int | None = None,
        generate_kwargs: Mapping[str, Any] | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if prompt is not None and not (isinstance(prompt, str) and prompt.strip()):
            raise VideoOptionError(f"prompt={prompt!r} must be a text that isn't empty.")
        return self._writing(max_new_tokens, generate_kwargs, prompt=prompt)

    def _asked(self, asked: dict[str, Any]) -> Callable[[VideoSource], Asked]:
        return functools.partial(_same_prompt, prompt=asked.get("prompt"))

    def _answers(self, texts: list[str], single: bool, seen: WindowSample, repeated: tuple[int, ...]) -> dict[str, Any]:
        found = {"seconds": seen.seconds, "caption": texts[0]}
        return {**found, "repeated_frames": list(repeated)} if repeated else found

    def _video(self, windows: list[tuple[tuple[float, float], Any]], whole: bool) -> Any:
        captions = [caption for _, caption in windows]
        return captions[0] if whole else captions


def _same_prompt(video: VideoSource, *, prompt: str | None) -> Asked:
    return [prompt], True
