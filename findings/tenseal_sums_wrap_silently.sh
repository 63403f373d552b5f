#!/usr/bin/env bash
# TenSEAL: a sum that leaves the range of its parameters changes its sign, without an error.
#
# Versions: tenseal 0.3.18, Python 3.11.
# Guess:    a vector whose numbers are too large is refused ("encoded values are too large"), so a sum that becomes too
#           large raises an error too, or decrypts to noise that one can see.
# Seen:     two ciphertexts of 4000 give 8000; a third gives -4384 (12000 less twice 8192), as exact as any other number.
# Output:   encrypt 5000: refused
#           4000 + 4000: 8000
#           4000 + 4000 + 4000: -4384
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 tenseal==0.3.18
"$folder/venv/bin/python" - <<'PY'
import tenseal as ts

context = ts.context(ts.SCHEME_TYPE.CKKS, poly_modulus_degree=4096, coeff_mod_bit_sizes=[54, 54])
context.global_scale = 2**40
try:
    ts.ckks_vector(context, [5000.0])
    refused = False
except ValueError as error:
    refused = "too large" in str(error)
print(f"encrypt 5000: {'refused' if refused else 'taken'}")
one = ts.ckks_vector(context, [4000.0])
sums = [round((one + one).decrypt()[0]), round((one + one + one).decrypt()[0])]
print(f"4000 + 4000: {sums[0]}\n4000 + 4000 + 4000: {sums[1]}")
assert refused and sums == [8000, -4384], (refused, sums)
PY
