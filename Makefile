# `make` lists the targets. They need Python 3.11 or newer. Without make:
# `python3 install.py && .venv/bin/python -m cli.demo`.
#
#   PYTHON       the interpreter for the virtual environment (default: the first one found)
#   TORCH_INDEX  the package index for torch; empty means pip's default (docs/deploy.md)
#   PORT, ONCE   for `make demo`: the port, and 1 to stop after the picture
#   JOBS         for `make test`, `make ui` and `make drill`: how many test processes run at once (3; `make ui`: 2)
#   ARGS         for `make test`, `make ui`, `make drill`, `make chaos`, `make fuzz`, `make clients`,
#                `make gpu`, `make audit` and `make train-tiny`: arguments that are passed on

.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
STAMP := $(VENV)/.installed
BARE := .venv-bare/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Packages of another environment would hide those of .venv. Without caches of its byte code, which images for
# containers often turn off, every process of the tests would compile the sources of torch again.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

FIND_PYTHON = for python in $(BIN)/python python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null \
	&& { echo $$python; exit; }; done
INSTALL = python="$(or $(PYTHON),$$($(FIND_PYTHON)))"; \
	test -n "$$python" || { echo "error: no Python 3.11 or newer was found; install one, or name it:" \
	"make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	"$$python" install.py

# An environment whose Python is gone is built again.
ifeq ($(shell $(BIN)/python -c "print(1)" 2>/dev/null),)
.PHONY: $(RUNTIME)
endif

.PHONY: help install setup demo test test-without-torch ui drill chaos siege gpu fuzz clients check audit docs lock \
	digests train-tiny clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(RUNTIME)  ## build .venv with the pinned versions of what the service needs

setup: $(STAMP)  ## the same, and what the tests need

$(RUNTIME): pyproject.toml constraints.txt requirements.lock
	@$(INSTALL)

$(STAMP): $(RUNTIME)
	@$(INSTALL) --tests

$(BARE): pyproject.toml constraints.txt requirements.lock
	@$(INSTALL) --without-torch

demo: $(RUNTIME)  ## start the service, make one picture, keep serving (ONCE=1: stop after the picture)
	@$(BIN)/python -m cli.demo $(if $(PORT),--port $(PORT)) $(if $(ONCE),--once)

# Several test processes share the cores: their thread pools must be small and must not spin. Three use two
# cores better than two: tests wait for processes and files.
PYTEST = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest \
	-n $(or $(JOBS),$(PROCESSES)) --no-loadscope-reorder
PROCESSES := 3
ui: PROCESSES := 2

test: $(STAMP)  ## run the tests (ARGS: tests/model -k er_sde)
	$(PYTEST) $(ARGS)

# Each process has a browser and a service of its own; a test of the page mostly waits for one of them. Loopback
# addresses only.
ui: $(STAMP)  ## tests of the page in Chromium, and pictures of it in out/ui (ARGS: -k chips)
	$(PYTEST) tests/ui $(ARGS)

# The API, the command line, the queue and the embedded Redis, on a Python for which torch has no build.
test-without-torch: $(BARE)  ## tests of all that needs no torch, in .venv-bare (PYTHON: python3.13)
	OMP_NUM_THREADS=1 .venv-bare/bin/python -m pytest -n $(or $(JOBS),3) --no-loadscope-reorder $(ARGS)

# `make test` skips these folders. They use loopback addresses only.
drill: $(STAMP)  ## short drills: faults, random input, hostile clients, the rehearsal of `make gpu`
	$(PYTEST) tests/chaos tests/fuzz tests/siege tests/gpu $(ARGS)

# Uses loopback addresses only; the number of jobs and faults and the time are limited.
chaos: $(STAMP)  ## the long drill with faults, on three seeds (ARGS: --seed 4 5 --faults 90; --help)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos $(or $(ARGS),--seed 1 2 3)

# Uses loopback addresses only and takes less than five minutes. The times mean something on an idle machine only.
siege: $(STAMP)  ## hostile clients: is an honest one served meanwhile? (ARGS: --only "tiny chunks"; --write; --help)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.siege $(ARGS)

# Downloads nothing; writes out/gpu/gpu.json and gpu.md; at most eight minutes on an H100 or H200.
gpu: $(STAMP)  ## checks and numbers on a GPU (ARGS: --device cpu --size tiny rehearses without one; --help)
	$(BIN)/python -m tests.gpu $(ARGS)

# Uses loopback addresses only.
fuzz: $(STAMP)  ## the long drill with random input (ARGS: --minutes 30 --seed 4)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(ARGS)

# Installs the packages into .clients. They run on loopback addresses only.
clients: $(STAMP)  ## real client packages on the real service; writes docs/clients.md (ARGS: --only web_ui.py)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.clients $(ARGS)

# pip-audit's database is on the internet. If it cannot be reached, this says so and succeeds.
audit: $(STAMP)  ## known vulnerabilities of the dependencies (ARGS: --strict to fail if the database is unreachable)
	$(BIN)/python -m tests.tools.audit $(ARGS)

check: $(STAMP)  ## lint, types (also of the page), import contracts, container files, audit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/*.Dockerfile
	@if docker compose version >/dev/null 2>&1; then \
		set -ex; docker compose config -q; \
		docker compose -f docker-compose.yml -f docker-compose.gpu.yml config -q; \
	else echo "docker compose is not installed: skipping its check of the compose files"; fi
	@if command -v promtool >/dev/null; then promtool test rules tests/data/alerts.yml; \
	else echo "promtool is not installed: skipping the tests of the alert rules"; fi
	$(BIN)/python -m tests.tools.page_types
	$(BIN)/python -m tests.tools.audit

docs: $(STAMP)  ## generate the tables of docs/ and .env.example from the code, and build build/docs/index.html
	$(BIN)/python -m tests.tools.tables
	$(BIN)/python -m sphinx -Wnq --keep-going docs build/docs

# torch's own dependencies differ between its builds, so they have versions, but no hashes.
LOCK = $(BIN)/uv pip compile -q --universal --python-version 3.11 --extra dev --no-header \
	--no-emit-index-url --no-emit-package pip --no-build

lock: $(STAMP)  ## resolve pyproject.toml to constraints.txt and requirements.lock
	$(PIP) install -q uv
	sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml > back-end.new && echo torch > torch.new
	{ sed -n 1p constraints.txt; $(LOCK) --upgrade --no-annotate pyproject.toml back-end.new \
		| sed '/^#/d;/^$$/d'; } > constraints.new
	{ sed -n 1,2p requirements.lock; $(LOCK) --generate-hashes --annotation-style line \
		--excludes torch.new -c constraints.new pyproject.toml back-end.new \
		| sed '/^#/d;/^$$/d;s/, -c constraints.new//;s/-c constraints.new, //;s/-r back-end.new/build-system/'; \
	} > requirements.new
	mv constraints.new constraints.txt && mv requirements.new requirements.lock
	rm back-end.new torch.new

# A digest names the bytes of an image; a tag may get others.
digests:  ## print the container images with their digests, for .env (asks their registries)
	@sed -n 's/.*$${\([A-Z]*_IMAGE\):-\([^}]*\)}.*/\1 \2/p' docker-compose.yml | sort -u \
	| while read -r name image; do \
		digest=$$(docker buildx imagetools inspect "$$image" --format '{{.Manifest.Digest}}') \
		|| exit 1; echo "$$name=$$image@$$digest"; done

train-tiny: $(STAMP)  ## train the bundled checkpoint (one to two hours on two cores)
	$(BIN)/python -m training $(ARGS)

clean:  ## remove all generated files (keeps data/)
	rm -rf $(VENV) .venv-bare .clients .ui out build *.egg-info .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
