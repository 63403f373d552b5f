"""Flower's Grid whose clients live in actors of Ray: several train at once, on several cores, GPUs or machines."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from hf_video.errors import BackendError
from hf_video.federated.messages.local_grid import Fault, LocalGrid
from hf_video.federated.messages.payload import Payload

if TYPE_CHECKING:
    from hf_video.federated.client import Site


class RayGrid(LocalGrid):
    """Calls clients in processes of Ray. A client stays in its process, with the others that fall to it.

    Sums of floating-point numbers depend on the number of threads, so each process has as many as this one: with
    OMP_NUM_THREADS=1 there are as many processes as cores, otherwise few. With GPUs each process has one.

    Args:
        sites: By name.
        faults: What goes wrong.
        processes: How many; default one for each GPU, or as many as the cores allow.

    Raises:
        BackendError: Ray is not installed.
    """

    def __init__(self, sites: Mapping[str, Site], faults: Sequence[Fault] = (), processes: int | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")  # a busy machine takes longer than 30
        try:
            import ray
        except ImportError as error:
            raise BackendError(
                "engine='ray' needs Ray, which is not installed: pip install \"hf_video[federated-sim]\"."
            ) from error
        self.started_ray = not ray.is_initialized()
        if self.started_ray:
            ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        threads, resources = torch.get_num_threads(), ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        slots = gpus or max(1, int(resources.get("CPU", 1)) // threads)
        count = min(processes or slots, len(sites))
        names = sorted(sites)
        actor = ray.remote(num_gpus=min(1.0, gpus / count), num_cpus=0 if gpus else min(threads, 1))(Clients)
        shared = [actor.remote({name: sites[name] for name in names[i::count]}, threads) for i in range(count)]
        self.actors = {name: shared[number % count] for number, name in enumerate(names)}
        super().__init__({name: partial(self.ask, name) for name in names}, faults)

    def call(self, client: str, kind: str, payload: Payload) -> Callable[[], Payload | None]:
        import ray

        answer = self.actors[client].handle.remote(client, kind, payload)

        def wait() -> Payload | None:
            try:
                return ray.get(answer)
            except ray.exceptions.RayActorError:
                return None  # its process died, and with it whoever lives there

        return wait

    def close(self) -> None:
        """Ends the clients' processes, and Ray where it was started here."""
        import ray

        for actor in set(self.actors.values()):
            ray.kill(actor)
        if self.started_ray:
            ray.shutdown()

    def ask(self, client: str, kind: str, payload: Payload) -> Payload:
        """What a client answers, waited for."""
        return self.call(client, kind, payload)() or Payload({"error": f"The process of {client!r} died."})


class Clients:
    """Clients of one process, which share a model.

    Args:
        sites: By name.
        threads: Of PyTorch.
    """

    def __init__(self, sites: Mapping[str, Site], threads: int) -> None:
        from hf_video.federated.client import ClientRuntime
        from hf_video.federated.trainers import FederatedModel

        torch.set_num_threads(threads)
        models: dict[str, FederatedModel] = {}
        self.runtimes = {name: ClientRuntime(site, models) for name, site in sites.items()}

    def handle(self, client: str, kind: str, payload: Payload) -> Payload:
        return self.runtimes[client].handle(kind, payload)
