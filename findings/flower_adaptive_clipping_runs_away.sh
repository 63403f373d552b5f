#!/usr/bin/env bash
# Flower: the norm of adaptive clipping moves away from the clients' norms and not towards their median.
#
# Versions: flwr 1.42.0.
# Guess:    DifferentialPrivacyServerSideAdaptiveClipping with target_clipped_quantile=0.5 ends near the median norm of
#           the clients' updates (Andrew et al., 2021): of updates of norm 1 near 1, from below and from above.
# Seen:     the paper's rule lowers the norm where too many updates are NOT clipped; here those that are clipped are
#           counted, with the same sign. From 0.1 the norm goes to 0, from 10 to infinity.
# Output:   from 0.1: 0.0905 0.0819 0.0741
#           from 10: 11.0517 12.2140 13.4986
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check flwr==1.42.0
"$folder/venv/bin/python" -W ignore - <<'PY'
import logging

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideAdaptiveClipping, FedAvg
from flwr.supercore.task_identity import TaskIdentity

logging.getLogger("flwr").setLevel(logging.ERROR)
TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1


def reply(node):
    """A client whose update has norm 1."""
    question = Message(content=RecordDict(), dst_node_id=node, message_type="train")
    arrays, metrics = ArrayRecord({"w": Array(np.ones(1))}), MetricRecord({"num-examples": 1})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=question)


seen = {}
for first in (0.1, 10.0):
    rule = DifferentialPrivacyServerSideAdaptiveClipping(
        FedAvg(), noise_multiplier=0.0, num_sampled_clients=2, initial_clipping_norm=first, clipped_count_stddev=0.0
    )
    norms = []
    for number in (1, 2, 3):
        rule.current_arrays = ArrayRecord({"w": Array(np.zeros(1))})
        rule.aggregate_train(number, [reply(1), reply(2)])
        norms.append(f"{rule.clipping_norm:.4f}")
    seen[first] = " ".join(norms)
    print(f"from {first:g}: {seen[first]}")
assert seen == {0.1: "0.0905 0.0819 0.0741", 10.0: "11.0517 12.2140 13.4986"}, seen
PY
