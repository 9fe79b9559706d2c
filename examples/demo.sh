#!/usr/bin/env bash
# From nothing to barriers with error bars: every line is a public command and works on your files.
# Usage: examples/demo.sh FOLDER
set -euo pipefail
out=${1:-runs/demo}
here=$(cd "$(dirname "$0")" && pwd)
if [ -e "$out" ]; then
  echo "$out is there already; remove it or name another folder" >&2
  exit 1
fi
mkdir -p "$out"
run() { printf '\n$ %s\n' "$*"; "$@"; }

# 1. Structures: capped amino acids and a radical that takes a hydrogen from them.
run surefoot hat sample --donors GLY,ALA,VAL,SER,ASN,PRO,ILE,ASP --count 440 --seed 1 \
  -o "$out/train_structures.xyz"
run surefoot hat scan --donors LEU,THR,GLN --paths 60 --seed 3 -o "$out/test_structures.xyz"

# 2. Labels from GFN2-xTB; charge and spin are checked against the electrons.
run surefoot label "$out/train_structures.xyz" -o "$out/train.xyz"
run surefoot label "$out/test_structures.xyz" -o "$out/test.xyz"

# 3. Would training be wrong? Labels, units, signs, distances, duplicates, spin.
run surefoot check "$out/train.xyz" --test "$out/test.xyz"

# 4. An ensemble of small MACE models, calibrated on donors its members have not seen.
run surefoot train "$here/demo.yaml" --set data.train="[$out/train.xyz]" -o "$out/model"

# 5. Donors nobody trained on: errors, and whether the error bars hold.
run surefoot evaluate "$out/model/potential.safetensors" "$out/test.xyz" -o "$out/evaluation.json"

# 6. Predictions with error bars, and the barriers of all paths.
run surefoot predict "$out/model/potential.safetensors" "$out/test.xyz" --members \
  -o "$out/predictions.xyz"
run surefoot barrier "$out/model/potential.safetensors" "$out/test.xyz" -o "$out/barriers"
