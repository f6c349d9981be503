#!/usr/bin/env bash
# Run the core's tests with the oldest transformers that the package admits.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

oldest=$(sed -n 's/.*"transformers>=\([0-9.]*\)".*/\1/p' pyproject.toml)
grep --invert-match --extended-regexp '^(transformers|tokenizers|huggingface_hub)==' constraints.txt > "$work/constraints.txt"
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --constraint "$work/constraints.txt" torch
"$work/venv/bin/pip" install --quiet --constraint "$work/constraints.txt" \
  "transformers==$oldest.*" "$root" pytest pytest-asyncio hypothesis
"$work/venv/bin/pip" list 2>/dev/null | grep --extended-regexp '^(transformers|tokenizers|torch) '
"$work/venv/bin/pytest" -q -p no:cacheprovider \
  tests/test_by_eye.py tests/test_demo.py tests/test_greedy_reference.py tests/test_against_generate.py \
  tests/test_translated_by_eye.py tests/test_probe.py
