"""What a federation's `secure` says: "secagg", "secagg:clip=1,max_examples=500", "he", "he:force=true"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hf_video.base.written_files import read_json
from hf_video.errors import FederatedError, check_count, check_switch
from hf_video.federated.deployment.certificates import PUBLIC_KEYS, SHARED_KEY
from hf_video.federated.secure.layout import SumSettings
from hf_video.federated.secure.quantization import MIN_CLIENTS
from hf_video.federated.secure.server import SecureSum


@dataclass(frozen=True)
class SecureAggregation:
    """Options of SecAgg, see `SumSettings` and `SecureSum`."""

    clip: float = 4.0
    bits: int = 0
    max_examples: int = 10_000
    metric_bound: float = 100.0
    threshold: int | None = None
    min_survivors: int = MIN_CLIENTS

    def __post_init__(self) -> None:
        check_count("threshold", self.threshold, FederatedError, optional=True)
        self.server("examples", ())

    def server(self, weighting: str, metrics: tuple[str, ...]) -> SecureSum:
        """The server's side of sums of models and of these metrics."""
        settings = SumSettings(self.clip, self.bits, self.max_examples, weighting, metrics, self.metric_bound)
        return SecureSum(settings, threshold=self.threshold, min_survivors=self.min_survivors)


@dataclass(frozen=True)
class Encryption:
    """Options of homomorphic encryption: `force` lets more than 50 MB of ciphertexts travel."""

    force: bool = False

    def __post_init__(self) -> None:
        check_switch("force", self.force, FederatedError)


SECURE = {"secagg": SecureAggregation, "he": Encryption}


@dataclass(frozen=True)
class SiteKeys:
    """A site's keys for sums that the server can't look into.

    Args:
        signing_key: The site's private key, PEM or OpenSSH, see `new_signing_key`.
        registered: Public keys of all sites, by name.
        shared: Content of the key file that the sites share for encryption, see `homomorphic.new_keys`.
    """

    signing_key: bytes | None = None
    registered: Mapping[str, bytes] = field(default_factory=dict)
    shared: bytes | None = None

    @classmethod
    def beside(cls, signing_key: Path) -> SiteKeys:
        """Reads a site's private key and what `hf-video federated keys` wrote beside it: the public keys of all sites
        and, where there is one, the key that they share.

        Raises:
            FederatedError: A file can't be read.
        """
        public, shared = signing_key.parent / PUBLIC_KEYS, signing_key.parent / SHARED_KEY
        try:
            registered = {name: str(text).encode() for name, text in read_json(public).items()}
            return cls(signing_key.read_bytes(), registered, shared.read_bytes() if shared.exists() else None)
        except (OSError, ValueError) as error:
            raise FederatedError(f"A key file of the site can't be read: {error}") from error
