# The scripts CI runs are the scripts people run. Every target makes .venv and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo demo-real test test-exhaustive test-gguf test-vllm test-ray test-real fuzz lint types dist wheel docs oldest bench train score check

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	# torch first: the pinned version has a CPU build, a bare "torch" may bring gigabytes of CUDA packages.
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: .venv/.installed  ## two small models answer together
	$(BIN)/cosd demo

demo-real: .venv/.installed  ## SmolLM2-135M and an adapter of it; downloads 93 MB once
	$(BIN)/python -m examples.real_pair.demo --html build/demo-real.html

test: .venv/.installed  ## the suite but for most cases of its grids; the browser test needs Chromium, the GPU tests CUDA
	$(BIN)/pytest -n auto --dist loadfile -m "not exhaustive"

test-exhaustive: .venv/.installed  ## the cases that make test leaves out
	$(BIN)/pytest -n auto --dist loadfile -m exhaustive

.venv/.gguf: .venv/.installed
	# llama-cpp-python comes as source: its build takes about ten minutes, once per machine, for pip keeps it.
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[gguf]"
	touch $@

test-gguf: .venv/.gguf  ## the tests of GGUF files, which are skipped where llama-cpp-python is not installed
	$(BIN)/pytest tests/test_gguf.py tests/test_gguf_loading.py

.venv-vllm/.installed: scripts/vllm_environment.sh
	PYTHON=$(PYTHON) scripts/vllm_environment.sh .venv-vllm
	touch $@

test-vllm: .venv-vllm/.installed  ## the vLLM plugin; brings vLLM for processors, 3.4 GB, into .venv-vllm
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest tests/vllm

.venv/.ray: .venv/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[ray]"
	touch $@

test-ray: .venv/.ray  ## replicas on Ray Serve, and cosd batch; some minutes
	$(BIN)/pytest tests/ray

test-real: .venv/.installed  ## SmolLM2-135M by transformers, and by llama.cpp where that is installed; downloads 93 MB once
	$(BIN)/python -m examples.real_pair.smollm2
	$(BIN)/pytest -n 2 --dist loadfile tests/real

fuzz: .venv/.installed  ## other arbitrary inputs each time, about 3 minutes
	COSD_FUZZ_EXAMPLES=500 $(BIN)/pytest tests/fuzz

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed  ## strict types of the packages, and of a program that uses them
	$(BIN)/mypy
	$(BIN)/mypy --strict --follow-imports silent --config-file "" tests/typing/user_program.py

dist: .venv/.installed  ## sdists and wheels of cosd, langchain-cosd and llama-index-llms-cosd, in dist/
	PYTHON=$(BIN)/python scripts/build_dist.sh

wheel: dist  ## use the built distributions in a clean environment
	PYTHON=$(BIN)/python scripts/check_wheel.sh

.venv/.docs: .venv/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

docs: .venv/.docs  ## the documentation site, in build/site, with its links checked; needs no network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python scripts/site/check.py build/site

oldest: .venv/.installed  ## the core's tests with the oldest transformers that is admitted
	PYTHON=$(BIN)/python scripts/check_oldest.sh

bench: .venv/.installed  ## what fusing costs, as ratios to transformers' generate
	$(BIN)/cosd bench

train: .venv/.installed  ## train the bundled pair again
	$(BIN)/python -m examples.bundled_pairs.train

score: .venv/.installed  ## the accuracy table of the bundled pair
	$(BIN)/python -m examples.bundled_pairs.score

check: test test-exhaustive lint types docs wheel oldest
