# `make` alone prints what there is. Everything runs from .venv, which is made from requirements/*.txt only.
.DEFAULT_GOAL := help
.SUFFIXES:
.PHONY: help run test lint docs format cluster cluster-delete test-cluster bench soak restart chart lock clean

# PYTHON makes .venv (3.11 or newer); PORT and DATA are where `make run` serves and keeps its data.
PYTHON ?= python3
PORT ?= 8080
DATA ?= .kubeactor/bank
# Options: ARGS="-k crash -x" for pytest; QUICK=1, UPDATE=1, SYNC_MS=0, AGAINST=another/checkout for bench;
# SOAK_SECONDS=60 for soak; ROUNDS=50 for restart; KUBECONFIG=file and IMAGE_PREFIX=registry.example/me/ for test-cluster.
ARGS ?=
KUBECONFIG ?=
IMAGE_PREFIX ?=
QUICK ?=
UPDATE ?=
AGAINST ?=
SYNC_MS ?= 0.25
ROUNDS ?= 50
SOAK_SECONDS ?= 600

BIN := $(CURDIR)/.venv/bin
RUN := .venv/run.stamp
DEV := .venv/dev.stamp
TYPED := host operator bench examples

help: ## Print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | awk -F '\t' '{ printf "  make %-15s %s\n", $$1, $$2 }'

run: $(RUN) ## Serve the example bank at http://127.0.0.1:8080 (PORT=9000 DATA=/some/dir)
	@printf '%s\n' 'The bank opens at http://127.0.0.1:$(PORT), its accounts are kept in $(DATA). In another terminal:' '' \
	  "  curl -d '{\"amount\": 100}' http://127.0.0.1:$(PORT)/accounts/alice/deposit" \
	  "  curl -d '{\"amount\": 30}' http://127.0.0.1:$(PORT)/alice" \
	  "  curl http://127.0.0.1:$(PORT)/accounts/alice/balance" ''
	@case '$(DATA)' in /*) data='$(DATA)' ;; *) data='$(CURDIR)/$(DATA)' ;; esac; cd examples/01-bank && \
	  exec $(BIN)/kubeactor dev bank:Account --front-door bank:app --port $(PORT) --data "$$data"

test: $(DEV) ## Run every test, with the coverage floor (ARGS="-k crash" runs some, without it)
	@sh tests/tools.sh
ifeq ($(strip $(ARGS)),)
	@$(BIN)/coverage erase
	@$(BIN)/python tests/all.py
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
else
	$(BIN)/python -m pytest $(ARGS)
endif

lint: $(DEV) ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(TYPED)
	$(BIN)/python tests/typing/check.py
	$(BIN)/lint-imports

docs: $(DEV) ## Make the site in build/site; fails on a broken link or a code block that does not run
	for page in bank_namespace errors_page spec_page user_errors_page; do $(BIN)/python -m tests.docs.$$page || exit 1; done
	$(BIN)/python -m pytest --quiet tests/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

format: $(DEV) ## Format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

cluster: $(DEV) ## Start the test cluster, three nodes with the images of this checkout (tests/cluster/README.md)
	@sh tests/tools.sh
	@tests/cluster/cluster.sh up
	@tests/cluster/images.sh
	@echo 'tests/cluster/cluster.sh in kubectl get pods -A    # or any other command, curl too'

cluster-delete: ## Delete it; what was built stays for the next one
	@tests/cluster/cluster.sh down

test-cluster: $(DEV) ## Run the tests of the cluster on another one (KUBECONFIG=file IMAGE_PREFIX=registry.example/me/)
	$(BIN)/python -m pytest -m cluster $(if $(KUBECONFIG),--kubeconfig='$(KUBECONFIG)') --image-prefix='$(IMAGE_PREFIX)' $(ARGS)

bench: $(DEV) ## Compare with a hand-rolled C server (QUICK=1: two minutes; SYNC_MS=0: on this machine's own disk)
	@sh tests/tools.sh
	$(BIN)/python bench/bench.py $(if $(QUICK),--quick) $(if $(UPDATE),--update) $(if $(AGAINST),--against $(AGAINST)) --sync-ms $(SYNC_MS)

soak: $(DEV) ## Ten minutes at full load: does the memory hold? (SOAK_SECONDS=600)
	@sh tests/tools.sh
	$(BIN)/python bench/soak.py --seconds $(SOAK_SECONDS)

restart: $(DEV) ## Time from SIGKILL of the worker under full load to the next success (ROUNDS=50)
	@sh tests/tools.sh
	$(BIN)/python bench/restart.py --rounds $(ROUNDS)

chart: $(DEV) ## Renew what the Helm chart has from elsewhere: crds/, its README, its schema's descriptions
	$(BIN)/python charts/generate.py

LOCK := uv pip compile --quiet --upgrade pyproject.toml --group build --universal --python-version 3.11 \
  --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links

lock: $(DEV) ## Renew requirements/*.txt: the newest versions, with hashes, without addresses
	$(BIN)/$(LOCK) -o requirements/run.txt
	$(BIN)/$(LOCK) --extra kubernetes -c requirements/run.txt -o requirements/host.txt
	$(BIN)/$(LOCK) --extra operator -c requirements/host.txt -o requirements/operator.txt
	$(BIN)/$(LOCK) --extra dev -c requirements/operator.txt -o requirements/dev.txt

clean: ## Remove .venv and everything that was built; the data of `make run` stays
	rm -rf .venv bench/bin bench/results .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUN): requirements/run.txt pyproject.toml
	@PYTHON='$(PYTHON)' sh requirements/install.sh run

$(DEV): requirements/dev.txt pyproject.toml
	@PYTHON='$(PYTHON)' sh requirements/install.sh dev
