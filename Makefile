# Every target sets up what it needs. PYTHON is the interpreter for the virtual environment (3.10 or later).
PYTHON ?= python3
SANDBOX := sandbox/run
# Where the tools are. `make lint TOOLS=` uses those on PATH, as in a baked image, and sets nothing up.
TOOLS := .venv/bin/
READY := $(if $(TOOLS),.venv/ready)
# The name of the image that `make image` and `make release` build. `make release IMAGE=` builds none and needs no engine.
IMAGE := builder-cli
# Tests that `make test` runs at the same time: more than two cores have work for, because many of them wait.
WORKERS := 4
# How long `make soak` goes on, and the seed that it repeats; without one, it chooses one and prints it.
MINUTES := 5
SEED :=

.PHONY: help demo test coverage test-unit lint wheel image release facts bench soak newcomer golden pins docs pictures sandbox-up sandbox-down clean

help:           ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: .venv/ready       ## turn a real lock into four verified images and run a job on each
	$(SANDBOX) examples/demo

test: .venv/ready       ## run all tests against a real engine and a real registry
	INPUTS=1000 $(SANDBOX) .venv/bin/pytest -n $(WORKERS)

coverage: .venv/ready   ## the same, and measure what the tests reach; takes twice the processor time in Python
	INPUTS=1000 $(SANDBOX) .venv/bin/pytest -n $(WORKERS) --cov

test-unit: .venv/ready  ## run the unit tests on every Python from 3.10 to 3.14 that is installed; needs no engine
	.ci/test-unit

lint: $(READY)          ## check formatting, lint, types, lengths and GitLab's schema
	$(TOOLS)ruff format --check .
	$(TOOLS)ruff check .
	$(TOOLS)mypy
	$(TOOLS)python .ci/check-lengths
	$(TOOLS)check-jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci .gitlab-ci.yml

wheel: $(READY)         ## build sdist and wheel into dist/, offline
	rm -rf dist
	$(TOOLS)uv build --quiet --offline --no-build-isolation $(if $(TOOLS),--python .venv)

image: wheel            ## build the image with the command line, for the GitLab component
	$(SANDBOX) .ci/image $(IMAGE)

release: $(READY)       ## prepare a release in dist/ without publishing: make release VERSION=1.2.3
	TOOLS=$(TOOLS) SANDBOX=$(SANDBOX) .ci/release "$(VERSION)" $(IMAGE)

soak: .venv/ready       ## kill and disturb promotions, rollbacks, builds and pruning for minutes: make soak MINUTES=5 SEED=1
	SOAK=$$(($(MINUTES) * 60)) SEED=$(SEED) $(SANDBOX) .venv/bin/pytest -q tests/integration/test_soak.py

newcomer: .venv/ready   ## play README's commands in a clean container without an engine, up to a green pipeline
	$(SANDBOX) .venv/bin/python .ci/newcomer

bench: .venv/ready      ## measure sizes and times, side by side
	$(SANDBOX) .venv/bin/python -m bench

golden: .venv/ready     ## regenerate tests/golden and the JSON Schema
	.venv/bin/pytest -q tests/unit/test_render.py --update-golden
	.venv/bin/builder schema > docs/matrix.schema.json

PIN := uv pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes --no-emit-index-url \
    --custom-compile-command 'make pins'
pins: .venv/ready       ## update requirements-dev.txt and requirements-docs.txt, without index lines
	.venv/bin/$(PIN) pyproject.toml --group dev -o requirements-dev.txt
	.venv/bin/$(PIN) --group docs -o requirements-docs.txt

docs: $(READY) .venv-docs/ready  ## build the documentation's pages in build/site, and check their links; needs no network
	$(TOOLS)python .ci/docs-tree build/docs
	.venv-docs/bin/mkdocs build --quiet --strict
	$(TOOLS)python .ci/check-site build/site

pictures: .venv/ready   ## make the pictures in docs/pictures from a real run, with Chromium from Debian
	$(SANDBOX) .venv/bin/python .ci/pictures docs/pictures

facts: .venv/ready      ## update facts.toml: known Python versions and the libc of each Debian release
	.venv/bin/python .ci/refresh-facts

sandbox-up:             ## start an engine, a registry and base images, whatever is missing
	sandbox/up

sandbox-down:           ## stop what sandbox-up started
	sandbox/down

clean:                  ## remove what the targets above created in this folder
	rm -rf .venv .venv-3.* .venv-docs .mypy_cache .ruff_cache .pytest_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv-docs/ready: requirements-docs.txt
	rm -rf .venv-docs
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.txt
	touch $@

.venv/ready: requirements-dev.txt pyproject.toml
	rm -rf .venv
	$(PYTHON) -m venv .venv || { rm -rf .venv; apt-get install -y python3-venv && $(PYTHON) -m venv .venv; }
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@
