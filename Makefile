# `make demo` and `make test` need Python 3.11 or later, make, and a package registry.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3.14 python3,$(shell command -v $(p) 2>/dev/null)))
VENV ?= .venv
BIN := $(VENV)/bin
# Airflow pins much of what it needs: it has an environment of its own.
AIRFLOW_VENV ?= .venv-airflow
AIRFLOW_BIN := $(AIRFLOW_VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-airflow test-airflow-ha conformance lint types contracts check format soak bench bench-broker bench-cluster clean

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(BIN)/python $(AIRFLOW_BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "kbroker needs Python 3.11 or later; set PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -m venv $(@D:/bin=) || { rm -rf $(@D:/bin=); exit 2; }

# What is installed for the demo alone; everything for development is more.
$(VENV)/.local: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[local]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.local

# uv takes a fifth of pip's time. Bytecode, because every task is a process that imports Airflow.
# The check proves that kbroker fits beside Airflow's own executors.
$(AIRFLOW_VENV)/.airflow: pyproject.toml tests/airflow/requirements.txt | $(AIRFLOW_BIN)/python
	$(AIRFLOW_BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(AIRFLOW_BIN)/python -m uv pip install --quiet --compile-bytecode --python $(AIRFLOW_BIN)/python \
		-e '.[local,airflow]' -r tests/airflow/requirements.txt
	$(AIRFLOW_BIN)/python -m pip check --disable-pip-version-check
	@touch $@

venv: $(VENV)/.dev ## Create the virtual environment with all that development needs

demo: $(VENV)/.local ## Run about fifty real tasks through the whole of kbroker
	@$(BIN)/kbroker demo

# Most tests wait for processes: four workers keep two cores busy. They take the files in the order
# that tests/conftest.py gives.
test: $(VENV)/.dev ## Run the tests
	env -u KUBECONFIG $(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder

test-airflow: $(AIRFLOW_VENV)/.airflow ## Run tasks with a real Airflow
	$(AIRFLOW_BIN)/python -m pytest -q -c tests/airflow/pytest.ini tests/airflow

test-airflow-ha: $(AIRFLOW_VENV)/.airflow ## The same with two schedulers; needs a PostgreSQL server
	$(AIRFLOW_BIN)/python -m pip install --quiet --disable-pip-version-check psycopg2-binary asyncpg
	$(AIRFLOW_BIN)/python -m pytest -q -c tests/airflow/pytest.ini tests/airflow_ha

conformance: $(VENV)/.dev ## Prove what kbroker needs of a cluster: the local one, or KUBECONFIG=/path
	$(BIN)/python -m pytest -q tests/conformance

lint: $(VENV)/.dev ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev ## Apply the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev ## Check types
	$(BIN)/mypy

contracts: $(VENV)/.dev ## Check who imports whom
	$(BIN)/lint-imports

soak: $(VENV)/.dev ## Break everything for five minutes and count what was lost or run twice
	$(BIN)/kbroker soak --duration 300 --tasks 1000

bench: $(VENV)/.dev ## Measure kbroker against the API server's own limit, in about four minutes
	$(BIN)/kbroker bench

bench-broker: $(VENV)/.dev ## Measure what the broker costs
	$(BIN)/python -m tests.benchmarks.broker

bench-cluster: $(VENV)/.dev ## Measure what the local cluster can take
	$(BIN)/python -m tests.benchmarks.cluster

check: lint types contracts test ## All of the above

clean: ## Remove what was made
	rm -rf $(VENV) $(AIRFLOW_VENV) .kbroker .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
