"""A federation in one process, on one machine's videos: to try rules, partitions and privacy before there are sites."""

from __future__ import annotations

import contextlib
import gc
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_video.data.rows import VideoRows
from hf_video.errors import BackendError, FederatedError, check_choice, check_number
from hf_video.federated.arrays import Arrays
from hf_video.federated.client import ClientRuntime, Site
from hf_video.federated.config import FederatedConfig
from hf_video.federated.data.feature_shift import Appearance, parse_shift
from hf_video.federated.data.split import client_name, divide_rows
from hf_video.federated.deployment.certificates import SHARED_KEY
from hf_video.federated.messages.exchange import Exchange
from hf_video.federated.rounds import RoundReport
from hf_video.federated.secure.homomorphic import HomomorphicKeys, write_keys
from hf_video.federated.secure.options import Encryption, SecureAggregation, SiteKeys
from hf_video.federated.secure.signatures import new_signing_key, public_part
from hf_video.federated.server import run_federation, with_labels_of
from hf_video.federated.store import PersonalStore
from hf_video.federated.trainers import ClientTask, FederatedModel, VideoLocalTrainer, make_task, with_splits
from hf_video.training.runs.run import Task

if TYPE_CHECKING:
    from hf_video.federated.messages.local_grid import Fault, LocalGrid

ENGINES = ("local", "ray")


def simulate(
    data: Any,
    config: FederatedConfig,
    *,
    output: str | Path,
    clients: int | None = 8,
    partition: str = "iid",
    test_size: float = 0.2,
    shift: float | str = 0.0,
    engine: str = "local",
    faults: Sequence[Fault] = (),
    on_round: Callable[[RoundReport], None] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Trains a model on one data set as if it lay at several sites.

    Args:
        data: What `load_videos` takes, or `VideoRows` by split. Its "test" split, if there is one, is measured by
            the server.
        config: Of the federation.
        output: Folder of the run: the model, `history.json`, `audit.jsonl`, and what clients keep under `clients/`.
        clients: How many sites there are; None is one for each natural client, of the partition "natural" alone.
        partition: Who has which videos, see `parse_partition`, or a file of `hf-video federated partition`.
        test_size: Share of each client's videos that it is evaluated on, of each class; 0 for none.
        shift: How unlike each other the clients' videos look, see `Appearance.of_client`: 2, "greys:3"; 0 for
            alike.
        engine: "local": clients one after the other in this process; "ray": several at once, in processes of Ray, with
            the same result.
        faults: What goes wrong, see `Fault`.
        on_round: Told of each round.
        resume, overwrite: Go on with the run in `output`, or put a new one in its place.

    Returns:
        The summary, see `run_federation`.

    Raises:
        HFVideoError: What can't work.
    """
    check_choice("engine", engine, ENGINES, FederatedError)
    task = make_task(config, data)
    config = with_labels_of(config, task)
    output = Path(output)
    parts = divide_rows(task.splits["train"], partition, clients, seed=config.seed)
    if overwrite and not resume and output.exists():
        shutil.rmtree(output)
    model = FederatedModel(config, task)
    models = {config.digest(): model}
    sites = {}
    names = [client_name(number, len(parts)) for number in range(len(parts))]
    keys = make_site_keys(config, names, output / "clients" / SHARED_KEY)
    for number, (name, part) in enumerate(zip(names, parts, strict=True)):
        splits = hold_out(task.splits["train"].select(part), test_size, config.seed + number)
        appearance = Appearance.of_client(name, shift, seed=config.seed) if parse_shift(shift)[1] else None
        folder = output / "clients" / name
        sites[name] = Site(name, with_splits(task, splits), folder, keys=keys[name], appearance=appearance)
    grid = make_grid(sites, models, faults, engine)
    shared = keys[names[0]].shared
    with modules_left_alone(), contextlib.closing(grid):
        return run_federation(
            config,
            Exchange(grid),
            output,
            model=model,
            measure=server_measure(config, task, model, output),
            on_round=on_round,
            resume=resume,
            shared_keys=None if shared is None else HomomorphicKeys(shared),
        )


@contextlib.contextmanager
def modules_left_alone() -> Iterator[None]:
    """Takes what is there now out of Python's garbage collection, unless the caller did: accelerate collects before
    each training, and looking through all modules takes longer than a small client's round."""
    ours = gc.get_freeze_count() == 0
    if ours:
        gc.freeze()
    try:
        yield
    finally:
        if ours:
            gc.unfreeze()


def make_site_keys(config: FederatedConfig, names: Sequence[str], shared: Path) -> dict[str, SiteKeys]:
    """Keys of each client for what `secure` asks for; those that all share are kept in a file, for resuming."""
    options = config.secure_options()
    if isinstance(options, SecureAggregation):
        own = {name: new_signing_key() for name in names}
        public = {name: public_part(key) for name, key in own.items()}
        return {name: SiteKeys(own[name], public) for name in names}
    if isinstance(options, Encryption):
        if not shared.exists():
            shared.parent.mkdir(parents=True, exist_ok=True)
            write_keys(shared)
        return dict.fromkeys(names, SiteKeys(shared=shared.read_bytes()))
    return dict.fromkeys(names, SiteKeys())


def make_grid(
    sites: Mapping[str, Site], models: dict[str, FederatedModel], faults: Sequence[Fault], engine: str
) -> LocalGrid:
    """The engine's grid; `models` are shared by clients of this process."""
    try:
        from hf_video.federated.messages.local_grid import LocalGrid
    except ImportError as error:
        raise BackendError(
            "Federated learning needs Flower (Python 3.11 or newer): pip install 'hf_video[federated]'"
        ) from error
    if engine == "ray":
        from hf_video.federated.messages.ray_grid import RayGrid

        return RayGrid(sites, faults)
    return LocalGrid({name: ClientRuntime(site, models).handle for name, site in sites.items()}, faults)


def hold_out(rows: VideoRows, share: float, seed: int) -> dict[str, VideoRows]:
    """Takes a share of each class as "validation", rounded; a class always keeps a video to train on."""
    check_number("test_size", share, FederatedError, least=0, below=1)
    generator = np.random.default_rng(seed)
    held: list[int] = []
    by_class: dict[Any, list[int]] = {}
    for number, row in enumerate(rows):
        by_class.setdefault(row.label, []).append(number)
    for numbers in by_class.values():
        count = min(int(np.rint(share * len(numbers))), len(numbers) - 1)
        held += generator.choice(numbers, count, replace=False).tolist()
    kept = [number for number in range(len(rows)) if number not in set(held)]
    return {"train": rows.select(kept), **({"validation": rows.select(sorted(held))} if held else {})}


def server_measure(
    config: FederatedConfig, task: Task, model: FederatedModel, output: Path
) -> Callable[[Any], Mapping[str, float]] | None:
    """Measures models on the test split; None where there is none, where clients keep a part of the model, or
    where they alone can open it."""
    test = task.splits.get("test")
    if test is None or not len(test) or model.own() or isinstance(config.secure_options(), Encryption):
        return None
    held = with_splits(task, {"train": task.splits["train"], "validation": test})
    store = PersonalStore(output / "server")
    trainer = VideoLocalTrainer("server", config, held, model, store, output / "server")

    def measure(arrays: Arrays) -> dict[str, float]:
        task = ClientTask(1, arrays)
        trainer.receive(task)
        return trainer.measure(task)

    return measure
