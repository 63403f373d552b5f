"""Draws docs/architecture.svg from the tree and its imports: `make picture`.

A box is a folder (or a module of the root), a row is a floor of `tests/test_architecture.py`, and an arrow an import
from one box of another. Arrows that follow from others are left out: with a → b → c there is no a → c.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from test_architecture import FLOORS, ROOT, ROOT_MODULES, folders, modules  # noqa: E402

# Left and right edge of each box, and what it holds. The row follows from its floor.
BOXES = {
    "cli": (20, 840, "the command hf-video, a file per verb"),
    "auto": (690, 840, "models and pipelines", "for Auto classes"),
    "retrieval": (20, 245, "searchable indexes of videos", "and the search page"),
    "live": (255, 338, "cameras", "and streams"),
    "export": (346, 424, "models for", "other runtimes"),
    "training": (433, 552, "runs, trainers, recipes,", "optimisers, samplers"),
    "visual": (562, 700, "what models say,", "look at, get wrong"),
    "federated": (410, 660, "learning together: rules, partitions,", "privacy, secure sums"),
    "features": (20, 205, "embeddings", "in shards"),
    "pipelines": (225, 410, "one file per task"),
    "evaluation": (430, 600, "protocols, metrics,", "reports, figures"),
    "hub": (620, 740, "model cards,", "publishing"),
    "data": (20, 185, "rows, sources, splits,", "data sets, collation"),
    "models": (205, 600, "one folder per paper: configuration, modeling,", "image processing, conversion"),
    "clips": (20, 340, "which frames, views, windows and crops:", "from a video to pixel_values"),
    "base": (
        20,
        840,
        "what all models share: configuration, modeling, outputs, processing,",
        "loading, saving, converting",
    ),
    "registry": (20, 260, "the table of models"),
    "layers": (300, 540, "attention, patches, positions:", "what several models are built from"),
    "video": (580, 840, "reading, decoding, sampling, augmenting,", "writing: pixels without labels"),
    "errors": (20, 840, "every error that is raised on purpose, and the checks of arguments"),
}
ROADS = {
    "#1668b8": ("from a file to clips and labels", ("video", "clips", "models", "pipelines")),
    "#b3541e": ("from data to a run", ("data", "clips", "training", "evaluation", "hub")),
}
WIDTH, ROW, HEIGHT = 860, 76, 46  # of the picture; from row to row; of a box


def parts() -> set[str]:
    """The boxes: folders and root modules that there are, but the package's own `__init__`."""
    below = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    return (below | ROOT_MODULES) - {"__init__"}


def arrows() -> list[tuple[str, str]]:
    """Imports between boxes, without those that follow from others."""
    edges: dict[str, set[str]] = {name: set() for name in parts()}
    for name, imported in folders(modules()).items():
        edges[box_of(name)] |= {box_of(one) for one in imported} - {box_of(name)}
    reached: dict[str, set[str]] = {}

    def reach(name: str) -> set[str]:
        if name not in reached:
            reached[name] = edges[name].union(*map(reach, edges[name]))
        return reached[name]

    return sorted(
        (name, one)
        for name, imported in edges.items()
        for one in imported
        if not any(one in reach(other) for other in imported)
    )


def box_of(part: str) -> str:
    """A model's folder is a part by itself; all of them are one box."""
    return part if part in parts() else "models"


def rows() -> dict[str, int]:
    """The row of each box: 0 is the highest floor that has a folder."""
    floors = [floor & parts() for floor in reversed(FLOORS)]
    return {name: row for row, floor in enumerate(filter(None, floors)) for name in floor}


def line(name: str, other: str, row: dict[str, int]) -> str:
    """An arrow's path: across between neighbours of one floor, else straight down where no box is in between."""
    (left, right, *_), (to_left, to_right, *_) = BOXES[name], BOXES[other]
    top, to_top = top_of(row[name]), top_of(row[other])
    if row[name] == row[other]:
        y = top + HEIGHT / 2
        return f"M{left} {y:.0f}H{to_right + 1}" if to_right < left else f"M{right} {y:.0f}H{to_left - 1}"
    between = [BOXES[one][:2] for one in row if row[name] < row[one] < row[other]]
    free = [x for x in range(max(left, to_left) + 8, min(right, to_right) - 7)
            if not any(a - 8 < x < b + 8 for a, b in between)]  # fmt: skip
    middle = (max(left, to_left) + min(right, to_right)) / 2
    x = min(free, key=lambda one: abs(one - middle))
    return f"M{x} {top + HEIGHT}V{to_top - 1}"


def top_of(row: int) -> int:
    return 12 + row * ROW


def draw() -> str:
    """The picture as SVG."""
    row = rows()
    height = top_of(max(row.values())) + HEIGHT + 62
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" text-anchor="middle">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#6b7280"/></marker>',
        *(f'<path d="{line(name, other, row)}" stroke="#6b7280" stroke-width="1.4" marker-end="url(#tip)"/>'
          for name, other in arrows()),
    ]  # fmt: skip
    for name, (left, right, *words) in BOXES.items():
        x, top = (left + right) / 2, top_of(row[name])
        lines += [
            f'<g id="{name}"><rect x="{left}" y="{top}" width="{right - left}" height="{HEIGHT}" rx="5" '
            'fill="#f1f4f8" stroke="#5b6675"/>',
            f'<text x="{x:g}" y="{top + 15}" font-size="13" font-weight="bold">{name}</text>',
            *(f'<text x="{x:g}" y="{top + 28 + 12 * number}" font-size="10">{escape(one)}</text>'
              for number, one in enumerate(words)),
            "</g>",
        ]  # fmt: skip
    for road, (colour, (title, stops)) in enumerate(ROADS.items()):
        for number, name in enumerate(stops, 1):
            left, right, *_ = BOXES[name]
            lines += badge(right - 12 if road else left + 12, top_of(row[name]) + 11, number, colour)
        y = height - 40 + 22 * road
        lines += badge(32, y, 1, colour)
        lines.append(f'<text x="46" y="{y + 4}" font-size="12" text-anchor="start">'
                     f"{title}: {' → '.join(stops)}</text>")  # fmt: skip
    return "\n".join([*lines, "</svg>", ""])


def badge(x: int, y: int, number: int, colour: str) -> list[str]:
    return [
        f'<circle cx="{x}" cy="{y}" r="8" fill="{colour}"/>',
        f'<text x="{x}" y="{y + 4}" font-size="11" fill="#ffffff">{number}</text>',
    ]


if __name__ == "__main__":
    (DOCS / "architecture.svg").write_text(draw(), encoding="utf-8")
