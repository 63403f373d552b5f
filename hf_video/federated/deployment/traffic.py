"""What travels between a site and the server, before anything does: which tensors, how many bytes, how fast a line."""

from __future__ import annotations

from dataclasses import dataclass

from hf_video.errors import pluralize
from hf_video.federated.arrays import Arrays
from hf_video.federated.client import result_payload, task_payload
from hf_video.federated.config import FederatedConfig
from hf_video.federated.deployment.progress import WAY, least_bandwidth
from hf_video.federated.messages.compression import compress_payload, parse_compression
from hf_video.federated.rules.strategies import ClientResult
from hf_video.federated.secure.options import Encryption
from hf_video.federated.trainers import ClientTask

_ENCRYPTED = 7.5  # bytes of a ciphertext for each byte of float32


@dataclass(frozen=True)
class Traffic:
    """What a site and the server send each other in a round.

    Args:
        tensors: Dtype, shape and bytes of each tensor that leaves the site, by name.
        down, up: Bytes of the messages, to the site and from it.
        config: Of the federation.
    """

    tensors: dict[str, tuple[str, tuple[int, ...], int]]
    down: int
    up: int
    config: FederatedConfig

    @classmethod
    def of(cls, config: FederatedConfig, arrays: Arrays) -> Traffic:
        """Of a federation and the tensors that travel in it."""
        tensors = {name: (str(one.dtype), one.shape, one.nbytes) for name, one in arrays.items()}
        down = task_payload(config, ClientTask(1, arrays)).nbytes
        answer = result_payload(ClientResult(arrays, 1, 1, loss=0.0, metrics={"loss": 0.0, "seconds": 0.0}))
        if (compression := parse_compression(config.compression)) is not None:
            answer, _ = compress_payload(answer, arrays, compression)
        encrypted = isinstance(config.secure_options(), Encryption)
        factor = _ENCRYPTED if encrypted else 1.0
        return cls(tensors, int(down * factor), int(answer.nbytes * factor), config)

    def lines(self) -> list[str]:
        """In words, without the tensors."""
        rounds = self.config.rounds
        found = [
            f"each round {self.down / 1e6:.2f} MB to a site and {self.up / 1e6:.2f} MB from it; in {rounds} rounds "
            f"{(self.down + self.up) * rounds / 1e6:.1f} MB"
        ]
        if (deadline := self.config.deadline) is not None:
            needed = least_bandwidth(self.down + self.up, deadline)
            found.append(f"the deadline of {deadline:g} s, {WAY:.0%} of it for the way, needs {needed:.2f} Mbit/s")
        return found

    def table(self) -> list[str]:
        """The tensors, a line each."""
        width = max(map(len, self.tensors), default=0)
        rows = [
            f"  {name:<{width}}  {dtype:>8}  {'x'.join(map(str, shape)) or '1':>16}  {size:>12,} B"
            for name, (dtype, shape, size) in sorted(self.tensors.items())
        ]
        return [f"{pluralize(len(rows), 'tensor')} leave the site in each round:", *rows]


def told_besides(config: FederatedConfig) -> list[str]:
    """What else a site tells the server, in words."""
    options = config.secure_options()
    if options is None:
        how = "as they are: the server reads this site's changes"
    elif isinstance(options, Encryption):
        how = "encrypted: the server reads neither this site's changes nor their sum"
    else:
        how = "masked: the server reads the sum of all sites alone"
    privacy = "no bound on what they tell of single videos" if config.privacy is None else f"privacy {config.privacy}"
    return [
        f"they are sent {how}; {privacy}",
        "besides: the site's name, the versions of its software, its classes, loss and accuracy on its videos"
        + (", and their number" if options is None else ""),
        "no video, no file's name and no label of a video leaves the site",
    ]
