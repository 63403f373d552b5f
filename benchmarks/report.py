"""The results file as a markdown table, for docs/benchmarks.md: `python benchmarks/report.py [results.json]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEADER = ("job", "ours", "", "against", "", "measured", "ratio", "target", "met")
RESULTS = Path(__file__).resolve().parent / "results" / "results.json"
UNITS = {"cpu": "CPU", "wall": "wall", "memory": "peak"}


def amount(value: float | None, kind: str) -> str:
    """Milliseconds as ms or s, megabytes as MB, three digits."""
    if value is None:
        return "–"
    if kind == "memory":
        return f"{value:.0f} MB"
    return f"{value / 1e3:.3g} s" if value >= 1e3 else f"{value:.3g} ms"


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One row of the table, as text."""
    kind = row["kind"]
    ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}×"
    return (
        row["job"],
        row["name"],
        amount(row["ours"], kind),
        row["peer_name"],
        amount(row["peer"], kind) if row["peer"] is not None else row["note"],
        UNITS[kind],
        ratio,
        "" if row["target"] is None else f"≤ {row['target']:g}×",
        {True: "yes", False: "**no**", None: ""}[row["met"]],
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Padded columns with pipes: markdown that reads well in a terminal too. Empty if there are no rows."""
    if not rows:
        return ""
    lines = [HEADER, *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    text = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([text[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *text[1:]])


def circumstances(machine: dict[str, Any]) -> str:
    """One sentence on where and with what."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    quick = "A quick run: the numbers mean nothing. " if machine["quick"] else ""
    return (
        f"{quick}{machine['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python "
        f"{machine['python']}; {versions}. torch with {machine['torch_threads']} threads, decoders with "
        f"{machine['decoder_threads']}."
    )


def _pair(row: dict[str, Any]) -> str:
    return f"{row['job']}, {row['name']} against {row['peer_name']}"


def markdown(results: dict[str, Any]) -> str:
    """The whole report: circumstances, table, the notes of rows that have one, what falls short."""
    rows = results["rows"]
    notes = [f"- {_pair(row)}: {row['note']}." for row in rows if row["note"] and row["ratio"] is not None]
    judged = [row for row in rows if row["met"] is not None]
    short = [f"{_pair(row)} ({row['ratio']:.2f}×, not {row['target']:g}×)" for row in judged if not row["met"]]
    verdict = f"{len(judged) - len(short)} of {len(judged)} targets met." + "".join(f"\n- Not met: {s}." for s in short)
    parts = [circumstances(results["machine"]), table(rows), "\n".join(notes), verdict if judged else ""]
    return "\n\n".join(part for part in parts if part)


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1] if sys.argv[1:] else RESULTS).read_text())))
