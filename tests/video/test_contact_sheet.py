"""Contact sheets: size, content and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from hf_video.errors import VideoArrayError
from hf_video.video.contact_sheet import SheetClip, contact_sheet


def clip(level: int, tone: str = "plain") -> SheetClip:
    frames = np.full((6, 20, 40, 3), (level, 0, 255), np.uint8)  # a colour that no text has
    return SheetClip(frames, f"level {level}", "note", tone)


def test_frames_stand_side_by_side_in_their_cells():
    sheet = np.asarray(contact_sheet([clip(200), clip(90)], columns=2, frames_per_clip=3, cell=40))
    left, right = ((sheet == (level, 0, 255)).all(-1) for level in (200, 90))
    assert left.sum() == right.sum() == 3 * 40 * 20
    assert left.nonzero()[1].max() < right.nonzero()[1].min()


def test_a_title_and_more_rows_make_it_higher_and_tones_are_seen():
    plain = contact_sheet([clip(0)] * 2, columns=2)
    tall = contact_sheet([clip(0, "good")] * 3, columns=2, title="Title")
    assert tall.height > plain.height
    assert tall.width == plain.width
    assert (np.asarray(tall) == (38, 132, 84)).all(-1).any()


@pytest.mark.parametrize(
    "clips", [[], [SheetClip(np.zeros((2, 4, 4), np.uint8), "")], [SheetClip(np.zeros((2, 4, 4, 3)), "")]]
)
def test_what_is_no_clip_is_refused(clips):
    with pytest.raises(VideoArrayError):
        contact_sheet(clips)
