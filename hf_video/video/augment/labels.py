"""Classes that a mirror or a clip played backwards turns into other classes.

"Pushing something from left to right", mirrored, shows it pushed from right to left: a flip that keeps the label
teaches the wrong class. Words are found in any writing: `turn_left`, "Turn-Left", `turnLeft`, "leftwards".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hf_video.errors import VideoOptionError

Words = Sequence[Sequence[str]]

MIRROR_WORDS: Words = (("left", "right"), ("clockwise", "counterclockwise"))
# Also of words that are no directions, those whose motion backwards is another class.
REVERSE_WORDS: Words = (
    *MIRROR_WORDS, ("up", "down"), ("forward", "backward"), ("forwards", "backwards"), ("upward", "downward"),
    ("upwards", "downwards"), ("opening", "closing"), ("open", "close"), ("pushing", "pulling"), ("push", "pull"),
    ("entering", "leaving"), ("enter", "leave"), ("folding", "unfolding"), ("covering", "uncovering"),
)  # fmt: skip
_COMPOUNDS = "ward|wards|hand|handed|side|most"


def mirror_labels(labels: Sequence[str], *, words: Words = MIRROR_WORDS) -> dict[str, str | None]:
    """For each class the class that its mirrored clips show.

        {"clap": "clap", "turn_left": "turn_right", "turn_right": "turn_left", "look left": None}

    A class without a word of direction is its own; of one with such words all are exchanged ("from left to right":
    "from right to left").

    Args:
        labels: The classes' names.
        words: Pairs that a mirror exchanges.

    Returns:
        The class of mirrored clips by each class; None where no class of that name is there.

    Raises:
        VideoOptionError: The words are not pairs.
    """
    pairs = check_words(words)
    swaps = {**pairs, **{second: first for first, second in pairs.items()}}
    keys = {label: _words_of(label) for label in labels}
    owners = {key: label for label, key in reversed(keys.items())}
    found = {}
    for label, key in keys.items():
        mirrored = tuple(_swapped(word, swaps) for word in key)
        found[label] = label if mirrored == key else owners.get(mirrored)
    return found


def directed_labels(labels: Sequence[str], *, words: Words = MIRROR_WORDS) -> list[str]:
    """The classes that are not their own mirror image."""
    return [label for label, other in mirror_labels(labels, words=words).items() if other != label]


def check_unmirrored(labels: Sequence[str], words: Words) -> None:
    """Raises VideoOptionError if a class tells left from right, with what can be done."""
    directed = directed_labels(labels, words=words)
    if directed:
        raise VideoOptionError(
            f"Flipping would make labels wrong: {quoted(directed)} tell left from right. Use flip=0 (never flip), or "
            'flip="swap" (mirrored clips get the label of the mirrored class); if these words mean something else '
            "here, mirror_words=() says so."
        )


def mirror_indices(labels: Sequence[str], words: Words) -> tuple[int, ...]:
    """For each class number that of its mirrored class. Raises VideoOptionError where that class is missing."""
    mirrored = mirror_labels(labels, words=words)
    alone = [label for label, other in mirrored.items() if other is None]
    if alone:
        raise VideoOptionError(
            f'flip="swap" gives a mirrored clip its mirrored class as label, and there is none for {quoted(alone)}. '
            "Use flip=0, or mirror_words=() if these words don't tell left from right here."
        )
    number = {label: i for i, label in enumerate(labels)}
    return tuple(number[mirrored[label]] for label in labels)


def check_words(words: Words) -> Mapping[str, str]:
    """Pairs of words as {first: second}, in small letters."""
    pairs = [tuple(pair) if isinstance(pair, (tuple, list)) else (pair,) for pair in words]
    if not all(len(pair) == 2 and all(isinstance(w, str) and w.isalpha() for w in pair) for pair in pairs):
        raise VideoOptionError(f'words must be pairs such as ("left", "right"); {words!r} came.')
    return {first.lower(): second.lower() for first, second in pairs}


def quoted(labels: Sequence[str]) -> str:
    names = ", ".join(map(repr, labels[:4]))
    return names if len(labels) <= 4 else f"{names} and {len(labels) - 4} more classes"


def _words_of(label: str) -> tuple[str, ...]:
    """The words and numbers of a label in small letters; a capital after a small letter begins a word too."""
    parts = re.findall(r"\d+|[^\W\d_]+", label)
    words = [word.lower() for part in parts for word in re.split(r"(?<=[a-z])(?=[A-Z])", part)]
    joined = re.sub(r"\b(?:counter|anti|contra) ?clockwise\b", "counterclockwise", " ".join(words))
    return tuple(joined.split())


def _swapped(word: str, swaps: Mapping[str, str]) -> str:
    """The word of the other direction, also within a compound ("leftwards"); a word without a direction itself."""
    if word in swaps:
        return swaps[word]
    compound = re.fullmatch(rf"(.+?)({_COMPOUNDS})", word)
    return swaps[compound[1]] + compound[2] if compound and compound[1] in swaps else word
