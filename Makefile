# The commands of this repository. Everything runs in .venv, made from pyproject.toml with the
# versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt
# Two stages of .venv, each with a stamp: what trains, and with it all that the developer needs.
TRAINS := .venv/.installed-train
INSTALLED := .venv/.installed
# xdist workers for the tests; training is not faster with more than the cores there are.
WORKERS ?= 2
# How long make fuzz explores; SECONDS=N goes before it.
MINUTES ?= 5
SCHEMA := $(BIN)/check-jsonschema --quiet --builtin-schema

.PHONY: help demo test test-all fuzz torture lint bench bench-gate bench-replay bench-report bench-slices bench-diagnosis bench-faults bench-refute bench-policy bench-parallel bench-architectures coverage clean
.DEFAULT_GOAL := help

help: ## list these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(TRAINS) .demo/sentiment.ftloop.yaml ## run the loop on a copy of examples/quickstart, from nothing, with the embedded base model
	@echo "== the loop, in .demo: pytest --ftloop --ftloop-iterations 4"
	@cd .demo && { ../$(BIN)/pytest --ftloop --ftloop-iterations 4; code=$$?; }; \
	echo "== the commands above work in .demo, a git repository of its own:"; \
	echo "   cd .demo && . ../.venv/bin/activate"; \
	exit $$code

# A copy to play with: made once, then yours. Its own git repository can have the log, since this
# one ignores .demo; its own pytest.ini keeps this project's settings out.
.demo/sentiment.ftloop.yaml:
	@echo "== a copy of examples/quickstart in .demo (make clean removes it)"
	@mkdir -p .demo
	@cp -R examples/quickstart/data examples/quickstart/sentiment.ftloop.yaml .demo
	@touch .demo/pytest.ini
	@git init -q .demo

test: $(INSTALLED) ## the tests, without the slow ones
	$(BIN)/pytest -n $(WORKERS) -m "not slow"

test-all: $(INSTALLED) ## the tests, with the slow ones
	$(BIN)/pytest -n $(WORKERS)

fuzz: $(INSTALLED) ## the property tests with fresh seeds, for MINUTES=5 or SECONDS=N; SEED=N: one round
	$(BIN)/python tests/fuzz.py --workers $(WORKERS) $(if $(SEED),--seed $(SEED),$(if $(SECONDS),--seconds $(SECONDS),--minutes $(MINUTES)))

torture: $(INSTALLED) ## kills, mutated files, hostile texts, full disks, for SECONDS=1500; SEED=N as before
	$(BIN)/python -m tests.torture --workers $(WORKERS) $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS))

lint: $(INSTALLED) ## committed files, ruff, mypy, the rooms' imports; workflows by schema and for security
	$(BIN)/python .ci/committed_files.py
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(SCHEMA) vendor.github-workflows .github/workflows/*.yml examples/github/*.yml
	$(SCHEMA) vendor.github-actions .github/actions/*/action.yml
	$(SCHEMA) vendor.gitlab-ci --data-transform gitlab-ci examples/gitlab/.gitlab-ci.yml
	$(BIN)/zizmor --offline --quiet .github examples/github

bench: $(INSTALLED) ## timings side by side: evaluation, four trainings, a plain pytest run, an up-to-date loop
	$(BIN)/python benchmarks/bench.py

bench-gate: $(INSTALLED) ## the gate's false alarms and power, by simulation (three minutes)
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

bench-refute: $(INSTALLED) ## whether what came later refutes a finding, replayed over logs (five minutes)
	$(BIN)/python benchmarks/refute.py $(if $(KEPT),--kept $(KEPT)) $(if $(STATES),--states $(STATES))

bench-policy: $(INSTALLED) ## whether adjusting pays, against random search and others, by real trainings (hours; CSV=FILE: banking77 too)
	$(BIN)/python benchmarks/policy.py $(if $(CSV),--csv $(CSV))

bench-parallel: $(INSTALLED) ## seeds, a list and two loops by two processes against in turn (twenty minutes)
	$(BIN)/python benchmarks/parallel.py

bench-architectures: $(INSTALLED) ## each architecture, form of data and scorer beside plain scripts (fifteen minutes)
	$(BIN)/python benchmarks/architectures.py

coverage: $(INSTALLED) ## line coverage (the plugin is loaded before a pytest plugin could start it)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not slow"
	$(BIN)/coverage combine
	$(BIN)/coverage report --skip-covered

clean: ## remove the environment and what the commands left
	rm -rf .venv .demo build dist .*_cache .hypothesis .coverage*

$(BIN)/python:
	@echo "== a Python environment in .venv, with $(PYTHON)"
	$(PYTHON) -m venv .venv

$(TRAINS): pyproject.toml constraints.txt | $(BIN)/python
	@echo "== the packages that train: pip downloads 0.3 GB, or several times as much where it takes torch with CUDA"
	$(PIP) -e ".[train]"
	touch $@

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "== the developer's packages: pip downloads 0.15 GB beside those that train, which make demo names"
	$(PIP) -e ".[dev]"
	touch $(TRAINS) $@
