# Why: two commands must be enough on a fresh machine that has Python, make and a package index.

VENV := .venv
IN_VENV := $(VENV)/bin/python -m
PIP := $(IN_VENV) pip --disable-pip-version-check --no-input install --quiet
CANDIDATES := python3.13 python3.12 python3.11 python3 python
IS_RECENT := 'import sys; sys.exit(sys.version_info < (3, 11))'
USABLE := $(VENV)/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
STALE := $(shell $(USABLE) || echo stale)
FOUND = $(shell for name in $(CANDIDATES); do $$name -c $(IS_RECENT) 2>/dev/null && echo $$name && break; done)
PYTHON = $(or $(FOUND),$(error Tidegate needs Python 3.11 or newer; install it, or name it with make PYTHON=...))
ARGS ?=

.PHONY: help setup run test soak lint check rehearse rehearse-overload bench bench-incident bench-extension clean stale
.DEFAULT_GOAL := help

help:
	@printf '\n  \033[1mTidegate\033[0m\n\n'
	@awk -F ' *## *' '/^[a-z-]+:.*##/ { sub(/:.*/, "", $$1); printf "  \033[36mmake %-18s\033[0m %s\n", $$1, $$2 }' Makefile
	@printf '\n  Options go into ARGS: make run ARGS="--port 8080 --no-demo"\n\n'

setup: $(VENV)/.run ## install what Tidegate runs on, and nothing else
	@echo 'Tidegate is installed in $(VENV); make run starts it.'

run: $(VENV)/.run ## run everything here: store, API, worker, scheduler, and a campaign to try
	@$(IN_VENV) service.cli up $(ARGS)

test: $(VENV)/.dev ## run the tests
	@$(IN_VENV) pytest $(ARGS)

soak: $(VENV)/.dev ## live many more lives of the store and the breaker: ARGS adds pytest options
	@TIDEGATE_SOAK_EXAMPLES=5000 $(IN_VENV) pytest -rP tests/store/test_model.py tests/store/test_a_million_steps.py \
		tests/gate/test_breaker_simulation.py $(ARGS)

lint: $(VENV)/.dev ## format, lint, types, import contracts, Prometheus rules, settings table
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(IN_VENV) service.cli settings --check README.md
	@if command -v promtool >/dev/null; then \
		cd deploy/prometheus && promtool check rules rules.yml && promtool test rules rules_test.yml; \
	else echo 'promtool is not on the PATH: the Prometheus rules are not checked'; fi

check: lint test ## lint and test: all that must hold before a change lands

rehearse: $(VENV)/.dev ## replay the incident: ARGS="--hours 9 --into 60s --orders 20000"
	@$(IN_VENV) loadtest.rehearse $(ARGS)

rehearse-overload: $(VENV)/.dev ## overload it on purpose, and hold every bound: ARGS="--full", "--only storm hung"
	@$(IN_VENV) loadtest.overload $(ARGS)

bench: $(VENV)/.dev ## measure against the baselines
	@$(IN_VENV) loadtest.bench $(ARGS)

bench-incident: $(VENV)/.dev ## issue the incident's 10 million coupons over HTTP
	@$(IN_VENV) loadtest.bench.incident $(ARGS)

bench-extension: $(VENV)/.dev ## extend a million coupons: effect, speed, and what redemption notices
	@$(IN_VENV) loadtest.bench.extension $(ARGS)

clean: ## remove what was installed and cached; data in .tidegate stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist *.egg-info

# The stamps are written last, so that an interrupted installation starts over; so does one whose Python has gone.
$(VENV)/.run: requirements/run.txt pyproject.toml $(STALE)
	@echo 'Installing Tidegate into $(VENV); the first time takes a minute.'
	@rm -f $(VENV)/.run $(VENV)/.dev
	@$(USABLE) || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) --require-hashes --requirement requirements/run.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo 'Installing what tests and checks need.'
	@$(PIP) --require-hashes --requirement requirements/dev.txt
	@touch $@
