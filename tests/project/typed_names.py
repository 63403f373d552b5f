"""What a type checker knows of the public names. `make lint` runs mypy on this file; nothing here is ever executed.

Each `type: ignore` marks a line that has to be an error: mypy reports one that isn't needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import hf_video
import hf_video.cli
import hf_video.video
from hf_video.video import VideoReader, sample_video, write_video

if TYPE_CHECKING:
    from typing_extensions import assert_type

    from hf_video.base.detection.events import EventMatch
    from hf_video.video.frames.types import VideoFrames, VideoMetadata
    from hf_video.video.sampling.frame_sample import FrameSample


def names_have_types() -> None:
    reader = VideoReader("clip.mp4")
    assert_type(reader, VideoReader)
    assert_type(hf_video.VideoReader("clip.mp4"), VideoReader)
    assert_type(reader.metadata, VideoMetadata)
    assert_type(reader.get_frames([0, 5, -1]), VideoFrames)
    assert_type(reader.metadata.num_frames, int)
    assert_type(hf_video.__version__, str)
    assert_type(hf_video.cli.main(["info"]), int)
    assert_type(hf_video.VideoMAEConfig(), hf_video.VideoMAEConfig)
    assert_type(sample_video(reader, 16), FrameSample)
    assert_type(hf_video.Events().query("jump before throw"), list[EventMatch])
    assert_type(hf_video.count_repetitions("clip.mp4").period, float | None)


def what_is_not_there_is_an_error() -> None:
    print(hf_video.NoSuchThing)  # type: ignore[attr-defined]
    print(hf_video.video.NoSuchThing)  # type: ignore[attr-defined]
    VideoReader("clip.mp4").no_such_method()  # type: ignore[attr-defined]
    VideoReader("clip.mp4", no_such_option=1)  # type: ignore[call-arg]
    write_video("copy.mp4")  # type: ignore[call-arg]
    VideoReader("clip.mp4").get_frames("first")  # type: ignore[arg-type]
