#!/usr/bin/env bash
# Flower: FedAvgM mixes up tensors when clients answer them in another order, though each has its name.
#
# Versions: flwr 1.42.0.
# Guess:    ArrayRecord is a mapping from names to arrays, so that the order in which a client fills it does not matter;
#           for FedAvg it does not.
# Seen:     FedAvgM subtracts the lists of values by position. With equal shapes nothing fails, and "a" moves from where
#           "b" was.
# Output:   fedavg a=1 b=11
#           fedavgm, same order a=0.5 b=10.5
#           fedavgm, other order a=5.5 b=5.5
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check flwr==1.42.0
"$folder/venv/bin/python" -W ignore - <<'PY'
import logging

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedAvgM
from flwr.supercore.task_identity import TaskIdentity

logging.getLogger("flwr").setLevel(logging.ERROR)
TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1


def record(**values):
    return ArrayRecord({name: Array(np.array([value])) for name, value in values.items()})


def reply(node, arrays):
    question = Message(content=RecordDict(), dst_node_id=node, message_type="train")
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
    return Message(content=content, reply_to=question)


def run(rule, **answer):
    """One round from a=0, b=10."""
    rule.current_arrays = record(a=0.0, b=10.0)
    arrays, _ = rule.aggregate_train(1, [reply(1, record(**answer)), reply(2, record(**answer))])
    return " ".join(f"{name}={arrays[name].numpy()[0]:g}" for name in ("a", "b"))


seen = {
    "fedavg": run(FedAvg(), b=11.0, a=1.0),
    "fedavgm, same order": run(FedAvgM(server_learning_rate=0.5), a=1.0, b=11.0),
    "fedavgm, other order": run(FedAvgM(server_learning_rate=0.5), b=11.0, a=1.0),
}
for name, value in seen.items():
    print(name, value)
assert list(seen.values()) == ["a=1 b=11", "a=0.5 b=10.5", "a=5.5 b=5.5"], seen
PY
