# make fit and make test do all the set-up on a fresh machine with Python 3.11 or 3.12.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3,$(shell command -v $(name) 2>/dev/null)))
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests side by side, one process a core and four at most; make test TOGETHER= runs them one after the other.
TOGETHER ?= --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: fit test test-all lint format install benchmark clean

fit: $(STAMP)
	$(BIN)/python scripts/fit.py --domain translation

# Tests side by side share the cores, where small recurrent steps are up to hundreds of times slower with more threads.
test test-all: export OMP_NUM_THREADS ?= 1

test: lint
	$(BIN)/python -m pytest $(TOGETHER) -m "not slow and not gpu"

test-all: lint
	$(BIN)/python -m pytest $(TOGETHER)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(STAMP)
	$(BIN)/python scripts/benchmark.py --domain translation

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
