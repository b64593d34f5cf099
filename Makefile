# `make demo` and `make test` need Python 3.11 or newer and nothing else.
PYTHON ?= python3
# CIFAR-10: from the environment, else from a data folder beside the project, else downloaded.
CBIR_DATA ?= $(wildcard $(abspath ../shared/data))
ifneq ($(CBIR_DATA),)
export CBIR_DATA
endif
WORKERS ?= auto
# Where the demo's index goes; for elasticsearch (needs Java 17 and Maven) a server is started.
ENGINE ?= embedded
# Of the demo's page; `make demo PORT=5055` if 5000 is in use.
PORT ?=
DEMO_OPTIONS = $(if $(PORT),--port $(PORT))
DEMO_embedded = .venv/bin/cbir demo $(DEMO_OPTIONS)
DEMO_elasticsearch = .venv/bin/python -m tools.elasticsearch_server --keep demo --port 9200 \
	.venv/bin/cbir demo $(DEMO_OPTIONS) --into {url}
PIP = bin/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-core lint types layers check bench lock clean

demo: .venv/.demo  ## Get CIFAR-10, index it, evaluate a sample, serve the page
	$(DEMO_$(ENGINE))

test: .venv/.test  ## Every extra, the whole suite
	.venv/bin/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

test-core: .venv-core/.test-core  ## The suite without torch and Elasticsearch
	.venv-core/bin/python -m pytest -n $(WORKERS) -m "not training and not reference and not elasticsearch" $(PYTEST_ARGS)

check: lint types layers

lint: .venv/.test
	.venv/bin/ruff check . && .venv/bin/ruff format --check .

types: .venv/.test
	.venv/bin/mypy

layers: .venv/.test
	.venv/bin/lint-imports

bench: .venv/.test  ## Print the figures that the README quotes
	.venv/bin/python -m benchmarks

.venv/.demo: requirements/demo.txt pyproject.toml | .venv/bin/python
	@echo "installing cbir"
	.venv/$(PIP) install --require-hashes -r requirements/demo.txt
	.venv/$(PIP) install --no-deps -e .
	touch $@

.venv/.test: requirements/test.txt pyproject.toml | .venv/bin/python
	@echo "installing cbir with every extra and the test tools: 7 GB on Linux, 5 GB of it PyTorch with CUDA"
	@echo "(CONTRIBUTING.md: how to use PyTorch's CPU build; make test-core needs no PyTorch)"
	.venv/$(PIP) install --require-hashes -r requirements/test.txt
	.venv/$(PIP) install --no-deps -e .
	touch $@ .venv/.demo

.venv-core/.test-core: requirements/test-core.txt pyproject.toml | .venv-core/bin/python
	@echo "installing cbir without torch, and the test tools"
	.venv-core/$(PIP) install --require-hashes -r requirements/test-core.txt
	.venv-core/$(PIP) install --no-deps -e .
	touch $@

%/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "cbir needs Python 3.11 or newer; say which: make PYTHON=python3.12 demo"; exit 1; }
	$(PYTHON) -m venv $*

lock:  ## Renew the pinned versions (needs uv)
	for set in "core" "demo --extra photos --extra digits --extra elasticsearch" "test --extra all --group dev --group reference" \
	  "test-core --extra hub --extra evaluation --extra digits --extra bovw --extra elasticsearch --extra watch --group dev"; do \
	  set -- $$set; name=$$1; shift; \
	  uv pip compile pyproject.toml "$$@" --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-annotate --upgrade -q -o requirements/$$name.txt || exit 1; \
	done

clean:
	rm -rf .venv .venv-core
