# The project's verbs. `make` lists them; each one sets up what it needs first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.demo
RECIPES := .venv-recipes
RECIPES_STAMP := $(RECIPES)/.installed
NODE_AGENT := tests/recipes/apps/node_agent
NODE_READER := tests/recipes/apps/propagators/node
NODE_CLIENTS := tests/recipes/clients/node
# Programs of the environment come first, for recipes and for the tests that look for some (envoy, kubectl).
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: bench coverage fuzz help interleavings soak setup setup-system demo test test-all test-cluster test-system test-recipes check lint types layers fmt protos protos-check render docs lock clean

help: ## list the verbs
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with the pinned, hashed dependencies

INSTALL := $(PYTHON) requirements/environment.py
INSTALLER := $(addprefix requirements/,environment.py failures.py machine.py terminal.py installer.txt)

# What the demo needs is a part of what development needs: the demo's environment grows into the other.
$(STAMP): requirements/dev.txt pyproject.toml $(INSTALLER)
	@$(INSTALL) dev
	@touch $(DEMO_STAMP) $@

$(DEMO_STAMP): requirements/demo.txt pyproject.toml $(INSTALLER)
	@$(INSTALL) demo
	@touch $@

demo: $(DEMO_STAMP) ## run the tour (less than a minute): real Envoy, an unmodified agent, the embedded emulator
	@$(BIN)/authz demo

# What needs more than this checkout has a verb of its own.
HERE := not cluster and not system and not recipes
# Each process runs files one after another, and shares what a file starts.
SPREAD := --dist worksteal --numprocesses
# Many of these tests wait, so there are three processes more than cores.
WORKERS = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 3)
# The thorough ones wait less, and some keep several programs busy.
MORE_WORKERS = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

test: $(STAMP) ## run the tests of every rule and flow, in three minutes
	@echo "==> tests (real Envoy, real MSAL, real gRPC; loopback only)"
	@$(BIN)/python -m pytest -m "not thorough and $(HERE)" --quick $(SPREAD) $(WORKERS)

test-all: $(STAMP) ## run every test that needs nothing but this checkout, in a quarter of an hour
	@echo "==> all tests (real Envoy, real MSAL, real gRPC; loopback only)"
	@$(BIN)/python -m pytest -m "$(HERE)" $(SPREAD) $(MORE_WORKERS)

setup-system: $(STAMP) ## add pinned programs that the machine may lack (kubectl)
	@$(INSTALL) system

test-system: $(STAMP) ## run the tests that need packages of the operating system
	@$(BIN)/python -m pytest -m system || [ $$? -eq 5 ]

test-cluster: $(STAMP) ## run the tests that need a kube-apiserver, if a variable leads to one (CONTRIBUTING.md)
	@$(BIN)/python -m pytest -m cluster --no-fold-skipped tests/cluster

test-recipes: $(STAMP) $(RECIPES_STAMP) ## run the agents of docs/recipes.md, unmodified, with many users at a time
	@$(BIN)/python -m pytest -m recipes $(SPREAD) auto tests/recipes

$(RECIPES_STAMP): requirements/recipes.txt $(INSTALLER) $(NODE_AGENT)/package-lock.json $(NODE_READER)/package-lock.json $(NODE_CLIENTS)/package-lock.json
	@echo "==> creating $(RECIPES) and installing what agents are made of (about a minute, once)"
	@$(INSTALL) recipes
	@PATH="$(CURDIR)/$(RECIPES)/bin:$$PATH" npm ci --prefix $(NODE_AGENT) --ignore-scripts --no-audit --no-fund --loglevel error
	@PATH="$(CURDIR)/$(RECIPES)/bin:$$PATH" npm ci --prefix $(NODE_READER) --ignore-scripts --no-audit --no-fund --loglevel error
	@PATH="$(CURDIR)/$(RECIPES)/bin:$$PATH" npm ci --prefix $(NODE_CLIENTS) --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

interleavings: $(STAMP) ## 100,000 random requests of many users while faults come and go (REQUESTS=, SEED=, CHECKS=1)
	@cd tests && ../$(BIN)/python -m support.interleavings --requests $(or $(REQUESTS),100000) --seed $(or $(SEED),1) $(if $(CHECKS),--checks)

soak: $(STAMP) ## the same for an hour: memory, descriptors and threads of the service (MINUTES=, SEED=, CHECKS=1)
	@cd tests && ../$(BIN)/python -m support.interleavings.soak --minutes $(or $(MINUTES),60) --seed $(or $(SEED),1) $(if $(CHECKS),--checks)

fuzz: $(STAMP) ## a million random frames to the Check door and to grpcio's server, compared (FRAMES=, SEED=)
	@cd tests && ../$(BIN)/python -m support.beside_grpcio --frames $(or $(FRAMES),1000000) --seed $(or $(SEED),1)

coverage: $(STAMP) ## the rules and the path of a Check: every branch is tested
	@rm -f .coverage .coverage.*
	@$(BIN)/coverage run -m pytest --quiet tests/core tests/attacks tests/checks tests/tokens tests/doors tests/system
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --include 'authz/core/*,authz/checks/service.py,authz/checks/edge.py,authz/doors/sidecar_api/issuer.py,authz/checks/steps.py,authz/checks/identity_headers.py,authz/tokens/references.py,authz/tokens/caching.py,authz/checks/prefetching.py,authz/tokens/pushing.py,authz/tokens/keeper.py' --show-missing --fail-under 100

check: lint types layers protos-check coverage test ## before a commit: lint, types, layering, generated files, coverage, tests

bench: $(STAMP) ## ratios against Envoy alone and a do-nothing server, in six minutes (needs h2load)
	@$(BIN)/python -m bench.run

lint: $(STAMP) ## ruff: lint and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP) ## mypy --strict
	@$(BIN)/mypy

layers: $(STAMP) ## import-linter: the layering of docs/architecture.md
	@$(BIN)/lint-imports --no-cache

fmt: $(STAMP) ## rewrite files the way `make lint` wants them
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

protos: $(STAMP) ## regenerate authz/_pb from protos/
	@$(BIN)/python protos/generate.py

protos-check: $(STAMP) ## fail when authz/_pb differs from what protos/ generates
	@$(BIN)/python protos/generate.py --check

docs: $(STAMP) ## regenerate docs/configuration.md, docs/authz.schema.json, docs/compatibility.md and the admission policy from what they tell
	@$(BIN)/python -m authz.config.publish.schema docs/
	@cd tests && ../$(BIN)/python -m recipes.compatibility_page ../docs/compatibility.md
	@$(BIN)/python -m authz.injection.policy kubernetes/components/interception/admission-policy.yaml

render: $(STAMP) ## write every shipped Envoy configuration as `authz envoy` renders it
	@$(BIN)/python -m shipped.render

LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11
lock: $(STAMP) ## pin the newest allowed versions, with hashes
	@$(LOCK) --upgrade --all-extras --group dev pyproject.toml --output-file requirements/dev.txt
	@$(LOCK) --constraint requirements/dev.txt pyproject.toml --output-file requirements/runtime.txt
	@$(LOCK) --constraint requirements/dev.txt --extra key-vault pyproject.toml --output-file requirements/key-vault.txt
	@$(LOCK) --constraint requirements/dev.txt --group development pyproject.toml --output-file requirements/development.txt
	@$(LOCK) --constraint requirements/dev.txt --group build --output-file requirements/build.txt
	@$(LOCK) --constraint requirements/dev.txt --group demo --group build pyproject.toml --output-file requirements/demo.txt
	@$(LOCK) --constraint requirements/dev.txt --group installer --output-file requirements/installer.txt
	@$(LOCK) --group system --output-file requirements/system.txt
	@$(LOCK) --upgrade --group recipes --output-file requirements/recipes.txt

clean: ## remove what the verbs made
	rm -rf $(VENV) $(RECIPES) $(NODE_AGENT)/node_modules $(NODE_READER)/node_modules $(NODE_CLIENTS)/node_modules .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache dist
