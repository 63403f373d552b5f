#!/usr/bin/env bash
# torchcodec: since 0.14.0 the wheel that PyPI serves for Linux x86-64 is linked against CUDA's libraries, and says so
# nowhere in its metadata.
#
# Versions: torchcodec 0.13.0 and 0.14.0, manylinux x86-64 wheels for Python 3.11.
# Guess:    `pip install torchcodec` beside a CPU build of torch gives a CPU decoder, as it did up to 0.13.0.
# Seen:     0.14.0's libtorchcodec_core*.so need libnvrtc.so.13, libcudart.so.13 and libtorch_cuda.so. The wheel requires
#           no package at all, so pip installs it without a word and `import torchcodec` raises (RuntimeError: Could not
#           load libtorchcodec). 0.13.0 needs none of them.
# Output:   0.13.0 requires [] needs []
#           0.14.0 requires [] needs ['libcudart.so.13', 'libnvrtc.so.13', 'libtorch_cuda.so']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 0.13.0 0.14.0; do
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$folder" \
        --python-version 3.11 --implementation cp --platform manylinux_2_28_x86_64 "torchcodec==$version"
done
python3 - "$folder" <<'PY'
import re
import sys
import zipfile
from pathlib import Path

seen = {}
for path in sorted(Path(sys.argv[1]).glob("*.whl")):
    version = path.name.split("-")[1]
    needs, requires = set(), []
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            if re.search(r"libtorchcodec_core\d\.so$", name):  # one for each major version of FFmpeg
                needs |= set(re.findall(rb"lib(?:nvrtc|cudart|torch_cuda)\.so(?:\.13)?", wheel.read(name)))
            if name.endswith(".dist-info/METADATA"):
                lines = wheel.read(name).decode().splitlines()
                requires = [line for line in lines if line.startswith("Requires-Dist") and "extra ==" not in line]
    seen[version] = (requires, sorted(need.decode() for need in needs))
    print(version, "requires", *seen[version][:1], "needs", seen[version][1])
assert seen["0.13.0"] == ([], []), seen
assert seen["0.14.0"] == ([], ["libcudart.so.13", "libnvrtc.so.13", "libtorch_cuda.so"]), seen
PY
