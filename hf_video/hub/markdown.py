"""Markdown of model cards: its parts, and the results section with the tables of the reports, per class, and errors of
pretraining."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hf_video.errors import pluralize
from hf_video.hub.card_facts import ModelFacts

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


def results_section(facts: ModelFacts) -> Iterable[str]:
    """Yields the paragraphs and tables."""
    if facts.is_pretraining:
        yield from _pretraining_results(facts.summary or {})
    elif not facts.reports:
        yield "Not evaluated: the folder holds no evaluation report. `hf-video evaluate` makes one."
    if not facts.reports:
        return
    if facts.is_detector:
        yield from _detection_results(facts)
        return
    multi_label = any("mean_average_precision" in report for report in facts.reports.values())
    columns = {"top-1 (95 % interval)": "top1", "top-5": "top5", "mean of classes": "mean_class_accuracy"}
    if multi_label:
        columns = {"mAP": "mean_average_precision", "F1, all together": "micro_f1", "F1, mean of classes": "macro_f1"}
    rows = []
    for split, report in facts.reports.items():
        values = [format_percent(report.get(name)) for name in columns.values()]
        if not multi_label:
            low, high = report.get("top1_interval") or (None, None)
            values[0] += f" ({format_percent(low)} to {format_percent(high)})" if low is not None else ""
            values[1] = values[1] if report.get("classes", 6) > 5 else "–"
        rows.append((split, f"found {report.get('found')} of {pluralize(report.get('total') or 0, 'video')}", *values))
    yield markdown_table(("split", "videos", *columns), rows)
    if multi_label:
        yield (
            "mAP is the mean over classes of scikit-learn's average precision; F1 is measured at `label_thresholds` of "
            "the configuration (0.5 where it has none)."
        )
    for split, report in facts.reports.items():
        yield f"Protocol on {split}: **{protocol(report, 'name')}**, {protocol(report, 'in_words')}."
        classes = report.get("per_class") or []
        title = f"Per class on {split}, {pluralize(len(classes), 'class', 'classes')}"
        if multi_label:
            head: tuple[str, ...] = ("class", "videos", "average precision", "precision", "recall", "threshold")
            rows = [
                (
                    *(escape_markdown(row["label"]), row.get("videos")),
                    *(format_percent(row.get(name)) for name in ("average_precision", "precision", "recall")),
                    format_number(row.get("threshold")),
                )
                for row in classes
            ]
        else:
            yield _more_numbers(report)
            head = ("class", "videos", "accuracy", "precision", "most often taken for")
            rows = [
                (
                    *(escape_markdown(row["label"]), row.get("videos")),
                    *(format_percent(row.get(name)) for name in ("accuracy", "precision")),
                    f"{escape_markdown(row['confused_with'])} ({row['confused']})" if row.get("confused_with") else "–",
                )
                for row in classes
            ]
        if rows:
            yield collapsible(title, head, rows)
        yield picture(facts, f"evaluation/{split}/confusion.png", f"Confusion matrix on {split}")


def _detection_results(facts: ModelFacts) -> Iterable[str]:
    """mAP by threshold and class, and false positives."""
    for split, report in facts.reports.items():
        limits = [f"{limit:g}" for limit in report.get("thresholds") or []]
        events, videos = pluralize(report.get("events") or 0, "event"), pluralize(report.get("total") or 0, "video")
        looked = f"{report.get('found')} of them looked at"
        yield f"On {split}: {events} in {videos}, {looked}; protocol **{protocol(report, 'name')}**."
        values = [format_percent(report.get(f"mAP@{limit}")) for limit in limits]
        yield markdown_table(("tIoU", "mean", *limits), [("mAP", format_percent(report.get("mAP")), *values)])
        rows = [
            (escape_markdown(row["label"]), row.get("events"), format_percent(row.get("average_precision")))
            for row in report.get("per_class") or []
        ]
        title = f"Per class on {split}, {pluralize(len(rows), 'class', 'classes')}"
        yield collapsible(title, ("class", "events", "average precision"), rows)
        yield picture(facts, f"evaluation/{split}/precision_recall.png", f"Precision and recall on {split}")
        yield picture(facts, f"evaluation/{split}/false_positives.png", f"False positives by kind on {split}")


def picture(facts: ModelFacts, file: str, title: str) -> str:
    """An image of the folder, or nothing where there is no such file."""
    return f"![{title}]({file})" if (facts.folder / file).is_file() else ""


def _more_numbers(report: dict[str, Any]) -> str:
    """The accuracy of always answering the most frequent class, which an accuracy is to be compared with, and more."""
    videos = [row.get("videos") or 0 for row in report.get("per_class") or []]
    share = format_percent(max(videos) / sum(videos)) if sum(videos) else ""
    lines = [f"Always answering the most frequent class would give {share}."] if share else []
    measures = (("macro F1", "macro_f1"), ("log loss", "log_loss"), ("calibration error", "calibration_error"))
    known = [f"{title} {report[key]:.3f}" for title, key in measures if report.get(key) is not None]
    return " ".join(lines + ([f"Further: {', '.join(known)}."] if known else []))


def _pretraining_results(summary: dict[str, Any]) -> Iterable[str]:
    """The error on masked patches of held-out clips, beside that of predictors without training."""
    held_out = summary.get("held_out") or {}
    if held_out.get("masked_loss") is None:
        yield "How well it fills in clips that it was not trained on was not measured."
    else:
        names = (
            ("masked_loss", "this model"),
            ("mean_of_patch", "the mean of each patch"),
            ("mean_of_seen", "the mean of the tokens that are seen"),
            ("copy_of_nearest", "a copy of the nearest visible patch"),
        )
        rows = [(title, format_number(held_out[key])) for key, title in names if held_out.get(key) is not None]
        clips = held_out.get("clips")
        count = "an unknown number of held-out clips" if clips is None else pluralize(clips, "held-out clip")
        what = "Mean error of the features of" if "mean_of_seen" in held_out else "Mean squared error on"
        yield f"{what} the masked patches of {count}:"
        yield markdown_table(("predictor", "error"), rows)
    if probes := summary.get("probe_top1"):
        yield "Top-1 of a linear probe on its frozen features, by epoch:"
        yield markdown_table(("epoch", "top-1"), [(epoch, format_percent(share)) for epoch, share in probes.items()])


def protocol(report: dict[str, Any], key: str) -> str:
    """The protocol's "name", or the protocol "in_words"."""
    found = report.get("protocol")
    return str(found.get(key, "not recorded") if isinstance(found, dict) else found or "not recorded")
