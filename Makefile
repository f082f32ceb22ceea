# Two commands: `make figures` draws every figure of the paper and a few more, `make test` runs the test suite
# (`make test-all` also what takes longer).
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: figures test test-thorough test-all lint types clean

figures: $(STAMP)
	$(BIN)/tts-jax figures $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadscope

test-thorough: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadscope -m "thorough and not slow and not gpu"

test-all: test test-thorough

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or later is needed, but $(PYTHON) is $$($(PYTHON) --version)." >&2; \
		echo "Name another one: make PYTHON=python3.12 figures" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV)
