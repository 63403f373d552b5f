"""The five data sets of LEAF (Caldas et al., 2018), as its scripts write them: read, checked, and taken apart.

LEAF's own models say what the entries are: `models/<name>` of its repository.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from hf_video.errors import FederatedError, check_choice
from hf_video.federated.data.leaf import LeafUser, read_leaf

LETTERS = 80  # of a text of Shakespeare
_TWEET_TEXT = 4  # its place in an entry of Sent140: id, date, query, user, text
Convert: TypeAlias = Callable[[Sequence[Any], Sequence[Any]], tuple[Any, Any]]


def read_leaf_dataset(name: str, path: str | os.PathLike[str]) -> dict[str, LeafUser]:
    """Reads a data set of LEAF.

    Args:
        name: "femnist": x float32 (n, 28, 28), 1 being white, y int64 (n,) of 62 characters; users are writers.
            "shakespeare": x texts of 80 letters, y the letter after each; users are roles.
            "sent140": x texts of tweets, y int64 (n,), 1 being positive.
            "celeba": x names of picture files, y int64 (n,), 1 being a smile; users are people.
            "reddit": for each comment x lists of tokens of one length, y lists of the tokens that follow, of the same
            shape; users are authors.
        path: A JSON file, or a folder of them, such as LEAF's `data/train`.

    Returns:
        The users, in the order of files.

    Raises:
        FederatedError: An unknown name, no files, a file that is none of LEAF's, a user in two files, or an entry that
            is not of this data set.
    """
    check_choice("data set of LEAF", name, tuple(CONVERT), FederatedError)
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise FederatedError(f"{path} holds no .json files.")
    users: dict[str, LeafUser] = {}
    for file in files:
        for user, own in read_leaf(file).items():
            if user in users:
                raise FederatedError(f"{file}: the user {user!r} stands in another file too.")
            try:
                x, y = CONVERT[name](own.x, own.y)
            except (ValueError, TypeError, KeyError, IndexError) as error:
                raise FederatedError(f"{file}: an entry of the user {user!r} is not of {name}: {error}") from error
            users[user] = LeafUser(x, y, own.hierarchy)
    return users


def _femnist(x: Sequence[Any], y: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    pictures = np.asarray(x, np.float32)
    if pictures.shape != (len(x), 784) or not ((pictures >= 0) & (pictures <= 1)).all():
        raise ValueError("a picture has 784 numbers from 0 to 1")
    return pictures.reshape(-1, 28, 28), _classes(y, 62)


def _shakespeare(x: Sequence[Any], y: Sequence[Any]) -> tuple[list[str], list[str]]:
    for text, following in zip(x, y, strict=True):
        if not isinstance(text, str) or len(text) != LETTERS or not isinstance(following, str) or len(following) != 1:
            raise ValueError(f"{LETTERS} letters and the one after them are needed, and {text!r}, {following!r} came")
    return list(x), list(y)


def _sent140(x: Sequence[Any], y: Sequence[Any]) -> tuple[list[str], np.ndarray]:
    texts = [entry[_TWEET_TEXT] for entry in x]
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise ValueError(f"the fifth entry of a tweet is its text, and {wrong[0]!r} came")
    return texts, _classes([int(one) for one in y], 2)


def _celeba(x: Sequence[Any], y: Sequence[Any]) -> tuple[list[str], np.ndarray]:
    for name in x:
        if not isinstance(name, str) or os.path.basename(name) != name or not name:
            raise ValueError(f"the name of a picture file is needed, and {name!r} came")
    return list(x), _classes([int(one) for one in y], 2)


def _reddit(x: Sequence[Any], y: Sequence[Any]) -> tuple[list[list[list[str]]], list[list[list[str]]]]:
    comments, targets = [list(comment) for comment in x], [entry["target_tokens"] for entry in y]
    for comment, target in zip(comments, targets, strict=True):
        lengths = [len(tokens) for tokens in comment]
        if not lengths or len(set(lengths)) != 1 or lengths != [len(tokens) for tokens in target]:
            raise ValueError("a comment has lists of tokens of one length, and as many target_tokens of that length")
        if not all(isinstance(token, str) for tokens in (*comment, *target) for token in tokens):
            raise ValueError("tokens are texts")
    return comments, targets


def _classes(y: Sequence[Any], count: int) -> np.ndarray:
    classes = np.asarray(y)
    if classes.dtype.kind not in "iu" or not ((classes >= 0) & (classes < count)).all():
        raise ValueError(f"classes are whole numbers from 0 to {count - 1}")
    return classes.astype(np.int64)


CONVERT: dict[str, Convert] = {
    "femnist": _femnist,
    "shakespeare": _shakespeare,
    "sent140": _sent140,
    "celeba": _celeba,
    "reddit": _reddit,
}
