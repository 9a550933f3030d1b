# Every target that the README, the hooks and CI call. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m
PYTEST := $(RUN) pytest
STAMP := $(VENV)/.setup
BYTECODE := $(VENV)/.bytecode
LOCAL := $(VENV)/.local
# uv compiles nothing unless told so. Without bytecode every start of a process compiles its imports again wherever
# PYTHONDONTWRITEBYTECODE is set or the disk is read-only: three times the processor time of the import itself.
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(BYTECODE) $(LOCAL) ## Create .venv with everything the other targets need, Triton's own environment too

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	$(INSTALL) $(BIN)/python --require-hashes -r requirements.lock
	$(INSTALL) $(BIN)/python --no-deps --editable .
	@touch $@

# The package itself is installed editable, so its sources change: what is newer than the last time is compiled again.
# Python compares the hash of the source with that in the bytecode (not times, which a checkout or a copy can turn
# back), so bytecode that is not of this very source is never used; it only costs what it was to save.
$(BYTECODE): $(STAMP) $(shell find services -name '*.py')
	@$(RUN) compileall -q -f --invalidation-mode checked-hash $(or $(filter %.py,$?),services)
	@touch $@

$(LOCAL): $(STAMP) deploy/triton/requirements.lock | $(BYTECODE)
	$(BIN)/driftline setup --model minilm-l6-int8 --model hashing --model hashing-64
	@touch $@

.PHONY: demo
demo: setup ## Index Python's own documentation and search it: the whole system in some minutes
	$(BIN)/python -m driftline.cli.demo

.PHONY: lint
lint: setup ## Format check, lint, types, import rules, protos
	$(BIN)/ruff format --check services tests deploy/tools
	$(BIN)/ruff check services tests deploy/tools
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd protos && ../$(BIN)/buf lint
	$(MAKE) --no-print-directory breaking

# The protos of v1 change by addition only: compared with the release tag before, else with the first parent.
BASE ?= $(shell git describe --tags --abbrev=0 2>/dev/null || git rev-parse --verify --quiet HEAD~1)
.PHONY: breaking
breaking: setup
	@if [ -n "$(BASE)" ]; then cd protos && ../$(BIN)/buf breaking --against "../.git#ref=$(BASE),subdir=protos"; fi

.PHONY: format
format: setup ## Format the code
	$(BIN)/ruff format services tests deploy/tools
	$(BIN)/ruff check --fix services tests deploy/tools

.PHONY: protos
protos: setup ## Generate services/driftline/wire from protos/
	$(RUN) grpc_tools.protoc -Idriftline/wire=protos/driftline --python_out=services --pyi_out=services \
		--grpc_python_out=services $(wildcard protos/driftline/v1/*.proto)

.PHONY: docs
docs: setup ## Write the reference pages of docs/ from the code
	$(RUN) driftline.cli.reference docs
	$(BIN)/python deploy/tools/dashboards.py
	$(BIN)/python deploy/tools/chart_readme.py

.PHONY: test
test: lint ## Lint, unit, server, API, contract and end-to-end tests on local servers; coverage of what runs in the tests' process
	$(PYTEST) $(AT_ONCE) --cov=driftline --cov-report= tests/unit tests/wire
	$(PYTEST) --cov=driftline --cov-append --cov-report=term:skip-covered tests/web tests/api tests/contract tests/e2e

# Half of their time is waiting for a thread or a deadline: two at a time, up to four where there are cores.
AT_ONCE := --numprocesses auto --maxprocesses 4
.PHONY: test-unit
test-unit: setup ## The tests that need no server
	$(PYTEST) $(AT_ONCE) tests/unit tests/wire

.PHONY: test-web
test-web: setup ## Hostile clients, and SIGTERM under load, against the HTTP and gRPC servers over in-memory twins
	$(PYTEST) -s tests/web

.PHONY: test-api
test-api: setup ## Schemathesis against every OpenAPI document (DRIFTLINE_EXAMPLES an operation, DRIFTLINE_SEED)
	$(PYTEST) tests/api

# What the deployment checks need has dependencies of its own that fit no other environment.
CHECKS := $(VENV)/share/driftline/checks
$(CHECKS)/.done: deploy/locks/checks.lock $(STAMP)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(CHECKS)
	$(INSTALL) $(CHECKS)/bin/python --require-hashes -r deploy/locks/checks.lock
	$(INSTALL) $(CHECKS)/bin/python --no-deps --editable .
	@touch $@

# A real S3 server, of one executable; building it takes about a minute, once.
S3_SERVER := $(abspath $(VENV))/share/driftline/versitygw
$(S3_SERVER):
	@command -v go >/dev/null || { echo "go is needed to build the S3 server of the tests" >&2; exit 1; }
	GOBIN=$(dir $@) go install github.com/versity/versitygw/cmd/versitygw@v1.8.0

.PHONY: test-deploy
test-deploy: $(CHECKS)/.done $(S3_SERVER) servers ## Chart, images, compose files, rules, dashboards: lint, schemas, policies, rule tests
	PATH="$(abspath $(BIN)):$(dir $(S3_SERVER)):$$PATH" DRIFTLINE_TRITON_ENV=$(abspath $(VENV))/triton-env \
		$(CHECKS)/bin/python -m pytest -q --noconftest tests/deploy
	$(CHECKS)/bin/python deploy/tools/policies.py

# Building it from its published modules takes about ten minutes of two cores, once.
KUBE_APISERVER := $(VENV)/share/driftline/kube-apiserver
$(KUBE_APISERVER): deploy/kube-apiserver/go.mod deploy/kube-apiserver/main.go
	cd deploy/kube-apiserver && go build -o ../../$(KUBE_APISERVER) .

.PHONY: test-cluster
test-cluster: $(CHECKS)/.done $(KUBE_APISERVER) ## Dry-run the chart's profiles on a real kube-apiserver (needs go and Debian's etcd-server)
	@command -v etcd >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
		--no-install-recommends etcd-server >/dev/null; }
	PYTHONPATH=. $(CHECKS)/bin/python tests/deploy/cluster.py $(KUBE_APISERVER)

# torch is heavy: an environment of its own.
TRAIN := $(VENV)/share/driftline/train
$(TRAIN)/.done: deploy/locks/train.lock $(STAMP)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(TRAIN)
	$(INSTALL) $(TRAIN)/bin/python --require-hashes -r deploy/locks/train.lock
	$(INSTALL) $(TRAIN)/bin/python --no-deps --editable .
	@touch $@

# The images that the chart pulls: five services and Triton. REPOSITORY is the chart's image.repository.
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
.PHONY: images
images: setup ## Build the images and push them: make images REPOSITORY=registry.example.com/search/driftline
	@[ -n "$(REPOSITORY)" ] || { echo "REPOSITORY is needed, such as registry.example.com/search/driftline" >&2; exit 1; }
	for service in ingest encode index query upgrade; do \
		docker build -f deploy/Dockerfile --build-arg SERVICE=$$service --build-arg VERSION=$(VERSION) \
		-t $(REPOSITORY)-$$service:$(VERSION) . && docker push $(REPOSITORY)-$$service:$(VERSION) || exit 1; done
	docker build -f deploy/Dockerfile.triton -t $(REPOSITORY)-triton:$(VERSION) .
	docker push $(REPOSITORY)-triton:$(VERSION)

.PHONY: test-train
test-train: $(TRAIN)/.done ## The training loop on a tiny model, with torch (extra `train`)
	$(TRAIN)/bin/python -m pytest -q --noconftest tests/train

.PHONY: test-full
test-full: setup servers ## All contract and end-to-end tests, outages and alerts on Apache Kafka and Redis 7
	DRIFTLINE_TEST_STACK=full $(PYTEST) tests/contract tests/e2e tests/faults/test_alerts.py tests/faults/test_outages.py

.PHONY: test-brokers
test-brokers: setup servers ## Of `make test-full`, what may turn out otherwise on another broker or cache than in `make test`
	DRIFTLINE_TEST_STACK=full $(PYTEST) -m brokers \
		tests/contract tests/e2e tests/faults/test_alerts.py tests/faults/test_outages.py

.PHONY: test-faults
test-faults: setup servers ## Every part killed, frozen, cut off, filled up, under load and against the oracle (DRIFTLINE_FAULTS, DRIFTLINE_SEED)
	$(PYTEST) -s tests/faults/test_faults.py tests/faults/test_topics_anew.py tests/faults/test_planted.py
	$(PYTEST) -s tests/faults/test_upgrade_kill.py tests/faults/test_rolling.py

.PHONY: test-mutants
test-mutants: setup ## Plant bugs one by one: each must be caught by a test; writes the table of docs/testing.md
	$(RUN) tests.mutants

.PHONY: fuzz
fuzz: setup ## Hostile inputs to everything that reads what others wrote: a million in about three minutes of one core (DRIFTLINE_SEED, DRIFTLINE_FUZZ_INPUTS)
	$(RUN) tests.fuzz

.PHONY: parity
parity: setup ## SciFact through the service against the encoder in process, side by side (DRIFTLINE_PARITY_DOCUMENTS)
	$(PYTEST) -s tests/quality

.PHONY: servers
servers: ## Debian's Redis 7, Prometheus, nginx and, for Apache Kafka, Java and Maven (needs root only if they are missing)
	@[ "$$(command -v redis-server java mvn prometheus promtool nginx | wc -l)" = 6 ] || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		redis-server default-jre-headless maven prometheus nginx-light >/dev/null; }

.PHONY: bench
bench: setup servers ## Measure throughput, latency and freshness; writes docs/benchmarks.md
	$(RUN) tests.bench

.PHONY: bench-commits
bench-commits: setup ## Measure commits in turn, as one dense index feels them: make bench-commits COMMITS="6cb7f45 HEAD"
	$(RUN) tests.bench.commits $(COMMITS)

.PHONY: bench-imports
bench-imports: setup ## What importing each service costs, with bytecode and without
	$(RUN) tests.bench.imports

.PHONY: bench-scale
bench-scale: setup ## Measure 1 to 8 encode workers against an encoder of fixed latency; replay the scaler's decisions
	$(RUN) tests.bench.scale

.PHONY: bench-continual
bench-continual: $(TRAIN)/.done ## A sequence of fine-tunes with and without drift compensation; writes docs/benchmarks-continual.md
	$(TRAIN)/bin/python -m tests.bench.continual

# With torch, and with the Triton and the models of the other environment.
WITH_TORCH := DRIFTLINE_CACHE=$(CURDIR)/$(VENV)/share/driftline DRIFTLINE_TRITON_ENV=$(CURDIR)/$(VENV)/triton-env \
	$(TRAIN)/bin/python -m

.PHONY: bench-upgrade
bench-upgrade: $(TRAIN)/.done ## Measure every way through a model change; writes docs/benchmarks-upgrade.md
	$(WITH_TORCH) tests.bench.upgrade
	$(WITH_TORCH) tests.bench.served

.PHONY: bench-retrieval
bench-retrieval: $(TRAIN)/.done servers ## Every way of finding over judged collections, side by side; writes docs/benchmarks-retrieval.md
	$(WITH_TORCH) tests.bench.retrieval

.PHONY: bench-live
bench-live: setup servers ## An upgrade under load, as its users see it; writes docs/benchmarks-live.md and pictures
	$(RUN) tests.bench.live

.PHONY: bench-fairness
bench-fairness: setup servers ## How soon a tenant's changes are found while another floods; writes docs/benchmarks-fairness.md
	$(RUN) tests.bench.fairness --record

.PHONY: soak
soak: setup servers ## Half an hour at 70 % of capacity against the oracle: nothing of ours may grow; writes docs/benchmarks-soak.md (DRIFTLINE_SOAK_MINUTES)
	$(RUN) tests.bench.soak --record

.PHONY: lock
lock: ## Resolve the lock files anew
	$(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" --extra dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" deploy/triton/requirements.in -o deploy/triton/requirements.lock
	for service in ingest encode index query upgrade; do \
		$(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" --constraint requirements.lock --extra $$service --extra otel \
		pyproject.toml -o deploy/locks/$$service.lock || exit 1; done
	$(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" --extra ingest --extra encode --extra index --extra query --extra upgrade \
		--extra s3 pyproject.toml deploy/checks.in -o deploy/locks/checks.lock
	$(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" --constraint requirements.lock --extra train --extra local --extra drift \
		pyproject.toml deploy/train.in -o deploy/locks/train.lock

.PHONY: clean
clean: ## Remove caches; keeps .venv
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* .import_linter_cache
