# Every target sets up what it needs. PYTHON is the interpreter of the tools' environment (3.10 or later).
PYTHON ?= python3
SANDBOX := sandbox/run
# Where the tools are. `make lint TOOLS=` takes those on PATH, which a baked image has, and sets nothing up.
TOOLS := .venv/bin/
READY := $(if $(TOOLS),.venv/ready)
# What `make image` and `make release` call the image; `make release IMAGE=` makes none and needs no engine.
IMAGE := builder-cli

.PHONY: help demo test lint wheel image release facts bench golden pins sandbox-up sandbox-down clean

help:           ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: .venv/ready       ## a real lock file becomes four verified images, and a job runs on them
	$(SANDBOX) examples/demo

test: .venv/ready       ## all tests, on a real engine and a real registry
	$(SANDBOX) .venv/bin/pytest

lint: $(READY)          ## formatting, lint, types, and GitLab's schema
	$(TOOLS)ruff format --check .
	$(TOOLS)ruff check .
	$(TOOLS)mypy
	$(TOOLS)check-jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci .gitlab-ci.yml

wheel: $(READY)         ## sdist and wheel into dist/, nothing fetched
	rm -rf dist
	$(TOOLS)uv build --quiet --offline --no-build-isolation $(if $(TOOLS),--python .venv)

image: wheel            ## the command line tool as an image, for the jobs of the GitLab component
	$(SANDBOX) .ci/image $(IMAGE)

release: $(READY)       ## prepare the release of the tag at HEAD in dist/, publish nothing: make release VERSION=1.2.3
	TOOLS=$(TOOLS) SANDBOX=$(SANDBOX) .ci/release "$(VERSION)" $(IMAGE)

bench: .venv/ready      ## sizes and times, side by side
	$(SANDBOX) .venv/bin/python -m bench

golden: .venv/ready     ## render tests/golden and the JSON Schema anew
	.venv/bin/pytest -q tests/unit/test_render.py --update-golden
	.venv/bin/builder schema > docs/matrix.schema.json

pins: .venv/ready       ## pin the tools anew, without index lines
	.venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes \
	    --no-emit-index-url --group dev pyproject.toml -o requirements-dev.txt --custom-compile-command 'make pins'

facts: .venv/ready      ## refresh builder/matrix/facts.toml: known Pythons, and the libc of each Debian
	.venv/bin/python .ci/refresh-facts

sandbox-up:             ## an engine, a registry and base images, where the machine has none
	sandbox/up

sandbox-down:           ## stop what sandbox-up started
	sandbox/down

clean:                  ## remove what the targets above made in this folder
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/ready: requirements-dev.txt pyproject.toml
	rm -rf .venv
	$(PYTHON) -m venv .venv || { rm -rf .venv; apt-get install -y python3-venv && $(PYTHON) -m venv .venv; }
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@
