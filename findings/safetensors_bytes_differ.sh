#!/usr/bin/env bash
# safetensors: the same tensors with the same metadata do not always make the same file.
#
# Versions: safetensors 0.8.0, numpy 2.4.6.
# Guess:    serialisation is deterministic, so files can be compared or cached by their bytes.
# Seen:     with two or more metadata keys their order in the header changes from call to call. With one key, the bytes
#           are the same each time.
# Output:   one metadata key: 1 file; three metadata keys: more than one file
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 safetensors==0.8.0
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
from safetensors.numpy import save

tensors = {"weight": np.arange(4, dtype=np.float32)}
one = {save(tensors, metadata={"format": "np"}) for _ in range(60)}
three = {save(tensors, metadata={"format": "np", "labels": "a", "model": "b"}) for _ in range(60)}
print(f"one metadata key: {len(one)} file; three metadata keys: {len(three)} files in 60 calls")
assert len(one) == 1
assert len(three) > 1
PY
