"""The part of a model card that says what was measured: tables of the reports, per class, and pretraining's errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hf_video.hub.card_facts import ModelFacts
from hf_video.hub.markdown import collapsible, escape_markdown, format_number, format_percent, markdown_table


def results_section(facts: ModelFacts) -> Iterable[str]:
    if facts.is_pretraining:
        yield from _pretraining_results(facts.summary or {})
    elif not facts.reports:
        yield "Not evaluated: the folder holds no evaluation report. `hf-video evaluate` makes one."
    if not facts.reports:
        return
    if any("mean_average_precision" in report for report in facts.reports.values()):
        yield from _several_labels(facts)
        return
    rows = []
    for split, report in facts.reports.items():
        low, high = report.get("top1_interval") or (None, None)
        interval = f" ({format_percent(low)} to {format_percent(high)})" if low is not None else ""
        top5 = format_percent(report.get("top5")) if report.get("classes", 6) > 5 else "–"
        count = f"found {report.get('found')} of {report.get('total')} videos"
        mean = format_percent(report.get("mean_class_accuracy"))
        rows.append((split, count, format_percent(report.get("top1")) + interval, top5, mean))
    yield markdown_table(("split", "videos", "top-1 (95 % interval)", "top-5", "mean of classes"), rows)
    for split, report in facts.reports.items():
        yield f"Protocol on {split}: **{protocol(report, 'name')}**, {protocol(report, 'in_words')}."
        yield _more_numbers(report)
        yield _per_class(split, report.get("per_class") or [])
        yield picture(facts, f"evaluation/{split}/confusion.png", f"Confusion matrix on {split}")


def _several_labels(facts: ModelFacts) -> Iterable[str]:
    """Of videos that show several classes each."""
    rows = [
        (
            split,
            f"found {report.get('found')} of {report.get('total')} videos",
            format_percent(report.get("mean_average_precision")),
            format_percent(report.get("micro_f1")),
            format_percent(report.get("macro_f1")),
        )
        for split, report in facts.reports.items()
    ]
    yield markdown_table(("split", "videos", "mAP", "F1, all together", "F1, mean of classes"), rows)
    yield (
        "mAP is the mean over classes of scikit-learn's average precision; F1 is measured at `label_thresholds` of the "
        "configuration (0.5 where it has none)."
    )
    for split, report in facts.reports.items():
        yield f"Protocol on {split}: **{protocol(report, 'name')}**, {protocol(report, 'in_words')}."
        classes = report.get("per_class") or []
        rows = [
            (
                escape_markdown(row["label"]),
                row.get("videos"),
                *(format_percent(row.get(name)) for name in ("average_precision", "precision", "recall")),
                format_number(row.get("threshold")),
            )
            for row in classes
        ]
        head = ("class", "videos", "average precision", "precision", "recall", "threshold")
        yield (
            collapsible(f"Per class on {split}, {len(rows)} classes", markdown_table(head, rows), len(rows))
            if rows
            else ""
        )


def picture(facts: ModelFacts, file: str, title: str) -> str:
    return f"![{title}]({file})" if (facts.folder / file).is_file() else ""


def _more_numbers(report: dict[str, Any]) -> str:
    """What the most frequent class alone would give (a share says little without it), and further measures."""
    videos = [row.get("videos") or 0 for row in report.get("per_class") or []]
    lines = []
    if sum(videos):
        lines.append(
            f"Always answering the most frequent class would give {format_percent(max(videos) / sum(videos))}."
        )
    measures = (("macro F1", "macro_f1"), ("log loss", "log_loss"), ("calibration error", "calibration_error"))
    told = [f"{title} {report[key]:.3f}" for title, key in measures if report.get(key) is not None]
    return " ".join(lines + ([f"Further: {', '.join(told)}."] if told else []))


def _pretraining_results(summary: dict[str, Any]) -> Iterable[str]:
    """Masked patches of clips that were held out, beside predictors that know nothing."""
    held_out = summary.get("held_out") or {}
    if held_out.get("masked_loss") is None:
        yield "How well it fills in clips that it was not trained on was not measured."
    else:
        names = (
            ("masked_loss", "this model"),
            ("mean_of_patch", "the mean of each patch"),
            ("copy_of_nearest", "a copy of the nearest visible patch"),
        )
        rows = [(title, format_number(held_out[key])) for key, title in names if held_out.get(key) is not None]
        clips = held_out.get("clips", "an unknown number of")
        yield f"Mean squared error on the masked patches of {clips} held-out clips:"
        yield markdown_table(("predictor", "error"), rows)
    if probes := summary.get("probe_top1"):
        yield "Top-1 of a linear probe on its frozen features, by epoch:"
        yield markdown_table(("epoch", "top-1"), [(epoch, format_percent(share)) for epoch, share in probes.items()])


def protocol(report: dict[str, Any], key: str) -> str:
    found = report.get("protocol")
    return str(found.get(key, "not recorded") if isinstance(found, dict) else found or "not recorded")


def _per_class(split: str, classes: Sequence[dict[str, Any]]) -> str:
    if not classes:
        return ""
    rows = [
        (
            escape_markdown(row["label"]),
            row.get("videos"),
            format_percent(row.get("accuracy")),
            format_percent(row.get("precision")),
            f"{escape_markdown(row['confused_with'])} ({row['confused']})" if row.get("confused_with") else "–",
        )
        for row in classes
    ]
    shown = markdown_table(("class", "videos", "accuracy", "precision", "most often taken for"), rows)
    return collapsible(f"Per class on {split}, {len(rows)} classes", shown, len(rows))
