"""LEAF's benchmark of federated learning without a download: softmax regression on Synthetic(alpha, beta).

Users draw their own inputs and their own true models, the more unlike each other the larger alpha and beta are. FedAvg
and FedProx (mu = 1) train one model for all; each round asks ten users, who take full-batch steps. With `--json` the
users come from a file of LEAF's own Synthetic instead.

    python examples/leaf_benchmark.py --users 100 --rounds 200
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from hf_video.federated.data.leaf import read_leaf, synthetic
from hf_video.federated.rules.strategies import AggregationStrategy, ClientResult, FedProx, ServerState

User = tuple[np.ndarray, np.ndarray]


def probabilities(weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Of each class, (n, classes); the last row of the weight is the bias."""
    scores = x @ weight[:-1] + weight[-1]
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def local_steps(sent: np.ndarray, user: User, steps: int, rate: float, mu: float) -> np.ndarray:
    """Full-batch gradient descent on mean cross-entropy + mu / 2 · |w - w_t|²."""
    x, y = user
    weight, targets = sent.copy(), np.eye(sent.shape[1])[y]
    inputs = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    for _ in range(steps):
        weight -= rate * (inputs.T @ (probabilities(weight, x) - targets) / len(x) + mu * (weight - sent))
    return weight


def measure(weight: np.ndarray, users: Sequence[User]) -> tuple[float, float]:
    """Mean loss and accuracy over all users' rows."""
    x, y = (np.concatenate(part) for part in zip(*users, strict=True))
    shares = probabilities(weight, x)
    loss = -np.log(np.maximum(shares[np.arange(len(y)), y], 1e-300)).mean()
    return float(loss), float((shares.argmax(1) == y).mean())


def train(
    strategy: AggregationStrategy,
    users: Sequence[User],
    rounds: int,
    *,
    per_round: int | None = None,
    steps: int = 5,
    rate: float = 0.05,
    classes: int = 10,
    seed: int = 0,
) -> dict[int, tuple[float, float]]:
    """Loss and accuracy after each round, from a weight of zeros; `per_round` users are asked, by default all."""
    state = ServerState({"weight": np.zeros((users[0][0].shape[1] + 1, classes))})
    names = {f"user-{number:05d}": user for number, user in enumerate(users)}
    measured = {}
    for number in range(1, rounds + 1):
        chosen = strategy.select(list(names), 1.0 if per_round is None else per_round / len(users), number, seed)
        mu = strategy.client_settings(state).get("proximal_mu", 0.0)
        results = {
            name: ClientResult(
                {"weight": local_steps(state.arrays["weight"], names[name], steps, rate, mu)}, len(names[name][1])
            )
            for name in chosen
        }
        state = strategy.aggregate(state, results)
        measured[number] = measure(state.arrays["weight"], users)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--per-round", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="a file of LEAF's Synthetic, instead of drawn users")
    options = parser.parse_args()
    if options.json:
        read = read_leaf(options.json).values()
        sources = {options.json: [(np.asarray(one.x, float), np.asarray(one.y, np.int64)) for one in read]}
    else:
        sources = {
            f"Synthetic({alpha:g}, {beta:g})": synthetic(alpha, beta, options.users, seed=options.seed)
            for alpha, beta in ((0, 0), (0.5, 0.5), (1, 1))
        }
    print(f"{'data':<22}{'rule':<10}" + "".join(f"{f'round {n}':>18}" for n in shown(options.rounds)))
    for name, users in sources.items():
        classes = int(max(y.max() for _, y in users)) + 1
        for title, strategy in (("FedAvg", AggregationStrategy()), ("FedProx", FedProx(1.0))):
            per_round = min(options.per_round, len(users))
            found = train(strategy, users, options.rounds, per_round=per_round, classes=classes, seed=options.seed)
            cells = "".join(f"{f'{found[n][0]:.3f} / {found[n][1]:.1%}':>18}" for n in shown(options.rounds))
            print(f"{name:<22}{title:<10}{cells}", flush=True)


def shown(rounds: int) -> list[int]:
    """Rounds of the table's columns: loss / accuracy over all users' rows."""
    return sorted({number for number in (1, 5, 20, 100, rounds) if number <= rounds})


if __name__ == "__main__":
    main()
