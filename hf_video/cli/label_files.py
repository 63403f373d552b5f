"""What `hf-video classify --output` writes: a table of labels, and beside it the results as they come, from which a
stopped run goes on.

`results.csv.progress.jsonl` has the settings of the run on its first line, then one line for each file: what was found,
with the file's size and time, so that one that has changed is read again. It stays when the run is finished: with
--resume, only new and changed files of a folder are read then.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hf_video.base.json_lines import JsonLines, read_json_lines
from hf_video.base.written_files import atomic_write
from hf_video.cli.printing import NONE
from hf_video.errors import HFVideoError, did_you_mean

LABEL_FILES = (".csv", ".json", ".parquet")
MOST_NAMED = 20  # labels in a message
COLUMNS = ("file", "start", "end", "label", "score", "of_interest", "repeated_frames", "error")


class LabelFile:
    """The results of a run by file, JSON values as `json_result` makes them.

    Args:
        path: A .csv, .json or .parquet.
        settings: All that decides the results.
        resume: Whether to go on with what is there.
        overwrite: Whether it may be replaced.

    Raises:
        HFVideoError: Something is there and neither was asked for, or what is there was made with other settings.
    """

    def __init__(self, path: str, settings: dict[str, Any], *, resume: bool, overwrite: bool):
        self.path, log = Path(path), Path(f"{path}.progress.jsonl")
        lines, size = read_json_lines(log)
        settings = json.loads(json.dumps(settings))
        if not resume and not overwrite and (self.path.exists() or lines):
            there = self.path if self.path.exists() else log
            raise HFVideoError(f"{there} is there already: --resume goes on with it, --overwrite begins anew")
        if resume and not lines and self.path.exists():
            raise HFVideoError(
                f"{path} can't be gone on with: {log.name}, which says how it was made, is not beside it. --overwrite "
                "begins anew"
            )
        if resume and lines:
            made_with = lines[0].get("settings", {})
            changed = [name for name in sorted({*settings, *made_with}) if settings.get(name) != made_with.get(name)]
            if changed:
                was = "; ".join(f"{name} is {settings.get(name)!r} and was {made_with.get(name)!r}" for name in changed)
                raise HFVideoError(f"{path} was made with other settings: {was}. --overwrite begins anew")
        else:
            lines, size = [], 0
        self._log = JsonLines(log, size)
        if not lines:
            self._log.write({"settings": settings})
        self._results = {one["file"]: one for one in lines[1:]}

    def done(self, file: str) -> bool:
        """Whether the file has a result, and is what it was then. One that could not be read is tried again."""
        known = self._results.get(file)
        return known is not None and "error" not in known["result"] and known["version"] == _version(file)

    def add(self, file: str, result: dict[str, Any]) -> None:
        entry = {"file": file, "version": _version(file), "result": result}
        self._results[file] = entry
        self._log.write(entry)

    def results(self, files: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Those of these files, in their order."""
        return (self._results[file]["result"] for file in files if file in self._results)

    def write(self, files: Sequence[str]) -> None:
        """Writes the table of these files' results, in one step."""
        results = self.results(files)
        with atomic_write(self.path) as draft:
            if self.path.suffix.lower() == ".json":
                text = json.dumps(list(results), ensure_ascii=False, indent=2) + "\n"
                draft.write_text(text, encoding="utf-8", errors="surrogateescape")
            elif self.path.suffix.lower() == ".csv":
                with open(draft, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                    writer = csv.DictWriter(file, COLUMNS)
                    writer.writeheader()
                    writer.writerows(row for result in results for row in table_rows(result))
            else:
                _write_parquet(draft, [row for result in results for row in table_rows(result)])

    def __enter__(self) -> LabelFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.__exit__()


def _version(file: str) -> list[int] | None:
    """Size and time of change; None for what is no local file."""
    try:
        known = os.stat(file)
    except (OSError, ValueError):
        return None
    return [known.st_size, known.st_mtime_ns]


def table_rows(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A result as rows of `COLUMNS`: one for each label of each window, `NONE` where nothing passes, or the error."""
    if "error" in result:
        yield {"file": result["file"], "error": result["message"]}
        return
    for window in result.get("windows", [result]):
        start, end = window["seconds"]
        shown = {"file": result["file"], "start": start, "end": end}
        shown["repeated_frames"] = len(window.get("repeated_frames", ()))
        for one in window["predictions"] or [{"label": NONE}]:
            yield {**shown, **one}


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    from hf_video.features.shards import import_pyarrow

    arrow = import_pyarrow("Parquet", "retrieval")
    kinds = {
        "start": arrow.float64(),
        "end": arrow.float64(),
        "score": arrow.float64(),
        "of_interest": arrow.bool_(),
        "repeated_frames": arrow.int64(),
    }
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in COLUMNS])
    arrow.parquet.write_table(arrow.Table.from_pylist([_plain(row) for row in rows], schema=schema), path)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """With names of files that are no UTF-8 made readable: Parquet has nothing else."""
    return {**row, "file": row["file"].encode("utf-8", "surrogateescape").decode("utf-8", "replace")}


class Alerts:
    """The labels that somebody looks out for.

    Args:
        typed: Their names with commas between them; upper case and punctuation don't count.
        known: The model's labels.
        path: A file that gets a line for each such label of a video, as it is found: path, label, score, and start and
            end in seconds, with tabs between them.
        append: Whether what is in the file stays.

    Raises:
        HFVideoError: The model has no such label.
    """

    def __init__(self, typed: str, known: Sequence[str], path: str | None, *, append: bool):
        from hf_video.evaluation.classification import normalize_label

        plain = {normalize_label(label): label for label in known}
        # A label may have a comma in it.
        names = [typed] if normalize_label(typed) in plain else [one.strip() for one in typed.split(",") if one.strip()]
        for name in names:
            if normalize_label(name) not in plain:
                listed = ", ".join(known[:MOST_NAMED]) + (", …" if len(known) > MOST_NAMED else "")
                near = did_you_mean(name, known)
                raise HFVideoError(f"the model has no label {name!r}.{near} It has {len(known)}: {listed}")
        self.labels = {plain[normalize_label(name)] for name in names}
        self._file = None
        if path is not None:
            mode = "a" if append else "w"
            self._file = open(path, mode, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115

    @staticmethod
    def is_found(result: dict[str, Any]) -> bool:
        """Whether a result, as `mark` left it, has one of the labels."""
        windows = result.get("windows", [result])
        return any(one.get("of_interest") for window in windows for one in window.get("predictions", ()))

    def mark(self, result: dict[str, Any], top_k: int) -> bool:
        """Cuts a result to the best `top_k` labels (0: all) and those looked out for, marks these as `of_interest`,
        writes their lines, and returns whether there are any."""
        best: dict[str, tuple[float, list[float]]] = {}
        for window in result.get("windows", [result]):
            kept = []
            for place, one in enumerate(window.get("predictions", [])):
                found = one["label"] in self.labels
                if found or not top_k or place < top_k:
                    kept.append({**one, "of_interest": found} if self.labels else one)
                if found and one["score"] > best.get(one["label"], (-1.0, []))[0]:
                    best[one["label"]] = one["score"], window["seconds"]
            if "predictions" in window:
                window["predictions"] = kept
        for label, (score, (start, end)) in best.items() if self._file is not None else ():
            file = result["file"].replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
            print(file, label, f"{score:.4f}", f"{start:.2f}", f"{end:.2f}", sep="\t", file=self._file, flush=True)
        return bool(best)

    def __enter__(self) -> Alerts:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
