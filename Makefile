# make app   everything, from nothing to a running app with a demo library
# make test  everything, from nothing to all tests passed (the browser ones too)
# make check format, lint, strict types, import contracts
# make audit known vulnerabilities of the pinned libraries; asks pypi.org, so it needs the internet
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKSPACE ?= workspace
PORT ?= 7860
# Test files run side by side; the browser's tests are patient with the neighbour.
WORKERS ?= 2

.PHONY: app test test-long check audit install browser consumers

$(VENV)/.app-installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt -e .
	touch $@

$(VENV)/.dev-installed: $(VENV)/.app-installed
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt -e '.[dev]'
	touch $@

install: $(VENV)/.dev-installed

app: $(VENV)/.app-installed
	$(BIN)/python -m feedback_app serve --workspace $(WORKSPACE) --demo --port $(PORT)

browser: $(VENV)/.dev-installed
	$(BIN)/python tests/browser/install_chromium.py

test: browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long" -n $(WORKERS) --dist loadfile

# Environments of libraries whose pins conflict with ours: see tests/consumers/.
consumers: $(VENV)/.dev-installed
	$(BIN)/python tests/consumers/environments.py

test-long: browser consumers
	$(BIN)/python -m pytest -m long

check: $(VENV)/.dev-installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Its own environment: its libraries are none of ours. --strict: a library that could not be looked
# up (no way to pypi.org, or a mirror without its JSON pages) is a failure, never a pass.
audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet pip-audit==2.10.1
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt \
	  || { echo "make audit: vulnerable, or not all could be looked up (see above)" >&2; exit 1; }
