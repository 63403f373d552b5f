"""`PrivacyLedger`: everything private that was released, in a file that is only ever added to."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hf_video.errors import FederatedError
from hf_video.federated.privacy.accounting import Release
from hf_video.federated.privacy.policy import PrivacyPolicy

LEDGER_FILE = "privacy_ledger.jsonl"


class PrivacyLedger:
    """Steps that were released, a JSON object on each line: `holder`, `unit`, `noise_multiplier`, `sample_rate`,
    `steps`, `clip`, `units`.

    A line is on the disk before the weights that it pays for go anywhere, so that a run that is killed has spent too
    much by its ledger, never too little; a run that goes on adds to what is there.

    Args:
        path: The file. One that is there is read.
        holder: Whose videos or clients: under video-level privacy each client has an account of its own.

    Raises:
        FederatedError: The file holds a line that is no entry.
    """

    def __init__(self, path: str | os.PathLike[str], holder: str = "") -> None:
        self.path, self.holder = Path(path), holder
        self._read()

    def _read(self) -> list[tuple[str, str, Release]]:
        if not self.path.exists():
            return []
        found = []
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                entry = json.loads(line)
                release = Release(entry["sample_rate"], entry["steps"], entry["noise_multiplier"])
                found.append((str(entry["holder"]), str(entry["unit"]), release))
            except (ValueError, KeyError, TypeError) as error:
                raise FederatedError(
                    f"Line {number} of the privacy ledger {self.path} is damaged ({error}): what was spent is not "
                    "known. Restore the file from a copy, or begin with new videos."
                ) from error
        return found

    def releases(self, unit: str, holder: str | None = None) -> list[Release]:
        """What was released of a unit, by this holder or another one."""
        whose = self.holder if holder is None else holder
        return [release for name, kind, release in self._read() if (name, kind) == (whose, unit)]

    def holders(self, unit: str) -> list[str]:
        """Who released something, by name."""
        return sorted({name for name, kind, _ in self._read() if kind == unit})

    def spent(self, policy: PrivacyPolicy, holder: str | None = None) -> float:
        """ε of everything that is written here, at the policy's δ."""
        return policy.spent(self.releases(policy.unit, holder))

    def check(self, policy: PrivacyPolicy, planned: Sequence[Release], holder: str | None = None) -> None:
        """Tells, before anything is released, whether the policy's target would be passed.

        Args:
            policy: With its noise.
            planned: Steps that are to be taken.
            holder: See `releases`.

        Raises:
            FederatedError: ε after them would be above the target.
        """
        if policy.epsilon is None:
            return
        noisy = [replace(one, noise_multiplier=policy.noise_multiplier) for one in planned]
        after = policy.spent([*self.releases(policy.unit, holder), *noisy])
        if after > policy.epsilon:
            who = self.holder if holder is None else holder
            before, steps = self.spent(policy, holder), sum(one.steps for one in planned)
            raise FederatedError(
                f"{f'{who}: ' if who else ''}{steps} steps more would spend ε = {after:.3f} in all, and the target is "
                f"{policy.epsilon:g} at δ = {policy.delta:g} (spent so far: {before:.3f}, in {self.path}). Take fewer "
                "steps, more noise, or a higher epsilon."
            )

    def settle_noise(
        self, policy: PrivacyPolicy, planned: Sequence[Release], holder: str | None = None
    ) -> PrivacyPolicy:
        """The policy with its noise: the given one, that of the last entry, or, at the beginning, what is needed.

        Args:
            policy: See `PrivacyPolicy.resolved`.
            planned: All steps that are left.
            holder: See `releases`.
        """
        before = self.releases(policy.unit, holder)
        if policy.noise_multiplier is None and before:
            return replace(policy, noise_multiplier=before[-1].noise_multiplier)
        return policy.resolved(planned)

    def record(self, policy: PrivacyPolicy, release: Release, units: int, holder: str | None = None) -> None:
        """Adds a line, which is on the disk when this returns.

        Args:
            policy: With its noise.
            release: Steps that are about to be released.
            units: Videos or clients there are.
            holder: See `releases`.
        """
        entry = {
            "holder": self.holder if holder is None else holder,
            "unit": policy.unit,
            "noise_multiplier": policy.noise_multiplier,
            "sample_rate": release.sample_rate,
            "steps": release.steps,
            "clip": policy.clip,
            "units": units,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, (json.dumps(entry) + "\n").encode())
            os.fsync(handle)
        finally:
            os.close(handle)
