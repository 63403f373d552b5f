"""Questions about the order of events."""

from __future__ import annotations

import pytest
from transformers.utils import logging

from hf_video import Events
from hf_video.base.detection.types import Detection
from hf_video.errors import VideoOptionError

#        0    2    4    6    8   10   12   14   16   18   20
# jump   [=]            [=]                 [=]
# throw       [=]                 [====]
# catch              [==]           [=]
# Long_Run [====================]
FOUND = {
    "j1": ("jump", 0, 1), "j2": ("jump", 6, 7), "j3": ("jump", 16, 17), "t1": ("throw", 2, 3), "t2": ("throw", 11, 14),
    "c1": ("catch", 5, 6.5), "c2": ("catch", 12, 13), "run": ("Long_Run", 1, 10),
}  # fmt: skip
EVENTS = {name: Detection(label, 0.5 + start / 100, start, end) for name, (label, start, end) in FOUND.items()}
NAMES = {id(one): name for name, one in EVENTS.items()}


def ask(query: str, **options) -> list[str]:
    return [" ".join(NAMES[id(one)] for one in match) for match in Events(EVENTS.values(), **options).query(query)]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("jump", ["j1", "j2", "j3"]),
        ("jump before throw", ["j1 t1", "j1 t2", "j2 t2"]),
        ("throw after jump", ["t1 j1", "t2 j1", "t2 j2"]),
        ("JUMP  then Throw", ["j1 t1", "j2 t2"]),
        ("throw then jump", ["t1 j2", "t2 j3"]),
        ("jump before throw within 4 seconds", ["j1 t1", "j2 t2"]),
        ("jump within 4s before throw", ["j1 t1", "j2 t2"]),
        ("jump within .5 min before throw", ["j1 t1", "j1 t2", "j2 t2"]),
        ("throw within 2 seconds of jump", ["t1 j1", "t2 j3"]),
        ("jump overlaps catch", ["j2 c1"]),
        ("catch during throw", ["c2 t2"]),
        ("jump during long run", ["j2 run"]),
        ('jump during "long_run"', ["j2 run"]),
        ("any during throw", ["c2 t2"]),
        ("not catch during long run", ["t1 run", "j2 run"]),
        ("jump not before throw", ["j3"]),
        ("jump not overlaps any", ["j1", "j3"]),
        ("jump not overlaps throw before catch", ["j1 c1", "j1 c2", "j2 c2"]),
        ("jump then throw then jump", ["j1 t1 j2", "j2 t2 j3"]),
        ("jump then throw within 3 seconds then jump", ["j1 t1 j2", "j2 t2 j3"]),  # belongs to the second "then"
        ("jump before long run", ["j1 run"]),  # one ends where the other begins
    ],
)
def test_queries(query, found):
    assert ask(query) == found


def test_a_match_has_a_span_and_the_lowest_score():
    (match,) = Events(EVENTS.values()).query("jump overlaps catch")
    assert (match.start, match.end, match.score) == (5, 7, 0.55)
    assert Events().query("jump before throw") == []


def test_events_of_the_same_time_are_not_paired_with_themselves():
    twins = [Detection("a", 1.0, 0, 1), Detection("a", 1.0, 0, 1), Detection("dot", 1.0, 0.5, 0.5)]
    assert len(Events(twins).query("a overlaps a")) == 2
    assert len(Events(twins).query("dot overlaps a")) == len(Events(twins).query("a overlaps dot")) == 2
    assert not Events(twins[:1]).query("a during a")


@pytest.mark.parametrize(
    ("query", "word", "says"),
    [
        ("jump befor throw", "befor", "'before'"),
        ("jump precedes throw", "precedes", "no relation"),
        ("jump before", " ", "the query ends"),
        ("before throw", "before", "a label"),
        ("jump before throw throw2", "throw2", "no relation"),
        ("jump not throw", "throw", "one of before"),
        ("jump of throw", "of", "one of before"),
        ("jump before not any", "any", "a label"),
        ("jump within five seconds of throw", "within five seconds", "a number"),
        ("jump within 5 before throw", "within 5 before", "a number"),
        ("jump within 5 seconds before throw within 5 seconds", "w", "twice"),
        ('jump before "throw', '"throw', "second quote"),
    ],
)
def test_errors_point_to_the_word(query, word, says):
    with pytest.raises(VideoOptionError) as error:
        ask(query)
    message, line, marks = str(error.value).split("\n")
    assert says in message
    assert line == f"  {query}"
    assert (line + " ")[marks.index("^") : marks.rindex("^") + 1] == word


@pytest.mark.parametrize("query", ["", "  ", None, 3])
def test_what_is_no_text(query):
    with pytest.raises(VideoOptionError, match="jump before throw"):
        Events().query(query)


def test_labels_that_are_not_there(monkeypatch):
    """Nothing is found, with a warning where another label is near; refused where all labels are known."""
    logger = logging.get_logger("hf_video.base.detection.events")
    said: list[str] = []
    monkeypatch.setattr(logger, "warning", said.append)
    assert ask("swim before throw") == []
    assert not said
    assert ask("jumps before throw") == []
    assert "'jump'" in said[0]
    labels = ["jump", "throw", "swim"]
    assert ask("swim before throw", labels=labels) == []
    with pytest.raises(VideoOptionError, match=r"no label 'swims'. Did you mean 'swim'\?"):
        ask("jump before swims", labels=labels)
