"""Matches the class names of a data set to those of a model, which may be spelled differently."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from hf_video.errors import DataError, nearest


def normalize_label(label: str) -> str:
    """Brings a class name to lower case, without accents, punctuation, parentheses and repeated blanks:
    "Petting animal_(not cat)" becomes "petting animal not cat"."""
    letters = unicodedata.normalize("NFKD", str(label)).replace("&", " and ")
    kept = "".join(c for c in letters if not unicodedata.combining(c)).lower().replace("'", "").replace("’", "")
    return " ".join(re.findall(r"\w+", kept.replace("_", " ")))


def match_labels(data: Sequence[str], model: Mapping[int, str]) -> list[int]:
    """Finds the model's class of each class name of a data set.

    The same spelling comes first, then `normalize_label`. Names that are numbers are the model's class numbers, and a
    model whose classes are only numbered ("LABEL_0", …) takes as many names in their order.

    Args:
        data: The data set's class names.
        model: The model's, by number (`config.id2label`).

    Returns:
        For each name of `data` the number of the model's class.

    Raises:
        DataError: For names that the model doesn't know, each with the nearest that it knows.
    """
    names = {int(number): str(name) for number, name in model.items()}
    exact = {name: number for number, name in names.items()}
    if len(data) == len(names) and all(re.fullmatch(r"LABEL_\d+", name) for name in names.values()):
        if set(data) != set(exact):
            return sorted(names)
    elif all(name.isdecimal() and int(name) in names for name in data) and not set(data) & set(exact):
        return [int(name) for name in data]
    counts = Counter(normalize_label(name) for name in exact)
    plain = {normalize_label(name): number for name, number in exact.items() if counts[normalize_label(name)] == 1}
    found = [exact.get(name, plain.get(normalize_label(name))) for name in data]
    unknown = [name for name, number in zip(data, found, strict=True) if number is None]
    if unknown:
        near = [nearest(name, exact) for name in unknown[:10]]
        named = [f"{a!r} (is it {b!r}?)" if b else repr(a) for a, b in zip(unknown[:10], near, strict=True)]
        raise DataError(
            f"{len(unknown)} of the data's {len(data)} classes are none of the model's {len(names)}: "
            + ", ".join(named)
            + (", …" if len(unknown) > 10 else "")
            + ". Rename the folders or the list's labels, or evaluate the model that was trained on them."
        )
    return found
