# The one task runner. `make help` lists the targets; `make check` is what CI runs.
SHELL := bash
.DEFAULT_GOAL := help

BIN := .venv/bin
RUNTIME := .venv/.installed-runtime
DEV := .venv/.installed-dev
LOCKED := pyproject.toml requirements/nodeps.txt deploy/toolchain.sh
COMPILE := uv pip compile --universal --generate-hashes --quiet
TESTS ?=

.PHONY: help setup setup-dev java demo test check fmt lint types bootstrap lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(RUNTIME) ## make .venv with the noctule command (PYTHON=... chooses the interpreter)

setup-dev: $(DEV) ## the same, with what tests and checks need

demo: java setup ## run a simulated night: make demo ARGS="--alerts 2000 --no-browser"
	@$(BIN)/noctule demo $(ARGS)

test: bootstrap java setup-dev ## run the tests: make test TESTS="tests/deploy -k kafka"
	@$(BIN)/python -m deploy.kafka_jars
	@$(BIN)/python -m pytest $(TESTS)

check: bootstrap java lint types test ## formatting, lint, types and tests: what CI runs

fmt: setup-dev ## format the code and apply safe fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: setup-dev ## check formatting and lint
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: setup-dev ## check types (mypy, strict)
	@$(BIN)/mypy

lock: ## renew requirements/*.txt from pyproject.toml (needs uv)
	$(COMPILE) --upgrade --group build pyproject.toml -o requirements/runtime.txt
	$(COMPILE) --upgrade --group build --group dev -c requirements/runtime.txt pyproject.toml -o requirements/dev.txt
	$(COMPILE) --no-deps requirements/nodeps.in -o requirements/nodeps.txt

clean: ## remove .venv and caches (not the state of runs)
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

java:
	@deploy/toolchain.sh java

bootstrap:
	@tests/bootstrap.sh

$(RUNTIME): requirements/runtime.txt $(LOCKED)
	@deploy/toolchain.sh install requirements/runtime.txt
	@touch $@

$(DEV): requirements/dev.txt $(LOCKED) | $(RUNTIME)
	@deploy/toolchain.sh install requirements/dev.txt
	@touch $@
