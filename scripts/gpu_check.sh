#!/usr/bin/env bash
# Everything that needs a CUDA device, in one call: the GPU tests, then the GPU benchmark.
# Needs an environment with a CUDA build of torch; on a machine without this project installed, run from its root.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD
python -m pytest -m gpu -p no:cacheprovider tests
python -m benchmarks.gpu "$@"
