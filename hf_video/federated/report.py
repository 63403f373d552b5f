"""What a federation did, as a table in the terminal, a picture of its rounds, and a summary of its clients."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hf_video.base.written_files import read_json
from hf_video.errors import FederatedError, pluralize
from hf_video.federated.rounds import ALL, AUDIT, HISTORY, RoundReport

FIGURE = "rounds.png"
COLUMNS = ("round", "clients", "loss", "accuracy", "worst", "server", "sent", "received", "seconds")


def read_history(folder: str | Path) -> list[RoundReport]:
    """The rounds of a run.

    Raises:
        FederatedError: The folder holds none.
    """
    path = Path(folder) / HISTORY
    if not path.exists():
        raise FederatedError(f"{folder} holds no rounds of a federation ({HISTORY}).")
    return [RoundReport(**row) for row in read_json(path)["rounds"]]


def header() -> str:
    """The line above `format_round`."""
    return "  ".join(f"{name:>8}" for name in COLUMNS) + "   MB of payloads"


def format_round(report: RoundReport) -> str:
    """A round in a line, and below it why clients failed."""
    accuracy = [one["accuracy"] for one in report.evaluation.values() if "accuracy" in one]
    # Under secure sums a client may be in the sum and fail after it.
    asked = len({*report.clients, *report.failed})
    worst = None if ALL in report.evaluation else min(accuracy, default=None)
    cells = [
        str(report.round),
        f"{len(report.clients)}/{asked}",
        _number(report.metrics.get("loss"), "{:.4f}"),
        _number(np.mean(accuracy) if accuracy else None, "{:.1%}"),
        _number(worst, "{:.1%}"),
        _number(report.metrics.get("server_accuracy"), "{:.1%}"),
        f"{report.bytes_down / 1e6:.2f}",
        f"{report.bytes_up / 1e6:.2f}",
        f"{report.seconds:.1f}",
    ]
    failed = [f"          {client}: {reason}" for client, reason in report.failed.items()]
    return "\n".join(["  ".join(f"{cell:>8}" for cell in cells), *failed])


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def format_clients(history: Sequence[RoundReport]) -> str:
    """A line for each client: rounds that it took part in, how often it failed, what it measured last."""
    names = sorted({name for row in history for name in (*row.clients, *row.failed, *row.evaluation)})
    wide = max((len(name) for name in names), default=6)
    lines = [f"{'client':{wide}}  rounds  failed  accuracy"]
    for name in names:
        measured = [row.evaluation[name].get("accuracy") for row in history if name in row.evaluation]
        accuracy = _number(measured[-1] if measured else None, "{:.1%}")
        took, failed = sum(name in row.clients for row in history), sum(name in row.failed for row in history)
        lines.append(f"{name:{wide}}  {took:6d}  {failed:6d}  {accuracy:>8}")
    return "\n".join(lines)


def format_report(folder: str | Path) -> str:
    """The whole table of a run, its clients, and how it ended."""
    history = read_history(folder)
    down, up = (sum(getattr(row, name) for row in history) / 1e6 for name in ("bytes_down", "bytes_up"))
    lines = [header(), *map(format_round, history), "", format_clients(history), ""]
    seconds = sum(row.seconds for row in history)
    lines.append(f"{pluralize(len(history), 'round')}, {seconds:.0f} s, {down:.2f} MB to clients, {up:.2f} MB back")
    events = [json.loads(line) for line in (Path(folder) / AUDIT).read_text(encoding="utf-8").splitlines()]
    lines.append(f"audit log: {len(events)} events, {sum(one['event'] == 'failed' for one in events)} of them failures")
    return "\n".join(lines)


def rounds_figure(history: Sequence[RoundReport], path: str | Path) -> Path:
    """Draws accuracy by round, from the worst to the best client, and by megabyte sent back.

    Args:
        history: Of a run.
        path: The PNG to write, which is returned.
    """
    from hf_video.evaluation.figures import BLUE, RED, new_figure, save_figure, style_axes

    figure = new_figure(8.4, 3.4)
    by_round, by_bytes = figure.subplots(1, 2, sharey=True)
    sent = np.cumsum([row.bytes_up for row in history]) / 1e6
    measured = [
        (row.round, megabytes, [one["accuracy"] for one in row.evaluation.values() if "accuracy" in one])
        for row, megabytes in zip(history, sent, strict=True)
    ]
    measured = [row for row in measured if row[2]]
    server = [(row.round, row.metrics["server_accuracy"]) for row in history if "server_accuracy" in row.metrics]
    if measured:
        rounds, megabytes, values = zip(*measured, strict=True)
        mean = [float(np.mean(one)) for one in values]
        by_round.fill_between(
            rounds, [min(one) for one in values], [max(one) for one in values], color=BLUE, alpha=0.15
        )
        by_round.plot(rounds, mean, color=BLUE, marker="o", markersize=3, label="clients: mean, worst to best")
        by_bytes.plot(megabytes, mean, color=BLUE, marker="o", markersize=3)
    if server:
        by_round.plot(*zip(*server, strict=True), color=RED, marker="o", markersize=3, label="server's own videos")
    if measured or server:
        by_round.legend(fontsize=8, frameon=False)
    by_round.set(xlabel="round", ylabel="accuracy", ylim=(0, 1.02))
    by_round.xaxis.get_major_locator().set_params(integer=True)
    by_bytes.set_xlabel("MB that clients sent")
    for axes in (by_round, by_bytes):
        style_axes(axes)
    return save_figure(figure, path)
