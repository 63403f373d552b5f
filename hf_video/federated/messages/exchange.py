"""Questions of the server to its clients by name, over any Grid of Flower: in one process, with Ray, over a network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hf_video.errors import FederatedError
from hf_video.federated.messages.payload import Payload, from_record, to_record

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.serverapp import Grid

_DESCRIBED_WITHIN = 120.0  # seconds; a site's first process imports what it needs
_POLL = 1.0  # seconds between looks for nodes that are awaited


@dataclass(frozen=True)
class ClientFailure:
    """A client that gave no answer.

    Args:
        reason: Why, in a sentence.
        absent: Whether nothing came at all; otherwise the client told its error.
    """

    reason: str
    absent: bool = False


@dataclass
class Exchange:
    """Asks clients and gathers their answers.

    Args:
        grid: Of Flower.
        nodes: Its node of each client, by name; `discover` fills it.
        registered: The name under which each node's key was registered, by node; a node that calls itself otherwise is
            not asked. Empty where nodes have no keys.
        bytes_down, bytes_up: Of the payloads so far, by client.
    """

    grid: Grid
    nodes: dict[str, int] = field(default_factory=dict)
    registered: Mapping[int, str] = field(default_factory=dict)
    bytes_down: dict[str, int] = field(default_factory=dict)
    bytes_up: dict[str, int] = field(default_factory=dict)

    def discover(self, least: int = 1, timeout: float | None = 0.0) -> dict[str, Payload]:
        """Looks for nodes that are new, and asks them who they are.

        Args:
            least: Clients that are waited for.
            timeout: Seconds to wait; None for ever, 0 to look once.

        Returns:
            What new clients say of themselves, by name. `nodes` has all that are there now.

        Raises:
            FederatedError: There are fewer when the time is up, or two clients have one name.
        """
        end = None if timeout is None else time.monotonic() + timeout
        found: dict[str, Payload] = {}
        failed: dict[int, str] = {}
        while True:
            present = set(self.grid.get_node_ids())
            self.nodes = {name: node for name, node in self.nodes.items() if node in present}
            new = present - set(self.nodes.values())
            deadline = min(timeout or _DESCRIBED_WITHIN, _DESCRIBED_WITHIN)
            answers = self._ask_nodes("query.describe", dict.fromkeys(new, Payload()), deadline)
            for node, answer in answers.items():
                if isinstance(answer, ClientFailure):
                    failed[node] = answer.reason
                    continue
                name = str(answer.values["name"])
                if self.registered and self.registered.get(node) != name:
                    failed[node] = f"the key of {self.registered.get(node)!r} is used by a client named {name!r}"
                    continue
                if name in self.nodes:
                    raise FederatedError(f"Two clients call themselves {name!r}: give each a name of its own.")
                self.nodes[name] = node
                found[name] = answer
            if len(self.nodes) >= least:
                return found
            if end is not None and time.monotonic() >= end:
                why = f" Others failed: {'; '.join(sorted(set(failed.values())))}" if failed else ""
                raise FederatedError(
                    f"{len(self.nodes)} clients are there ({', '.join(sorted(self.nodes)) or 'none'}), and {least} are "
                    f"needed.{why}"
                )
            time.sleep(_POLL)

    def ask(
        self, kind: str, payloads: Mapping[str, Payload], deadline: float | None = None
    ) -> dict[str, Payload | ClientFailure]:
        """Sends each client its payload, all at once, and waits for the answers.

        Args:
            kind: What is asked, such as "train".
            payloads: By client.
            deadline: Seconds; clients that did not answer by then have failed.

        Returns:
            By client, in the order of names.
        """
        names = {self.nodes[client]: client for client in payloads}
        answers = self._ask_nodes(kind, {self.nodes[client]: one for client, one in payloads.items()}, deadline)
        by_name = {names[node]: answer for node, answer in answers.items()}
        for client, payload in payloads.items():
            self.bytes_down[client] = self.bytes_down.get(client, 0) + payload.nbytes
            answer = by_name[client]
            if isinstance(answer, Payload):
                self.bytes_up[client] = self.bytes_up.get(client, 0) + answer.nbytes
        return dict(sorted(by_name.items()))

    def _ask_nodes(
        self, kind: str, payloads: Mapping[int, Payload], deadline: float | None
    ) -> dict[int, Payload | ClientFailure]:
        from flwr.app import Message

        messages = [
            Message(to_record(payload), dst_node_id=node, message_type=kind, ttl=deadline)
            for node, payload in sorted(payloads.items())
        ]
        replies = self.grid.send_and_receive(messages, timeout=deadline) if messages else ()
        # What Flower answers for a node that died comes from node 1, the server itself; the question tells whose it is.
        asked = {one.metadata.message_id: one.metadata.dst_node_id for one in messages}
        answers = {asked[reply.metadata.reply_to_message_id]: _answer(reply) for reply in replies}
        late = ClientFailure(f"no answer within {deadline:g} s" if deadline else "no answer", absent=True)
        return {node: answers.get(node, late) for node in payloads}


def _answer(reply: Message) -> Payload | ClientFailure:
    if reply.has_error():
        return ClientFailure(f"{reply.error.reason} (code {reply.error.code})", absent=True)
    payload = from_record(reply.content)
    if error := payload.values.get("error"):
        return ClientFailure(str(error))
    return payload
