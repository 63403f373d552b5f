"""Compares classifiers on the same videos, each of which is read once for all of them.

comparison = compare_models({"a": (model_a, processor_a), "b": (model_b, processor_b)}, rows, protocol="paper")
print(comparison)
comparison.save("comparison")           # comparison.txt, .md, .html and .json, and each model's evaluation

Which of two models is better is judged by McNemar's test: only videos count on which one is right and the other is not.
"""

from __future__ import annotations

import html
import itertools
import json
import os
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from hf_video.errors import DataError, VideoOptionError, pluralize
from hf_video.evaluation.classification import Evaluation, normalize_label, score_videos
from hf_video.evaluation.model_cost import MeasuredModel
from hf_video.evaluation.protocol import Protocol
from hf_video.evaluation.report import Report, write_csv
from hf_video.evaluation.significance import holm, mcnemar
from hf_video.hub.markdown import bullet_list, escape_markdown, markdown_table

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_video.data.rows import VideoRows
    from hf_video.data.types import FrameProcessor


MODEL_COLUMNS = ("model", "top-1", "95 % interval", "videos", "protocol", "clips/s", "memory", "parameters")
PAIR_COLUMNS = ("first", "second", "videos", "agree", "only first", "only second", "p", "p, adjusted")
LEGEND = (
    "only first, only second: videos that only this one of the two has right.",
    "p: McNemar's exact test, the probability that two equally good models differ at least as unevenly by chance; "
    "adjusted for the number of pairs after Holm.",
    "clips/s: views through the model, without decoding. memory: weights, and the tensors of a forward at their most.",
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Comparison of models</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: 0 0 2rem; }}
caption {{ text-align: left; font-size: 1.2rem; font-weight: 600; padding: 0.5rem 0; }}
th, td {{ text-align: right; padding: 0.35rem 0.8rem; border-bottom: 1px solid #ddd; white-space: nowrap; }}
th[scope=row], th:first-child, [aria-label^=Pairs] :nth-child(2) {{ text-align: left; }}
td {{ font-variant-numeric: tabular-nums; }}
</style>
</head>
<body>
<main>
<h1>Comparison of models</h1>
{tables}
<ul>
{notes}</ul>
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class ModelPair:
    """Two models on the `videos` that both could score: on what share they give the same class, how many only one of
    them has right, the p-value of `mcnemar`, and the same adjusted for the number of pairs (`holm`)."""

    first: str
    second: str
    videos: int
    agreement: float
    only_first: int
    only_second: int
    p_value: float
    p_adjusted: float


@dataclass(frozen=True)
class Comparison:
    """The result of `compare_models`.

    Args:
        reports: By the models' names, what `evaluate_videos` gives for each.
        answers: Of each model, by video, the class that it gives (as the data spell it, where they have it) and whether
            that is right.
        parameters: Their number; 0 for a model that isn't torch's.
        clips_per_second: Of the forwards, without decoding; None where there were fewer than two in this call.
        memory: Bytes of the weights and of the tensors of a forward; None where nothing was computed in this call.
        notes: What limits the comparison, in sentences.
    """

    reports: dict[str, Report]
    answers: dict[str, dict[str, tuple[str, bool]]]
    parameters: dict[str, int]
    clips_per_second: dict[str, float | None]
    memory: dict[str, int | None]
    notes: list[str]

    @cached_property
    def pairs(self) -> list[ModelPair]:
        """Every two models that scored a video both, in their order."""
        found = []
        for first, second in itertools.combinations(self.reports, 2):
            a, b = self.answers[first], self.answers[second]
            both = [name for name in a if name in b]
            if both:
                right = np.array([(a[name][1], b[name][1]) for name in both])
                same = float(np.mean([a[name][0] == b[name][0] for name in both]))
                only_first, only_second = (int((right == kind).all(1).sum()) for kind in ((True, False), (False, True)))
                found.append(
                    (first, second, len(both), same, only_first, only_second, mcnemar(only_first, only_second))
                )
        adjusted = holm([row[-1] for row in found])
        return [ModelPair(*row, one) for row, one in zip(found, adjusted, strict=True)]

    def tables(self) -> list[tuple[str, tuple[str, ...], list[list[str]]]]:
        """Returns (title, head, rows) of the table of models and of that of pairs, as text."""
        models = []
        for name, report in self.reports.items():
            low, high = report.top1_interval
            speed, memory, parameters = self.clips_per_second[name], self.memory[name], self.parameters[name]
            models.append([
                name,
                f"{report.top1:.1%}",
                f"{low:.1%} to {high:.1%}",
                f"{report.found} of {report.total}",
                f"{report.protocol.name}, {pluralize(report.protocol.views, 'view')}",
                "–" if speed is None else f"{speed:.3g}",
                "–" if memory is None else f"{memory / 1e6:,.1f} MB",
                f"{parameters:,}" if parameters else "–",
            ])  # fmt: skip
        pairs = [
            [
                one.first, one.second, str(one.videos), f"{one.agreement:.1%}", str(one.only_first),
                str(one.only_second), _p_value(one.p_value), _p_value(one.p_adjusted),
            ]
            for one in self.pairs
        ]  # fmt: skip
        return [("Models", MODEL_COLUMNS, models), ("Pairs of models", PAIR_COLUMNS, pairs)]

    def __str__(self) -> str:
        lines = []
        for _, head, rows in self.tables():
            widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
            lines += ["  ".join(map(str.ljust, line, widths)).rstrip() for line in (head, *rows)] + [""]
        for note in (*LEGEND, *self.notes):
            lines += textwrap.wrap(note, 110, subsequent_indent="  ")
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """Returns the tables as Markdown."""
        tables = [
            f"## {title}\n\n{markdown_table(head, ([escape_markdown(cell) for cell in row] for row in rows))}"
            for title, head, rows in self.tables()
        ]
        notes = bullet_list(escape_markdown(note) for note in (*LEGEND, *self.notes))
        return "\n\n".join(["# Comparison of models", *tables, notes]) + "\n"

    def to_html(self) -> str:
        """Returns the tables as a page that needs nothing else."""
        parts = []
        for title, head, rows in self.tables():
            names = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
            body = "".join(
                f'<tr><th scope="row">{html.escape(row[0])}</th>'
                + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
                + "</tr>\n"
                for row in rows
            )
            parts.append(
                f'<div class="wide" role="region" aria-label="{title}" tabindex="0">'
                f"<table><caption>{title}</caption>\n<thead><tr>{names}</tr></thead>\n"
                f"<tbody>{body}</tbody></table></div>"
            )
        notes = "".join(f"<li>{html.escape(note)}</li>\n" for note in (*LEGEND, *self.notes))
        return PAGE.format(tables="\n".join(parts), notes=notes)

    def to_dict(self) -> dict[str, Any]:
        """Returns the comparison as JSON values: each model's `evaluate` report with its cost, the pairs, the notes."""
        models = {
            name: {
                **report.to_dict(),
                "parameters": self.parameters[name],
                "clips_per_second": self.clips_per_second[name],
                "memory_bytes": self.memory[name],
            }
            for name, report in self.reports.items()
        }
        return {"models": models, "pairs": [asdict(pair) for pair in self.pairs], "notes": self.notes}

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes comparison.txt, .md, .html and .json, predictions.csv (of each video what every model answers), and
        each model's evaluation in a folder of its own, see `Report.save`.

        Args:
            folder: It is made if it is missing.

        Returns:
            The folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        texts = {"txt": f"{self}\n", "md": self.to_markdown(), "html": self.to_html()}
        texts["json"] = json.dumps(self.to_dict(), indent=2) + "\n"
        for suffix, text in texts.items():
            (folder / f"comparison.{suffix}").write_text(text, encoding="utf-8", errors="surrogateescape")
        for name, inside in zip(self.reports, model_folders(self.reports), strict=True):
            self.reports[name].save(folder / inside)
        videos = dict.fromkeys(video for answers in self.answers.values() for video in answers)
        rows = ([video, *(answers.get(video, ("",))[0] for answers in self.answers.values())] for video in videos)
        write_csv(folder / "predictions.csv", ["video", *self.answers], rows)
        return folder


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def model_folders(names: Iterable[str]) -> list[str]:
    """For each model's name that of its folder below the output; numbered where two would be the same."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
        found.append(plain if plain not in found else f"{plain}-{len(found) + 1}")
    return found


def compare_models(
    models: Mapping[str, tuple[PreTrainedModel, FrameProcessor]],
    rows: VideoRows,
    *,
    protocol: str | Protocol = "1x1",
    batch_size: int | None = None,
    num_workers: int = 0,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    output: str | os.PathLike[str] | None = None,
    on_error: str = "raise",
    backend: str = "auto",
    progress: bool = True,
) -> Comparison:
    """Evaluates several classifiers on the same videos, and compares them. Each file is opened and decoded once, for
    all models together, and the figures of a model are those of `evaluate_videos`.

    The models may differ in frames, size, views and in the order and number of their classes, which are matched by name
    (`match_labels`). All are in memory at once, and of a video the frames of one model's views.

    Args:
        models: Model and image or video processor, by a name for the tables; two or more.
        rows, protocol, batch_size, num_workers, on_error, backend, progress: As in `evaluate_videos`.
        device, dtype: Where all models are moved to and the precision that they are converted to.
        output: A folder in which each model has one for its `predictions.jsonl`, from which a second call with the same
            models and protocol goes on; a folder of `evaluate_videos` is gone on from as well.

    Returns:
        The comparison.

    Raises:
        VideoOptionError: Fewer than two models came, or one gives several labels a video; and as `evaluate_videos`.
        DataError: A model lacks classes of the data, or could score none of the videos.
        SamplingError, CheckpointError: As `evaluate_videos`.
    """
    if len(models) < 2:
        raise VideoOptionError(f"A comparison needs two models or more; {len(models)} came.")
    evaluations, forwards = {}, {}
    for (name, (model, processor)), folder in zip(models.items(), model_folders(models), strict=True):
        if getattr(model.config, "problem_type", None) == "multi_label_classification":
            raise VideoOptionError(
                f"{name} gives several labels for a video, and top-1 has no meaning for it: evaluate it by itself."
            )
        if device is not None or dtype is not None:
            model.to(device=device, dtype=dtype)
        kept = None if output is None else Path(output) / folder
        try:
            one = Evaluation(model, processor, rows, protocol, output=kept, on_error=on_error, backend=backend)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        evaluations[name] = one
        forwards[name] = MeasuredModel(model, compute=one.compute)
    every, measured = list(evaluations.values()), list(forwards.values())
    seconds = score_videos(every, measured, rows, batch_size=batch_size, num_workers=num_workers, progress=progress)
    reports = {}
    for name, one in evaluations.items():
        try:
            reports[name] = cast(Report, one.report(seconds))
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
    return Comparison(
        reports=reports,
        answers={name: _answers(one, reports[name], rows.labels) for name, one in evaluations.items()},
        parameters={name: one.parameters for name, one in forwards.items()},
        clips_per_second={name: one.clips_per_second for name, one in forwards.items()},
        memory={name: one.memory for name, one in forwards.items()},
        notes=_notes(evaluations, rows.labels),
    )


def _answers(evaluation: Evaluation, report: Report, labels: list[str]) -> dict[str, tuple[str, bool]]:
    own = dict(zip(evaluation.classes, labels, strict=True))
    names = [name for name in evaluation.rows if name in evaluation.scores]
    return {
        name: (own.get(int(given), evaluation.labels[given]), bool(given == true))
        for name, given, true in zip(names, report.predicted, report.truth, strict=True)
    }


def _notes(evaluations: Mapping[str, Evaluation], labels: list[str]) -> list[str]:
    """How the models' classes were matched, where that needs saying, and that a model scored fewer videos."""
    notes = []
    sizes = {name: len(one.labels) for name, one in evaluations.items()}
    if len({frozenset(map(normalize_label, one.labels)) for one in evaluations.values()}) > 1:
        named = ", ".join(f"{name} {size}" for name, size in sizes.items())
        notes.append(
            f"The models choose among different classes ({named}; the data have {len(labels)}), which were matched by "
            "name: to choose among more is harder."
        )
    for name, one in evaluations.items():
        if all(re.fullmatch(r"LABEL_\d+", label) for label in one.labels) and set(labels) != set(one.labels):
            notes.append(f"{name} has numbered classes only, which were taken in the order of the data's.")
    if len({frozenset(one.scores) for one in evaluations.values()}) > 1:
        notes.append("Not every model could score every video; pairs are compared on the videos that both scored.")
    if any(one.resumed for one in evaluations.values()):
        notes.append("Scores of an earlier call were used; speed and memory are of what was computed in this one.")
    return notes
