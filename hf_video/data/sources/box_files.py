"""Files of people in boxes, in AVA's format (research.google.com/ava): CSV of boxes, of frames that do not count, and
the list of actions.

    video_id, second, x1, y1, x2, y2, action_id, person_id     ground truth; boxes are shares of the frame, 0 to 1
    video_id, second, x1, y1, x2, y2, action_id, score         detections
    video_id, second, x1, y1, x2, y2, , score                  boxes of people, without an action
    video_id, second                                           a frame that was looked at, with nothing in it

A box that shows several actions stands in as many lines. There is no header.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hf_video.base.written_files import atomic_write, writing_into
from hf_video.data.rows import Skipped
from hf_video.data.sources.tables import read_text, text_lines
from hf_video.errors import DataError, OutputError, check_choice

INVALID = ("raise", "drop")
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class BoxLine:
    """A line of such a file. `box` is None for a frame with nothing in it, `action` None for a person whose action is
    not told; `extra` is the last column, a score or the number of a person; `place` says where it stands."""

    video: str
    second: float
    box: Box | None = None
    action: int | None = None
    extra: float | None = None
    place: str = ""

    def row(self) -> tuple[str | float | int, ...]:
        """As `hf_video.evaluation.detection.spatio_temporal.frame_map` takes it."""
        if self.box is None or self.action is None:
            return (self.video, self.second)
        last = () if self.extra is None else (self.extra,)
        return (self.video, self.second, *self.box, self.action, *last)


@dataclass
class BoxFile:
    """The lines of a file, in its order, and what was left out of it."""

    path: str
    lines: list[BoxLine] = field(default_factory=list)
    faults: list[Skipped] = field(default_factory=list)

    def rows(self) -> list[tuple[str | float | int, ...]]:
        """Rows of `frame_map`. Lines of people without an action are frames with nothing in them."""
        return [line.row() for line in self.lines]

    def frames(self) -> dict[str, dict[float, dict[Box, list[BoxLine]]]]:
        """For each video and second its boxes, each with its lines."""
        found: dict[str, dict[float, dict[Box, list[BoxLine]]]] = {}
        for line in self.lines:
            boxes = found.setdefault(line.video, {}).setdefault(line.second, {})
            if line.box is not None:
                boxes.setdefault(line.box, []).append(line)
        return found


def read_boxes(
    path: str | os.PathLike[str], *, actions: Mapping[int, str] | None = None, invalid: str = "raise"
) -> BoxFile:
    """Reads a CSV of boxes.

    Args:
        path: The file.
        actions: Numbers and names of the actions there are (`read_actions`); None takes any number from 0 on.
        invalid: What becomes of boxes that reach out of the frame, are reversed or have an unknown action: "raise", or
            "drop", which lists them in `faults`.

    Returns:
        `BoxFile`.

    Raises:
        DataError: The file can't be read, a line has another number of columns or what is no number, or a box is
            wrong; the message has the number of the line.
    """
    check_choice("invalid", invalid, INVALID, DataError)
    path = Path(path)
    found = BoxFile(str(path))
    for number, cells in enumerate(csv.reader(text_lines(read_text(path))), start=1):
        cells = [cell.strip() for cell in cells]
        if not any(cells) or (number == 1 and len(cells) > 1 and cells[0].lower() in ("video_id", "video")):
            continue
        place = f"line {number}"
        line = _parse(cells, f"{path}, {place}", place)
        fault = _fault(line, actions)
        if fault is None:
            found.lines.append(line)
        elif invalid == "raise":
            raise DataError(f"{path}, {place}: {fault} Correct the line, or leave such lines out: invalid='drop'.")
        else:
            found.faults.append(Skipped(place, fault, "box"))
    if not found.lines:
        raise DataError(f"{path} has no line of boxes: video, second, x1, y1, x2, y2, action and person or score.")
    return found


def _parse(cells: list[str], where: str, place: str) -> BoxLine:
    if len(cells) not in (2, 7, 8):
        raise DataError(
            f"{where} has {len(cells)} columns; boxes have 7 or 8 (video, second, x1, y1, x2, y2, action, person or "
            f"score), a frame with nothing in it has 2."
        )
    second = _number(cells[1], "second", where)
    if len(cells) == 2:
        return BoxLine(cells[0], second, place=place)
    x1, y1, x2, y2 = (
        _number(cell, name, where) for cell, name in zip(cells[2:6], ("x1", "y1", "x2", "y2"), strict=True)
    )
    action = _number(cells[6], "action", where) if cells[6] else None
    if action is not None and action != int(action):
        raise DataError(f"{where}: the action {cells[6]!r} must be a whole number.")
    last = _number(cells[7], "person or score", where) if len(cells) == 8 and cells[7] else None
    return BoxLine(cells[0], second, (x1, y1, x2, y2), None if action is None else int(action), last, place)


def _number(cell: str, name: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if value - value != 0:  # NaN and infinities too
        raise DataError(f"{where}: {name}={cell!r} is no number.")
    return value


def _fault(line: BoxLine, actions: Mapping[int, str] | None) -> str | None:
    """What is wrong with a line whose numbers are numbers."""
    if line.box is None:
        return None
    x1, y1, x2, y2 = line.box
    if x2 <= x1 or y2 <= y1:
        return f"the box {list(line.box)} ends before it begins: x1 < x2 and y1 < y2 are needed."
    if min(line.box) < 0 or max(line.box) > 1:
        pixels = " Are these pixels? Divide x by the width and y by the height." if max(line.box) > 2 else ""
        return f"the box {list(line.box)} reaches out of the frame: corners are shares of it, from 0 to 1.{pixels}"
    if line.action is not None and line.action not in (actions or {line.action}):
        return f"the action {line.action} is not among the {len(actions or ())} of the list of actions."
    return "the action is negative." if line.action is not None and line.action < 0 else None


def write_boxes(path: str | os.PathLike[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes rows (video, second, x1, y1, x2, y2, action, person or score), or of a video and second alone, as AVA's
    CSV. Raises OutputError where the file can't be written."""
    lines = (",".join("" if cell is None else str(cell) for cell in row) for row in rows)
    path = Path(path)
    with writing_into(path.parent, OutputError), atomic_write(path) as draft:
        draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_actions(path: str | os.PathLike[str]) -> dict[int, str]:
    """Numbers and names of actions from AVA's `.pbtxt` (`item { name: "stand" id: 12 }`, `label { … label_id: 12 }`).
    Raises DataError where there are none, or two have one number."""
    text = read_text(Path(path))
    found: dict[int, str] = {}
    for block in re.findall(r"\b(?:item|label)\s*\{(.*?)\}", text, re.DOTALL):
        name = re.search(r"""\bname\s*:\s*(?:"([^"]*)"|'([^']*)')""", block)
        number = re.search(r"\b(?:label_)?id\s*:\s*(\d+)", block)
        if name is None or number is None:
            raise DataError(f"{path}: a block has no name or no id: {' '.join(block.split())!r}.")
        if int(number[1]) in found:
            raise DataError(f"{path}: two actions have the id {number[1]}.")
        found[int(number[1])] = name[1] if name[1] is not None else name[2]
    if not found:
        raise DataError(f'{path} has no actions; expected blocks such as item {{ name: "stand" id: 12 }}.')
    return dict(sorted(found.items()))


def read_excluded(path: str | os.PathLike[str]) -> list[tuple[str, float]]:
    """Frames (video, second) that are not evaluated, from a CSV of two columns. Raises DataError."""
    path = Path(path)
    found = []
    for number, cells in enumerate(csv.reader(text_lines(read_text(path))), start=1):
        if any(cell.strip() for cell in cells):
            if len(cells) != 2:
                raise DataError(f"{path}, line {number} has {len(cells)} columns; expected video and second.")
            found.append((cells[0].strip(), _number(cells[1].strip(), "second", f"{path}, line {number}")))
    return found
