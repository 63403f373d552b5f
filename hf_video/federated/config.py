"""One YAML file that says how several sites train a model together."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from hf_video.errors import FederatedError, check_choice, check_count, check_number, did_you_mean, unknown_name
from hf_video.federated.combinations import Combination, check_combination
from hf_video.federated.keys import KeyPolicy
from hf_video.federated.messages.compression import parse_compression
from hf_video.federated.privacy.policy import PrivacyPolicy
from hf_video.federated.rules import robust, server_optimizers, strategies
from hf_video.federated.rules.personal import RULES, PersonalRule
from hf_video.federated.rules.strategies import AggregationStrategy
from hf_video.federated.secure.options import SECURE, Encryption, SecureAggregation

Options: TypeAlias = "str | Mapping[str, Any]"

STRATEGIES: dict[str, type[AggregationStrategy]] = {
    one.name: one
    for one in (
        strategies.AggregationStrategy,
        strategies.FedProx,
        strategies.QFedAvg,
        strategies.FedNova,
        strategies.Scaffold,
        strategies.FedDyn,
        server_optimizers.FedAvgM,
        server_optimizers.FedAdagrad,
        server_optimizers.FedAdam,
        server_optimizers.FedYogi,
        server_optimizers.ReptileServer,
        robust.CoordinateMedian,
        robust.TrimmedMean,
        robust.Krum,
    )
}
TASKS = ("classification", "pretraining", "video-text")
BAD_UPDATES = ("skip", "stop")


@dataclass(frozen=True)
class FederatedConfig:
    """What server and clients agree on.

    Args:
        model: A folder, a name on the Hub, a model type ("videomae") or a size of one; every site must be able to load
            it, or at least its configuration.
        task: One of `TASKS`.
        labels: The classes, in order. Default: those that all clients have, which must be the same ones.
        recipe, settings: As of `hf-video train`: a recipe's name or file, and changes of it, such as
            "training.learning_rate=1e-3".
        rounds: How often the server asks clients to train.
        fraction: Share of the clients that a round asks, in (0, 1].
        min_clients: Answers that a round needs; with fewer it is not done, and the run stops with what it has.
        local_epochs: Passes over its own videos that a client makes in a round.
        local_steps: Steps of the optimiser instead.
        learning_rate_decay: Factor of the clients' learning rate after each round; within a round the rate is constant.
        strategy: How answers become the next model: a name, "fedprox:mu=0.01", or a mapping with `name`.
        keys: Which tensors travel, see `KeyPolicy`. Default: all, with `lora` those that are trained.
        lora: Options of PEFT's `LoraConfig`, such as {r: 8, target_modules: [query, value]}; only adapters and head are
            trained then.
        personal: What each client has for itself, such as "fedbn" or "ditto:lam=0.1", see `rules.personal`. With
            "reptile" the strategy "fedavg" is Reptile's own.
        privacy: "video:eps=8,delta=1e-5,clip=1.0", "client:…", or a mapping; None for no guarantee.
        secure: "secagg" or "he": the server sees sums alone. Options follow, such as "secagg:max_examples=500" (that
            no site has more videos than) or "he:force=true", see `secure.options`.
        compression: Of what clients send: "int8", "topk:0.01", "fp16", or "none".
        deadline: Seconds after which a round goes on without those who did not answer. Clients stop training in time
            and answer what they have.
        on_bad_update: "skip" leaves out answers with other tensors, numbers that are not finite, or a norm above
            `max_update_norm`, and goes on; "stop" ends the run.
        max_update_norm: L2 norm of a client's change above which it counts as bad.
        evaluate_every: Rounds between evaluations by the clients; the last round is always evaluated.
        seed: Of the first weights, the choice of clients, and orders of videos.

    Raises:
        FederatedError: A value that can't be, or that is not known.
    """

    model: str
    task: str = "classification"
    labels: tuple[str, ...] | None = None
    recipe: str | None = None
    settings: tuple[str, ...] = ()
    rounds: int = 20
    fraction: float = 1.0
    min_clients: int = 2
    local_epochs: float = 1.0
    local_steps: int | None = None
    learning_rate_decay: float = 1.0
    strategy: Options = "fedavg"
    keys: str | None = None
    lora: Mapping[str, Any] | None = None
    personal: Options | None = None
    privacy: Options | None = None
    secure: Options | None = None
    compression: str | None = None
    deadline: float | None = None
    on_bad_update: str = "skip"
    max_update_norm: float | None = None
    evaluate_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("labels", "settings"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise FederatedError(f"{name} is a list, and the text {value!r} came.")
            object.__setattr__(self, name, None if value is None else tuple(value))
        check_choice("task", self.task, TASKS, FederatedError)
        check_choice("on_bad_update", self.on_bad_update, BAD_UPDATES, FederatedError)
        for name in ("rounds", "min_clients", "evaluate_every"):
            check_count(name, getattr(self, name), FederatedError)
        check_number("fraction", self.fraction, FederatedError, above=0, most=1)
        for name in ("local_epochs", "learning_rate_decay"):
            check_number(name, getattr(self, name), FederatedError, above=0)
        for name in ("deadline", "max_update_norm"):
            check_number(name, getattr(self, name), FederatedError, above=0, optional=True)
        if self.local_steps is not None:
            check_count("local_steps", self.local_steps, FederatedError)
        self.key_policy()
        self.personal_rule()
        self.make_strategy(num_clients=max(self.min_clients, 1))
        parse_compression(self.compression)
        check_combination(self.combination())

    def combination(self) -> Combination:
        """Its choices that others may exclude."""
        secure, privacy = self.secure_options(), self.privacy_policy()
        return Combination(
            strategy=self.make_strategy(num_clients=max(self.min_clients, 1)).name,
            secure=next((name for name, kind in SECURE.items() if isinstance(secure, kind)), None),
            compression=None if self.compression == "none" else self.compression,
            privacy=None if privacy is None else privacy.unit,
            personal=self.personal_rule().name or None,
            max_update_norm=self.max_update_norm is not None,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FederatedConfig:
        """Raises FederatedError for a name that is no field."""
        known = [one.name for one in fields(cls)]
        if unknown := [name for name in values if name not in known]:
            raise FederatedError(unknown_name("A federation has no field", unknown[0], known))
        if "model" not in values:
            raise FederatedError("A federation needs a model: `model: videomae`.")
        return cls(**values)

    @classmethod
    def load(cls, path: str | Path) -> FederatedConfig:
        """Reads a YAML file; its section `simulation` is left out.

        Raises:
            FederatedError: It can't be read, or holds something else.
        """
        return cls.from_dict(read_federation(path)[0])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and YAML."""
        return json.loads(json.dumps(asdict(self)))

    def digest(self) -> str:
        """16 hex digits that tell federations apart. Rounds don't count: a finished run may go on for more."""
        text = json.dumps({**self.to_dict(), "rounds": None}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def key_policy(self) -> KeyPolicy:
        """Which tensors travel."""
        return KeyPolicy(self.keys or ("trainable" if self.lora else "all"))

    def secure_options(self) -> SecureAggregation | Encryption | None:
        """How clients' answers are hidden from the server; None where they are not."""
        return None if self.secure in (None, "none") else make_named("secure", self.secure, SECURE)

    def privacy_policy(self) -> PrivacyPolicy | None:
        """What is promised of single videos or clients; None for nothing."""
        return None if self.privacy is None else PrivacyPolicy.parse(self.privacy)

    def travelling(self, model: nn.Module) -> list[str]:
        """Sorted names of the tensors that travel: of those of `keys` the ones that the personal rule lets go.

        Raises:
            FederatedError: There is none, or nothing that the rule keeps.
        """
        names, rule = set(self.key_policy().names(model)), self.personal_rule()
        going = names & set(KeyPolicy(rule.travels).names(model))
        if rule.travels != "all" and going == names:
            raise FederatedError(
                f"{rule.name} would keep nothing at the clients, as {type(model).__name__} has no such tensors: it is "
                f"FedAvg.{' fedln keeps layer norms.' if rule.name == 'fedbn' else ''}"
            )
        if not going:
            raise FederatedError(f"{rule.name} and keys={self.keys!r} leave no tensor of the model that travels.")
        return sorted(going)

    def personal_rule(self) -> PersonalRule:
        """What clients have for themselves; without `personal`, tensors that don't travel alone."""
        return PersonalRule() if self.personal is None else make_named("personal rule", self.personal, RULES)

    def asks_for_own(self) -> bool:
        """Whether the server may ask what clients keep, for those that are new; never where it should see sums alone or
        clients have a guarantee of privacy."""
        return self.personal_rule().begins_with_mean and self.privacy is None and self.secure_options() is None

    def make_strategy(self, num_clients: int) -> AggregationStrategy:
        """The server's rule. `num_clients` are all of the federation, which SCAFFOLD and FedDyn ask for."""
        reptile = self.strategy == "fedavg" and self.personal_rule().name == "reptile"
        return make_named("strategy", "reptile" if reptile else self.strategy, STRATEGIES, num_clients=num_clients)


def read_federation(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a YAML file: the fields of a federation, and what it says under `simulation`.

    Raises:
        FederatedError: It can't be read, or holds something else.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise FederatedError(f"{path} can't be read: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("simulation", {}), dict):
        raise FederatedError(f"{path} holds no fields of a federation, such as `model: videomae`.")
    simulation = values.pop("simulation", {})
    known = ("data", "clients", "partition", "test_size", "shift", "output", "engine")
    if unknown := [name for name in simulation if name not in known]:
        raise FederatedError(unknown_name("A simulation has no field", unknown[0], known))
    return values, simulation


def parse_options(what: str, given: Options) -> tuple[str, dict[str, Any]]:
    """A name and its options, of "fedprox:mu=0.01,weighting=uniform" or of a mapping with `name`.

    Raises:
        FederatedError: It is neither.
    """
    if isinstance(given, Mapping):
        options = dict(given)
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise FederatedError(f"{what} needs a name, and {dict(given)!r} came.")
        return name, options
    name, _, rest = str(given).partition(":")
    options = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise FederatedError(f"{what} {given!r}: {part!r} is no option; write {name}:option=value.")
        options[key.strip()] = _parse(value.strip())
    return name, options


def _parse(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def make_named(what: str, given: Options, known: Mapping[str, Callable[..., Any]], **offered: Any) -> Any:
    """Makes the thing of a name with its options; of `offered`, what it takes is added.

    Raises:
        FederatedError: An unknown name or option.
    """
    name, options = parse_options(what, given)
    if name not in known:
        raise FederatedError(unknown_name(f"There is no {what}", name, known))
    takes = inspect.signature(known[name]).parameters
    open_ended = any(one.kind is one.VAR_KEYWORD for one in takes.values())
    if not open_ended and (strange := [option for option in options if option not in takes]):
        hint = did_you_mean(strange[0], takes)
        raise FederatedError(
            f"The {what} {name!r} has no option {strange[0]!r}.{hint} It has: {', '.join(takes) or 'none'}."
        )
    added = {option: value for option, value in offered.items() if option in takes}
    try:
        return known[name](**{**added, **options})
    except TypeError as error:
        raise FederatedError(f"The {what} {given!r} can't be made: {error}") from error
