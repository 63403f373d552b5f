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


def test_clips_of_other_shapes_have_boxes_of_one_height_and_their_own_proportions():
    shapes = ((20, 40), (40, 20), (30, 30))
    clips = [SheetClip(np.full((2, *shape, 3), (200, 0, 255), np.uint8), "") for shape in shapes]
    sheet = np.asarray(contact_sheet(clips, columns=3, frames_per_clip=1, cell=60))
    boxes = (sheet == (232, 232, 230)).all(-1) | (sheet == (200, 0, 255)).all(-1)
    rows, columns = boxes.any(1).nonzero()[0], boxes.any(0).nonzero()[0]
    assert boxes.sum() == 3 * 60 * 60
    assert rows.max() - rows.min() == 59  # all stand in one line
    first, second, third = ((sheet == (200, 0, 255)).all(-1)[:, at : at + 60] for at in columns[[0, 60, 120]])
    assert [(m.any(1).sum(), m.any(0).sum()) for m in (first, second, third)] == [(30, 60), (60, 30), (60, 60)]


def test_long_words_stay_under_their_clip():
    frames = np.full((2, 20, 40, 3), (200, 0, 255), np.uint8)
    sheet = contact_sheet([SheetClip(frames, "caption " * 30, "note" * 90)], columns=1, frames_per_clip=2, cell=90)
    ink = (np.asarray(sheet).astype(int) - np.asarray(sheet)[0, 0]).any(-1)
    assert ink.nonzero()[1].max() < 16 + 2 * 92
    assert sheet.height > contact_sheet([SheetClip(frames, "caption")], columns=1, frames_per_clip=2, cell=90).height


def test_letters_can_be_read():
    """On a sheet of four frames of 72 pixels: capitals of 12 pixels or more, in the note of 9."""
    frames = np.full((2, 20, 40, 3), (200, 0, 255), np.uint8)
    for caption, note, least in (("H", "", 12), ("", "H", 9)):
        sheet = np.asarray(contact_sheet([SheetClip(frames, caption, note)], columns=1)).astype(int)
        rows = np.abs(sheet - sheet[0, 0]).sum(-1).max(1) > 200
        below = rows[16 + 36 :]  # the frames end there
        assert below.sum() >= least
