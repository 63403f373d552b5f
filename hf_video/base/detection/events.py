"""Questions about the order of events: `Events(found).query("jump before throw")`.

    query    = event, { link, event }
    event    = label | "any" | "not", label
    link     = [ "not" ], ( relation | within, ( "of" | relation ) )
    relation = "before" | "after" | "then" | "overlaps" | "during"
    within   = "within", number, "seconds"

| relation | holds where |
|---|---|
| a before b | a ends before b begins, or at that moment |
| a after b | b before a |
| a then b | a before b, and no other event that fits either begins between the two beginnings |
| a overlaps b | both go on at some moment |
| a during b | b begins no later and ends no earlier than a |
| a within 5 seconds of b | at most 5 seconds lie between them; they may overlap |
| a within 5 seconds before b | a before b, and at most 5 seconds lie between them; so too with the other relations |

`within 5 seconds` may also close the query, and then belongs to the last relation: "jump before throw within 5
seconds". `any` is an event of any label, `not throw` one of any label but throw. A link with `not` holds where no
event has that relation: "jump not before throw" finds the jumps that no throw follows. It adds no event to what is
found, and a link behind it goes on from the event before it. Labels may have several words; upper and lower case,
underscores and spaces are alike. A label that has words of this grammar stands in double quotes: '"day before" before
party'. An event is never paired with itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from transformers.utils import logging

from hf_video.base.detection.types import Detection
from hf_video.errors import VideoOptionError, did_you_mean, nearest

logger = logging.get_logger(__name__)

RELATIONS: dict[str, Callable[[Detection, Detection], bool]] = {
    "before": lambda a, b: a.end <= b.start,
    "after": lambda a, b: b.end <= a.start,
    "then": lambda a, b: a.end <= b.start,
    "overlaps": lambda a, b: a.start < b.end and b.start < a.end,
    "during": lambda a, b: b.start <= a.start and a.end <= b.end,
    "of": lambda a, b: True,
}
SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
}
KEYWORDS = (*RELATIONS, "not", "any", "within")


class EventMatch(tuple[Detection, ...]):
    """The events that answer a query, in its order; `for jump, throw in events.query("jump before throw")`."""

    __slots__ = ()

    @property
    def start(self) -> float:
        """Seconds: the earliest start."""
        return min(one.start for one in self)

    @property
    def end(self) -> float:
        """Seconds: the latest end."""
        return max(one.end for one in self)

    @property
    def score(self) -> float:
        """The lowest score: a match is as sure as its least sure event."""
        return min(one.score for one in self)


class Events(list[Detection]):
    """The events of one video, as a list that answers questions about their order.

        events = Events(detect("game.mp4"))
        for jump, throw in events.query("jump within 5 seconds before throw"):
            print(jump.start, throw.end)

    Args:
        detections: what a detector found.
        labels: all labels that it knows; a query that names another one is refused. Without them a label that no event
            has finds nothing.
    """

    def __init__(self, detections: Iterable[Detection] = (), labels: Iterable[str] | None = None) -> None:
        super().__init__(detections)
        self.labels = None if labels is None else list(labels)

    def query(self, text: str) -> list[EventMatch]:
        """Events that stand in an order, or other relation in time; the module's docstring has the grammar.

        Args:
            text: such as "jump before throw" or "any during goal".

        Returns:
            All matches, in the order in which their events begin. Each is a tuple of one `Detection` for each event of
            the query, without those that were negated, with `start`, `end` and `score`.

        Raises:
            VideoOptionError: the text is no query, or names a label that `labels` has not. The message points to the
                word.
        """
        first, links = _Parser(
            text, {one.label for one in self} | set(self.labels or ()), self.labels is not None
        ).parse()
        found: list[tuple[Detection, ...]] = [(one,) for one in self if first.fits(one)]
        left = first
        for link in links:
            candidates = [one for one in self if link.event.fits(one)]
            between = [one for one in self if left.fits(one) or link.event.fits(one)] if link.relation == "then" else []
            longer: list[tuple[Detection, ...]] = []
            for match in found:
                partners = [one for one in candidates if one is not match[-1] and link.holds(match[-1], one, between)]
                if not link.negated:
                    longer += [(*match, partner) for partner in partners]
                elif not partners:
                    longer.append(match)
            found = longer
            left = left if link.negated else link.event
        return sorted(map(EventMatch, found), key=lambda match: [(one.start, one.end) for one in match])


@dataclass(frozen=True)
class _Event:
    """A kind of event in a query: `label` is None for any, and `negated` for every other label."""

    label: str | None
    negated: bool = False

    def fits(self, event: Detection) -> bool:
        return self.label is None or (_plain(event.label) == self.label) != self.negated


@dataclass(frozen=True)
class _Link:
    """What an event of a query has to do with the one before it; `within` is in seconds."""

    relation: str
    event: _Event
    negated: bool
    within: float | None

    def holds(self, a: Detection, b: Detection, between: list[Detection]) -> bool:
        if not RELATIONS[self.relation](a, b):
            return False
        if self.within is not None and max(b.start - a.end, a.start - b.end) > self.within:
            return False
        return not any(a.start < one.start < b.start for one in between if one is not a and one is not b)


@dataclass(frozen=True)
class _Word:
    text: str
    at: int
    quoted: bool = False

    @property
    def key(self) -> str | None:
        """The word of the grammar that this is."""
        word = self.text.casefold()
        return word if word in KEYWORDS and not self.quoted else None


def _plain(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").split())


class _Parser:
    """A query to its first event and the links behind it. `known` are the labels; with `only` there are no others."""

    def __init__(self, text: str, known: set[str], only: bool) -> None:
        if not isinstance(text, str) or not text.strip():
            raise VideoOptionError(f'A query is a text such as "jump before throw"; {text!r} came.')
        self.text, self.known, self.only, self.place = text, {_plain(one): one for one in known}, only, 0
        self.words: list[_Word] = []
        for found in re.finditer(r'"([^"]*)("?)|[^\s"]+', text):
            if found[1] is None:
                self.words.append(_Word(found[0], found.start()))
            elif not found[2] or not found[1].strip():
                raise self.error("a label in double quotes has text and a second quote", found.start(), len(found[0]))
            else:
                self.words.append(_Word(found[1], found.start(), quoted=True))

    def parse(self) -> tuple[_Event, list[_Link]]:
        first, links = self.event(), []
        while self.place < len(self.words):
            links.append(self.link())
        return first, links

    def key(self, place: int | None = None) -> str | None:
        """The word of the grammar at a place, the next one by default; None for other words and behind the end."""
        place = self.place if place is None else place
        return self.words[place].key if place < len(self.words) else None

    def event(self) -> _Event:
        negated = self.key() == "not"
        self.place += negated
        if self.key() == "any" and not negated:
            self.place += 1
            return _Event(None)
        words = []
        while self.place < len(self.words) and self.key() is None:
            words.append(self.words[self.place])
            self.place += 1
            if words[-1].quoted or (self.place < len(self.words) and self.words[self.place].quoted):
                break
        if not words:
            raise self.expected('a label, "any", or "not" with a label')
        self.check_label(words)
        return _Event(_plain(" ".join(word.text for word in words)), negated)

    def link(self) -> _Link:
        negated = self.key() == "not"
        self.place += negated
        within = self.within() if self.key() == "within" else None
        relation = self.key()
        if relation not in RELATIONS or (relation == "of" and within is None):
            raise self.expected("one of " + ", ".join((*(one for one in RELATIONS if one != "of"), "within")))
        self.place += 1
        event = self.event()
        if self.key() == "within" and self.place + self.length_of_within() == len(self.words):
            if within is not None:
                raise self.error('the same relation has "within" twice', self.words[self.place].at)
            within = self.within()
        return _Link(relation, event, negated, within)

    def length_of_within(self) -> int:
        """Words of "within 5 seconds" or "within 5s", from here."""
        after = [word.text for word in self.words[self.place + 1 : self.place + 3]]
        return 2 if after and re.fullmatch(r"[\d.]+[a-zA-Z]+", after[0]) else 3

    def within(self) -> float:
        at = self.words[self.place].at
        length = self.length_of_within()
        text = " ".join(word.text for word in self.words[self.place + 1 : self.place + length])
        found = re.fullmatch(r"(\d+\.?\d*|\.\d+) ?([a-zA-Z]+)", text)
        if not found or found[2].casefold() not in SECONDS:
            raise self.error('"within" needs a number and "seconds" or "minutes"', at, self.words_end(length) - at)
        self.place += length
        return float(found[1]) * SECONDS[found[2].casefold()]

    def words_end(self, length: int) -> int:
        last = self.words[min(self.place + length, len(self.words)) - 1]
        return last.at + len(last.text)

    def check_label(self, words: list[_Word]) -> None:
        """Raises for a label that isn't known and holds a misspelt word of the grammar, and for any that isn't among
        those that there are, where these are known; warns where it is near another one."""
        label = " ".join(word.text for word in words)
        if _plain(label) in self.known:
            return
        for number, word in enumerate(words):
            begun = _plain(" ".join(one.text for one in words[:number])) in self.known
            near = None if word.quoted or number == 0 else nearest(word.text, KEYWORDS, cutoff=0.75)
            if near or begun:
                hint = f" Did you mean {near!r}?" if near else ""
                raise self.error(
                    f"{word.text!r} is no relation.{hint} Known: {', '.join(RELATIONS)}", word.at, len(word.text)
                )
        hint = did_you_mean(_plain(label), self.known)
        if self.only:
            names = ", ".join(sorted(self.known.values())[:20])
            raise self.error(f"there is no label {label!r}.{hint} Known: {names}", words[0].at, len(label))
        if hint:
            logger.warning(f"No event is labelled {label!r}.{hint}")

    def expected(self, what: str) -> VideoOptionError:
        if self.place == len(self.words):
            return self.error(f"{what} must follow, and the query ends", len(self.text), 1)
        word = self.words[self.place]
        hint = did_you_mean(word.text, KEYWORDS, cutoff=0.75)
        return self.error(f"{word.text!r} stands where {what} must stand.{hint}", word.at, len(word.text))

    def error(self, what: str, at: int, length: int = 1) -> VideoOptionError:
        """An error that shows the query with the place underlined."""
        line = re.sub(r"\s", " ", self.text)
        return VideoOptionError(f"The query can't be read: {what}.\n  {line}\n  {' ' * at}{'^' * max(length, 1)}")
