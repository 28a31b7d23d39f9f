# The commands of this repository. Everything runs in .venv, made from pyproject.toml with the
# versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# xdist workers for the tests; training is not faster with more than the cores there are.
WORKERS ?= 2
SCHEMA := $(BIN)/check-jsonschema --quiet --builtin-schema

.PHONY: help demo test test-all lint bench bench-gate bench-replay bench-report bench-slices bench-diagnosis bench-faults bench-policy coverage clean
.DEFAULT_GOAL := help

help: ## list these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(INSTALLED) ## run the loop on examples/quickstart, from nothing, with the embedded base model
	$(BIN)/pytest --ftloop --ftloop-iterations 4 --ftloop-log .demo/improvement_log examples/quickstart

test: $(INSTALLED) ## the tests, without the slow ones
	$(BIN)/pytest -n $(WORKERS) -m "not slow"

test-all: $(INSTALLED) ## the tests, with the slow ones
	$(BIN)/pytest -n $(WORKERS)

lint: $(INSTALLED) ## ruff and mypy; of workflows their schemas and their security
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(SCHEMA) vendor.github-workflows .github/workflows/*.yml examples/github/*.yml
	$(SCHEMA) vendor.github-actions .github/actions/*/action.yml
	$(SCHEMA) vendor.gitlab-ci --data-transform gitlab-ci examples/gitlab/.gitlab-ci.yml
	$(BIN)/zizmor --offline --quiet .github examples/github

bench: $(INSTALLED) ## timings side by side: evaluation, four iterations, a plain pytest run
	$(BIN)/python benchmarks/bench.py

bench-gate: $(INSTALLED) ## the gate's false alarms and power, by simulation (two minutes)
	$(BIN)/python benchmarks/gate.py

bench-report: $(INSTALLED) ## size and opening time of the HTML report (needs Chromium)
	$(BIN)/python benchmarks/report.py

bench-replay: $(INSTALLED) ## replay, gate and diff of 200 iterations with 2,000 examples
	$(BIN)/python benchmarks/replay.py

bench-slices: $(INSTALLED) ## planted faults that the diagnosis names, by real trainings (half an hour)
	$(BIN)/python benchmarks/slices.py

bench-diagnosis: $(INSTALLED) ## how long the diagnosis of ten iterations with 5,000 examples takes
	$(BIN)/python benchmarks/diagnosis.py

bench-faults: $(INSTALLED) ## each kind of fault planted and found, by real trainings (half an hour)
	$(BIN)/python benchmarks/faults.py

bench-policy: $(INSTALLED) ## whether adjusting pays, against random search and others, by real trainings (hours; CSV=FILE: banking77 too)
	$(BIN)/python benchmarks/policy.py $(if $(CSV),--csv $(CSV))

coverage: $(INSTALLED) ## line coverage (the plugin is loaded before a pytest plugin could start it)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not slow"
	$(BIN)/coverage combine
	$(BIN)/coverage report --skip-covered

clean: ## remove the environment and what the commands left
	rm -rf .venv .demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
