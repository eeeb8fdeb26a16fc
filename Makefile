# make demo, make test, make lint, make bench: each sets up what it needs in .venv and in a cache outside the checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench clean

help:
	@echo "make demo    real ticks through Kafka, Flink, PostgreSQL and an S3 lake on this machine, checked at the end"
	@echo "make test    all tests, on real servers"
	@echo "make lint    ruff, mypy, and whether the templates are up to date"
	@echo "make bench   the numbers of BENCHMARKS.md"
	@echo "make clean   removes what was built in the checkout"

setup: $(READY)

$(READY): setup.py infra/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "error: Python 3.11 or newer is needed: install it, or name it with make PYTHON=..."; exit 2; }
	@echo "setting up $(VENV) (2-4 minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c infra/constraints.txt -e '.[stack,dev]'
	@touch $@

demo: $(READY)
	@$(BIN)/python -m beam_pipelines.demo $(DEMO)

# Two processes, each with servers of its own: tests mostly wait.  By name: by number, files of few long tests come last.
test: $(READY)
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

PACKAGES := .packages/beam_pipelines
lint: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet .
	@rm -rf $(PACKAGES) && mkdir -p $(PACKAGES)
	@ln -s $(CURDIR)/beam_pipelines/* $(CURDIR)/transforms $(CURDIR)/io $(CURDIR)/runners $(CURDIR)/sql $(CURDIR)/infra $(PACKAGES)/
	@$(BIN)/mypy
	@$(BIN)/python -m beam_pipelines.launching.generate --check

format: $(READY)
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

BENCH_READY := $(VENV)/.ready-bench
$(BENCH_READY): $(READY)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c infra/constraints.txt -e '.[bench]'
	@touch $@

# About 40 minutes; BENCH="--repetitions=1 --ticks=1000000" for a first look.
bench: $(BENCH_READY)
	@$(BIN)/python -m tests.bench.kernel
	@$(BIN)/python -m tests.bench.state
	@$(BIN)/python -m tests.bench.news
	@$(BIN)/python -m tests.bench.peers $(BENCH)
	@$(BIN)/python -m tests.bench.stream --outputs=all $(BENCH)

clean:
	rm -rf $(VENV) .packages .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
