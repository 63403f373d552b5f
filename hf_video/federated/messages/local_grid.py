"""Flower's Grid in one process: clients are called one after the other, in the order of their nodes.

No process is started and no socket opened; messages are Flower's own, so that server and clients are the same as in a
deployment. Faults can be put in, for tests and to see what a federation bears.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from hf_video.errors import FederatedError, check_choice
from hf_video.federated.messages.payload import Payload, from_record, to_record

if TYPE_CHECKING:
    from flwr.supercore.run import Run

Handler = Callable[[str, Payload], Payload]
FAULTS = ("drop", "error")
_NODE_UNAVAILABLE = 5  # Flower's code for a node that died with a message


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong once.

    Args:
        client: Whose answer it is.
        kind: Of the message, such as "train".
        occurrence: Which of the client's messages of that kind, from 1.
        what: "drop" (nothing comes), "error" (the node is gone), or a function that changes the answer.
    """

    client: str
    kind: str
    occurrence: int
    what: str | Callable[[Payload], Payload] = "drop"

    def __post_init__(self) -> None:
        if not callable(self.what):
            check_choice("what", self.what, FAULTS, FederatedError)


class LocalGrid(Grid):
    """Calls clients' handlers in this process.

    Args:
        handlers: By client; node ids are numbers in the order of names.
        faults: What goes wrong.
    """

    def __init__(self, handlers: Mapping[str, Handler], faults: Sequence[Fault] = ()) -> None:
        self.clients = sorted(handlers)
        self.handlers = dict(handlers)
        self.faults = {(one.client, one.kind, one.occurrence): one.what for one in faults}
        self.seen: dict[tuple[str, str], int] = {}
        self._replies: dict[str, Message] = {}
        # Flower's messages ask the process who sends them.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1

    def set_run(self, run: Run) -> None:
        raise FederatedError("A grid in one process has no runs to choose from.")

    @property
    def run(self) -> Run:
        raise FederatedError("A grid in one process has no run.")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> list[int]:
        return list(range(1, len(self.clients) + 1))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        waiting = [self._deliver(number, message) for number, message in enumerate(messages)]
        return [finish() for finish in waiting]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies.pop(one) for one in message_ids if one in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        return self.pull_messages(self.push_messages(messages))

    def close(self) -> None:
        """Frees what was taken for the clients: nothing in one process."""

    def call(self, client: str, kind: str, payload: Payload) -> Callable[[], Payload | None]:
        """Gives a client its message; what is returned waits for the answer, None from a client that died."""
        return lambda: self.handlers[client](kind, payload)

    def _deliver(self, number: int, message: Message) -> Callable[[], str]:
        """Hands a message over; what is returned waits until the reply is there, and names it."""
        client = self.clients[message.metadata.dst_node_id - 1]
        kind = message.metadata.message_type
        occurrence = self.seen[client, kind] = self.seen.get((client, kind), 0) + 1
        fault = self.faults.get((client, kind, occurrence))
        name = f"{client}/{kind}/{occurrence}/{number}"
        message.metadata.__dict__["_message_id"] = name  # as Flower's own grids do
        lost = isinstance(fault, str)
        answer = (lambda: None) if lost else self.call(client, kind, from_record(message.content))

        def finish() -> str:
            sender = TaskIdentity.node_id
            try:
                TaskIdentity.node_id = message.metadata.dst_node_id
                payload = answer()
                if payload is not None:
                    payload = fault(payload) if callable(fault) else payload
                    self._replies[name] = Message(to_record(payload), reply_to=message)
                elif fault != "drop":  # the server's own node tells of one that died
                    reply = Message(Error(_NODE_UNAVAILABLE, "Node Unavailable"), reply_to=message)
                    reply.metadata.__dict__["_src_node_id"] = sender
                    self._replies[name] = reply
            finally:
                TaskIdentity.node_id = sender
            return name

        return finish
