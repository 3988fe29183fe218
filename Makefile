# Every target makes what it needs, and stays quick when run again.
PYTHON ?= python3
ARGS ?=
CLUSTER ?= memory
SEEDS ?= 5000
SEED ?=
OCCURRENCES ?= 5000
FAULTS ?=
LEASE ?=
MINUTES ?= 30
KEEP ?=
HELM ?= helm
WORKERS ?= auto
RELEASES ?=
BASE ?=
COVERED := $(addprefix --cov=openfero_gitops/,audit author catalog domain jobs) \
	--cov-report=term:skip-covered --cov-fail-under=95
VENV := .venv
BIN := $(VENV)/bin
INSTALL := -m pip install --quiet --disable-pip-version-check --no-input --require-hashes
PIP := $(BIN)/python $(INSTALL)

.DEFAULT_GOAL := help
.PHONY: help demo test test-deep coverage tools versions lint audit bench fuzz mutate chaos simulate \
	sabotage soak image image-reproducible \
	cluster cluster-down node node-down installed docs docs-links lock dist screenshots clean

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

demo: $(VENV)/.runtime ## Run a demonstration on this machine (ARGS=--once, CLUSTER=real).
ifeq ($(CLUSTER),real)
	@PATH="$(CURDIR)/$(BIN):$$PATH" tests/cluster/demo $(ARGS)
else
	@$(BIN)/python -m openfero_gitops demo $(ARGS)
endif

# Without bytecode every process compiles the same modules again.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.dev $(VENV)/.image ## Run the tests (ARGS='tests/unit -k render', WORKERS=0 for one process).
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

# Measuring doubles the time that unit tests take.
coverage: ## Run the tests, and check that they run nearly every line of what decides.
	@$(MAKE) test ARGS='$(COVERED)'

tools: $(VENV)/.dev $(VENV)/.image ## Build the programs that the tests use (once).
	@$(BIN)/python -m tests.support.tools

versions: $(VENV)/.dev ## Record what older API servers say about generated Jobs (RELEASES=1.30.14).
	@$(BIN)/python -m tests.support.recording $(RELEASES)

# The exhaustive form of what `test` draws a few examples of.
test-deep: export PYTHONDONTWRITEBYTECODE =
test-deep: export HYPOTHESIS_PROFILE = nightly
test-deep: export JOBS = 20000
test-deep: $(VENV)/.dev $(VENV)/.image ## Run the property-based tests with many examples.
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup tests/unit tests/bench \
		tests/integration/test_many_syncs.py tests/integration/test_verdicts.py

lint: $(VENV)/.dev ## Check format, style, types, import contracts, scripts and workflows.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/shellcheck $$(git grep -lE '^#!.*(bash|/sh)$$' -- .ci tests scripts)
	@$(BIN)/zizmor --offline --persona=pedantic --quiet --no-progress .github action.yml \
		operarios-example/.github

audit: $(VENV)/.dev ## Search the locked dependencies for known vulnerabilities (needs pypi.org).
	@$(BIN)/pip-audit --strict --disable-pip --progress-spinner=off \
		$(foreach lock,$(wildcard requirements/*.txt),--requirement=$(lock))

simulate: $(VENV)/.dev ## Simulate the controller in virtual time under faults (SEEDS=5000, SEED=17).
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

sabotage: $(VENV)/.dev ## Find simulation seeds that detect each deliberate defect.
	@$(BIN)/python -m tests.simulation --sabotages

bench: $(VENV)/.dev ## Measure performance against the raw API server and git.
	@MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=131072 $(BIN)/python -m tests.bench $(ARGS)

fuzz: $(VENV)/.dev ## Validate generated files and payloads (N=100000 SEED= CASE=).
	@$(BIN)/python -m tests.bench.fuzz --count $(or $(N),100000) \
		$(if $(SEED),--seed $(SEED)) $(if $(CASE),--case $(CASE))

mutate: $(VENV)/.dev ## Check that tests fail on small changes of the code (COUNT=60 SEED=).
	@$(BIN)/python -m tests.bench.mutate $(if $(COUNT),--count $(COUNT)) \
		$(if $(SEED),--seed $(SEED))

chaos: $(VENV)/.dev ## Inject faults into real replicas and check the guarantees (SEED=, OCCURRENCES=, FAULTS=).
	@$(BIN)/python -m tests.chaos --occurrences $(OCCURRENCES) $(if $(SEED),--seed $(SEED)) \
		$(if $(FAULTS),--faults $(FAULTS)) $(if $(LEASE),--lease $(LEASE)) \
		$(if $(KEEP),--keep $(KEEP))

soak: $(VENV)/.dev ## Check that the memory of a replica does not grow (MINUTES=30).
	@$(BIN)/python -m tests.bench.soak --minutes $(MINUTES) $(if $(KEEP),--keep $(KEEP))

image: $(VENV)/.image ## Build the container image, its SBOM and checksums (BASE=local, ARGS=--no-cache).
	@$(BIN)/python -m scripts.build_image $(if $(BASE),--base $(BASE)) $(ARGS)

image-reproducible: ## Build the container image twice without a cache, and compare (BASE=local).
	@$(MAKE) image ARGS="--no-cache --output dist/first"
	@$(MAKE) image ARGS="--no-cache --output dist/second"
	@diff dist/first/SHA256SUMS dist/second/SHA256SUMS && echo "both builds are the same"

cluster: ## Start a real Kubernetes control plane on loopback.
	@$(PYTHON) tests/cluster/controlplane.py up

cluster-down: ## Stop the control plane and delete its data.
	@$(PYTHON) tests/cluster/controlplane.py down

node: ## Start a real node, as root: kubelet, containers, a control plane of its own.
	@$(PYTHON) tests/cluster/node.py up

node-down: ## Stop the node and delete its data.
	@$(PYTHON) tests/cluster/node.py down

installed: $(VENV)/.dev $(VENV)/.image ## Install image and chart on a real node, as root, and print what happens.
	@$(BIN)/python -m pytest -n 0 -s tests/e2e/test_installed.py $(ARGS)

screenshots: $(VENV)/.dev ## Draw the pictures of the pages in docs/img.
	@$(BIN)/python -m tests.support.screenshots

# -W -n: a broken link, or a page that no other leads to, fails. -E: nothing of an earlier build.
SITE = $(BIN)/python -m sphinx --quiet --color -E -W --keep-going -n
docs: $(VENV)/.dev ## Regenerate the generated pages of docs/, and build the site in dist/site.
	@$(BIN)/python scripts/make_docs.py
	@$(BIN)/python -m tests.support.api_table
	@rm -rf dist/site
	@$(SITE) -b html -d dist/.doctrees docs dist/site
	@echo "file://$(CURDIR)/dist/site/index.html"

docs-links: $(VENV)/.dev ## Check the links of docs/ that lead to other sites (needs the internet).
	@$(SITE) -b linkcheck -d dist/.doctrees docs dist/links

# Renovate repeats the command in the header of a lock file, and knows only its options. The options
# after it keep the extras, without which pip before 24 refuses the file, and leave out of it what
# pip is configured to on this machine.
compile = CUSTOM_COMPILE_COMMAND='$(1)' $(BIN)/$(1) \
	--quiet --no-strip-extras --no-emit-trusted-host --no-emit-find-links --no-emit-options
locked = pip-compile --allow-unsafe --generate-hashes --no-emit-index-url$(if $(2), $(2)) \
	--output-file=requirements/$(1).txt $(or $(3),pyproject.toml)
lock: $(VENV)/.dev ## Update the hash-locked requirements.
	@$(call compile,$(call locked,runtime))
	@$(call compile,$(call locked,otel,--constraint=requirements/runtime.txt --extra=otel))
	@$(call compile,$(call locked,dev,--constraint=requirements/runtime.txt --extra=otel --extra=dev))
	@$(call compile,$(call locked,build,,requirements/build.in))
	@$(call compile,$(call locked,image,,requirements/image.in))

dist: $(VENV)/.dev ## Build the sdist, the wheel and the packaged chart in dist/ (HELM=/path/to/helm).
	@$(BIN)/python -m hatchling build -d dist
	@$(HELM) package charts/openfero-gitops --destination dist

clean: ## Delete what the targets created in this folder.
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "python3 -m venv does not work: install python3-venv" >&2; rm -rf $(VENV); exit 2; }

$(VENV)/.runtime: requirements/runtime.txt | $(BIN)/python
	@echo "installing what openfero-gitops runs on (once) ..." >&2
	@$(PIP) -r requirements/runtime.txt
	@touch $@

# The programs that list what the image contains, in an environment of their own.
$(VENV)/.image: requirements/image.txt | $(BIN)/python
	@echo "installing what lists the packages of the image (once) ..." >&2
	@$(PYTHON) -m venv $(VENV)/image
	@$(VENV)/image/bin/python $(INSTALL) -r requirements/image.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt | $(BIN)/python
	@echo "installing what the tests run on (once) ..." >&2
	@$(PIP) -r requirements/dev.txt
	@touch $@ $(VENV)/.runtime
