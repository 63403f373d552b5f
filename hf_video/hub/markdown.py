"""Text and tables in Markdown, as the Hub shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

FOLDED_FROM = 12  # rows of a table that are still shown at once


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join("–" if cell is None else str(cell) for cell in line) + " |" for line in lines)


def collapsible(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table, folded up under its title where it has more than `FOLDED_FROM` rows."""
    table = markdown_table(head, rows)
    if len(rows) <= FOLDED_FROM:
        return table
    return f"<details>\n<summary>{title}</summary>\n\n{table}\n\n</details>"


def bullet_list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def escape_markdown(text: object) -> str:
    """Escapes what would break a table or the page."""
    swaps = (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("*", "\\*"), ("_", "\\_"), ("\n", " "))
    text = str(text)
    for old, new in swaps:
        text = text.replace(old, new)
    return text


def format_percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def format_number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(format_number(item) for item in value)
    return escape_markdown(value)


def format_duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
