"""Who takes part in one secure sum: their keys of the round, signed, and who shares secrets with whom.

Up to 50 clients all share with all (Bonawitz et al., CCS 2017). More stand on a circle, each sharing with the nearest
k, about 6 log2 n of them (Bell et al., CCS 2020). Their order on it follows from the digest of all keys, so that nobody
places a client beside others of his choice.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from hf_video.errors import FederatedError, check_count
from hf_video.federated.secure.quantization import MIN_CLIENTS
from hf_video.federated.secure.signatures import is_signed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

MOST_ON_COMPLETE_GRAPH = 50


@dataclass(frozen=True, order=True)
class Session:
    """One attempt of one round of one run; a later one has a higher round, or the same and a higher attempt."""

    run: str
    round: int
    attempt: int = 0

    def __post_init__(self) -> None:
        check_count("round", self.round, FederatedError, least=0)
        check_count("attempt", self.attempt, FederatedError, least=0)
        if not isinstance(self.run, str):
            raise FederatedError(f"run={self.run!r} must be a text.")

    def purpose(self, purpose: str) -> bytes:
        """What keys are derived and signed for."""
        return f"hf_video secure sum v1 {purpose} run={self.run!r} round={self.round} attempt={self.attempt}".encode()


@dataclass(frozen=True, order=True)
class Member:
    """A client's public keys of one session: for shares and for masks, 32 bytes each, signed by its site."""

    name: str
    share_key: bytes
    mask_key: bytes
    signature: bytes

    def statement(self, session: Session) -> bytes:
        """What the site signs."""
        return session.purpose("keys") + _canonical([self.name, self.share_key.hex(), self.mask_key.hex()])


@dataclass(frozen=True)
class Roster:
    """All members of a session, and how many shares give a secret back.

    Args:
        session: Which one.
        members: In the order of names.
        threshold: Shares, of those that a member and its neighbours hold.
        terms: Whatever else all members must have been told alike.
    """

    session: Session
    members: tuple[Member, ...]
    threshold: int
    terms: str = ""

    @cached_property
    def names(self) -> list[str]:
        return [one.name for one in self.members]

    @cached_property
    def by_name(self) -> dict[str, Member]:
        return {one.name: one for one in self.members}

    @cached_property
    def digest(self) -> str:
        """Tells rosters apart; members whose rosters differ can't read each other's shares."""
        members = [[one.name, one.share_key.hex(), one.mask_key.hex()] for one in self.members]
        return hashlib.sha256(_canonical([asdict(self.session), members, self.threshold, self.terms])).hexdigest()

    @cached_property
    def circle(self) -> list[str]:
        keys = {name: hashlib.sha256(f"{self.digest} {name}".encode()).digest() for name in self.names}
        return sorted(self.names, key=keys.__getitem__)

    @cached_property
    def reach(self) -> int:
        """Places on the circle to either side that are neighbours."""
        return neighbour_count(len(self.members)) // 2

    def holders(self, name: str) -> list[str]:
        """Who holds shares of a member's secrets, itself among them, in the order of names."""
        if len(self.members) <= MOST_ON_COMPLETE_GRAPH:
            return self.names
        place, size = self.circle.index(name), len(self.members)
        return sorted(self.circle[(place + step) % size] for step in range(-self.reach, self.reach + 1))

    @property
    def quorum(self) -> int:
        """Members that must be left, and agree on who is: more than half."""
        return max(self.threshold, len(self.members) // 2 + 1)

    def check(self, registered: Mapping[str, EllipticCurvePublicKey], min_clients: int = MIN_CLIENTS) -> None:
        """Raises FederatedError unless every member is registered, signed its keys and has its own, there are enough of
        them, and more than half of the shares are needed."""
        if len(self.members) < max(min_clients, MIN_CLIENTS):
            raise FederatedError(
                f"A secure sum of {len(self.members)} clients is refused: {max(min_clients, MIN_CLIENTS)} are needed, "
                "or the sum tells too much of each."
            )
        if self.names != sorted(set(self.names)):
            raise FederatedError("The server named a client twice, or not in the order of names.")
        for member in self.members:
            if member.name not in registered:
                raise FederatedError(f"The server named {member.name!r}, which is no registered site.")
            if not is_signed(registered[member.name], member.signature, member.statement(self.session)):
                raise FederatedError(
                    f"The keys that the server relayed for {member.name!r} are not signed by that site for this round."
                )
        if len({key for one in self.members for key in (one.share_key, one.mask_key)}) < 2 * len(self.members):
            raise FederatedError("Two clients have the same key.")
        holders = len(self.holders(self.names[0]))
        if not holders < 2 * self.threshold <= 2 * holders:
            raise FederatedError(
                f"{self.threshold} of {holders} shares would give a secret back: it must be more than half of them."
            )

    def check_survivors(self, survivors: Collection[str], masked: Collection[str], min_clients: int) -> None:
        """Raises FederatedError unless the sum of these members may be learnt, of those that masked for one another:
        there are enough, and their masks tie all of them together."""
        alive = set(survivors)
        if list(survivors) != sorted(alive) or not alive <= set(masked):
            raise FederatedError("The server says that clients are left which did not take part, or names one twice.")
        if len(alive) < max(self.quorum, min_clients):
            raise FederatedError(
                f"{len(alive)} of {len(self.members)} clients are left, and {max(self.quorum, min_clients)} are "
                "needed: nothing is told of them."
            )
        if len(self.members) > MOST_ON_COMPLETE_GRAPH:
            places = [place for place, name in enumerate(self.circle) if name in alive]
            following = [*places[1:], places[0] + len(self.members)]
            if sum(after - place > self.reach for place, after in zip(places, following, strict=True)) > 1:
                raise FederatedError("Too many neighbours are gone: the clients that are left fall into groups.")

    def to_values(self) -> dict[str, int | str | list[str] | list[bytes]]:
        """What the server sends of it."""
        return {
            **asdict(self.session),
            "threshold": self.threshold,
            "terms": self.terms,
            "names": self.names,
            "share_keys": [one.share_key for one in self.members],
            "mask_keys": [one.mask_key for one in self.members],
            "signatures": [one.signature for one in self.members],
        }

    @classmethod
    def from_values(cls, values: Mapping) -> Roster:
        """The reverse of `to_values`.

        Raises:
            FederatedError: An entry is missing or of another length.
        """
        try:
            columns = (values["names"], values["share_keys"], values["mask_keys"], values["signatures"])
            members = tuple(Member(*row) for row in zip(*columns, strict=True))
            if not all(isinstance(one.name, str) for one in members):
                raise TypeError("names must be texts")
            if not all(isinstance(key, bytes) for column in columns[1:] for key in column):
                raise TypeError("keys and signatures must be bytes")
            numbers = (values["run"], values["round"], values["attempt"])
            threshold, terms = values["threshold"], values["terms"]
        except (KeyError, TypeError, ValueError) as error:
            raise FederatedError(f"The server's list of clients can't be read: {error!r}.") from None
        return cls(Session(*numbers), members, check_count("threshold", threshold, FederatedError), terms)


def neighbour_count(clients: int) -> int:
    """With how many others each of so many clients shares its secrets."""
    if clients <= MOST_ON_COMPLETE_GRAPH:
        return clients - 1
    return min(2 * math.ceil(3 * math.log2(clients)), 2 * ((clients - 1) // 2))


def default_threshold(clients: int) -> int:
    """Two thirds of the holders where all share with all; on the circle, where few hold shares and some of them drop
    out, the smallest that is more than half."""
    if clients > MOST_ON_COMPLETE_GRAPH:
        return (neighbour_count(clients) + 1) // 2 + 1
    return max(math.ceil(2 * clients / 3), clients // 2 + 1)


def _canonical(content: list) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
