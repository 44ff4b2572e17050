# make demo: documents in, a better policy out, offline, in minutes.   make test: everything checked.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_HOME ?= .demo

RECIPE ?=
PROOF_HOME ?= .proof

.PHONY: docs settings help env demo proof test check unit integration acceptance browser clean

help:
	@echo "make demo        sample, judge, pair and train on a small dataset, offline; RECIPE=sppo, longpo, janus, rubric"
	@echo "make proof       what each method gains beside SFT and a control, offline; RECIPE=longreward, sppo, longpo"
	@echo "make test        environment, style, types, layers, unit and integration tests"
	@echo "make acceptance  the longer tests: whole runs with kills at every stage"
	@echo "make browser     the viewer's pages in Chromium, where it is installed"
	@echo "make docs        the documentation as a site, its links checked"
	@echo "make settings    write docs/settings.md again, after a setting was changed"
	@echo "make clean       remove the environment and what the demo made"

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[all,dev]'
	@touch $@

demo: env
	$(BIN)/python examples/demo.py --home $(DEMO_HOME) $(addprefix --recipe ,$(RECIPE))

proof: env
	$(BIN)/python examples/proof.py --home $(PROOF_HOME) $(addprefix --recipe ,$(RECIPE))

test: env
	$(MAKE) -j2 check unit
	$(MAKE) integration

unit: env
	$(BIN)/pytest tests/unit

integration: env
	$(BIN)/pytest -n 2 --dist loadfile -m 'not slow' tests/integration

settings: env
	$(BIN)/lrq settings --markdown > docs/settings.md

docs: env
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(BIN)/mkdocs build --quiet

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

acceptance: env
	$(BIN)/pytest -n 2 tests/acceptance
	$(BIN)/pytest -n 2 --dist loadfile -m slow tests/integration

browser: env
	$(BIN)/pytest tests/browser

clean:
	rm -rf $(VENV) $(DEMO_HOME) $(PROOF_HOME) build dist *.egg-info
