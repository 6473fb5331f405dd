# `make help` lists the targets.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Not --quiet, which hides warnings from --strict; without Material's notice about MkDocs 2, which this does not use.
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.DEFAULT_GOAL := help
.PHONY: help install train test fuzz mutants check audit format docs tensorboard notebooks clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(STAMP) ## make .venv with the locked packages; TORCH=cpu leaves out 3 GB for GPUs

# By uv, where it is installed; it also finds or downloads a Python. Else by the first of these that can make a .venv.
UV := $(shell command -v uv 2>&-)
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11
RANGE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
runs = $(shell $(1) -c '$(RANGE)' 2>&- && $(1) -c '$(2)' 2>&- && echo yes)
first = $(firstword $(foreach name,$(PYTHONS),$(if $(call runs,$(name),$(1)),$(name))))
PYTHON ?= $(or $(call first,import ensurepip),$(call first))

define NEEDS
$(if $(filter cpu,$(TORCH)),$(error TORCH=cpu: needs uv, which knows where PyTorch keeps its CPU builds: pip install uv, or leave it out))
$(if $(PYTHON),,$(error no Python from 3.11 to 3.14: install one, or uv, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3))
$(if $(call runs,$(PYTHON)),,$(error PYTHON=$(PYTHON): is no Python from 3.11 to 3.14; leave it out, or name another))
$(if $(call runs,$(PYTHON),import ensurepip),,$(error $(PYTHON) has no module venv: apt-get install $(notdir $(PYTHON))-venv, or install uv))
endef

ifeq ($(TORCH),cpu)
WITHOUT := ^(cuda-|nvidia-|triton=)
UV_CPU := --torch-backend cpu
else
WITHOUT := ^$$
endif

$(STAMP): requirements.lock pyproject.toml
ifdef UV
	uv venv --quiet --allow-existing --seed $(if $(filter file,$(origin PYTHON)),,--python $(PYTHON)) $(VENV)
	grep -vE '$(WITHOUT)' requirements.lock | uv pip install --quiet --python $(BIN)/python $(UV_CPU) --requirement -
	uv pip install --quiet --python $(BIN)/python --no-deps --editable .
else
	@:$(NEEDS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -e .
endif
	@touch $@

train: $(STAMP) ## train, test and review the quickstart recipe on the embedded data (about 4 minutes)
	$(BIN)/python src/train.py experiment=quickstart

test: $(STAMP) ## the whole test suite
	@:$(if $(shell command -v git 2>&-),,$(error no git, which the tests compare with: apt-get install git))
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

fuzz: $(STAMP) ## wrong overrides by the hundreds: is each told in one line? `make test` runs a sample
	FUZZ=full $(BIN)/python -m pytest -n auto tests/test_fuzz.py

# Score of each module: how many of its slips some test noticed.
SCORE := /__mutmut_/ && $$2 != "not checked" { \
	m = $$1; sub(/\.x[^.]*$$/, "", m); sub(/ */, "", m); all[m]++; all["~in all"]++; \
	if ($$2 != "survived" && $$2 != "no tests") { hit[m]++; hit["~in all"]++ } \
} END { for (m in all) printf "%s: %d of %d noticed, %.0f %%\n", m, hit[m], all[m], 100 * hit[m] / all[m] }

mutants: $(STAMP) ## do the tests notice small slips in what computes? All, or ONLY='segnet.training.losses.*'
	$(BIN)/mutmut run $(ONLY)
	@$(BIN)/mutmut results --all true | awk -F': ' '$(SCORE)' | sort | tr -d '~'

check: $(STAMP) ## lint, formatting, types, direction of imports, links of the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(SITE)

audit: $(STAMP) ## known vulnerabilities of the locked packages (asks a data base over the network, so not a part of check)
	$(BIN)/python -m venv .audit
	.audit/bin/python -m pip install --disable-pip-version-check --quiet pip-audit
	.audit/bin/pip-audit --disable-pip --no-deps --requirement requirements.lock
	rm -rf .audit

format: $(STAMP) ## repair what lint and formatting can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## the documentation as a site, in site/; a dead link is an error
	$(SITE)

tensorboard: $(STAMP) ## the dashboard over logs/, on this machine only
	@echo 'the page made for these runs: http://localhost:6006/#custom_scalars'
	$(BIN)/tensorboard --logdir logs --host 127.0.0.1

notebooks: $(STAMP) ## execute the notebooks in place
	$(BIN)/jupyter execute --inplace notebooks/*.ipynb

clean: ## delete caches and built files (runs, data and .venv stay)
	rm -rf dist build mutants site data/cache/segnet-cache .import_linter_cache .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
