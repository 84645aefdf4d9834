"""`builder build` on the example: four verified images, and its output."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from builder.verify.checks import CHECKS
from tests.integration.conftest import Built, docker, images_of

pytestmark = pytest.mark.integration

CELLS = ("3.11-bookworm-slim", "3.11-alpine", "3.13-bookworm-slim", "3.13-alpine")
SCHEMA = Path(__file__).parents[2] / "docs" / "output.schema.json"


def test_four_cells_are_verified(built: Built) -> None:
    """Broken: a cell of the example fails verification."""
    verdicts = {cell["name"]: {check["verdict"] for check in cell["checks"]} for cell in built.cells}
    assert verdicts == {name: {"passed"} for name in CELLS}
    assert {cell["outcome"] for cell in built.cells} == {"verified"}


def test_json_has_its_documented_shape(built: Built) -> None:
    """Broken: the output of `build --json` differs from docs/json.md."""
    jsonschema.validate({"cells": list(built.cells)}, json.loads(SCHEMA.read_text()))
    for cell in built.cells:
        assert len(cell["packages"]) > 50
        assert {package["artifact"] for package in cell["packages"]} == {"wheel"}
        assert cell["tags"] == [f"webshop-ci:{cell['name']}-{cell['key'][:12]}", f"webshop-ci:{cell['name']}"]


def test_tags_name_the_digest_that_was_reported(built: Built) -> None:
    """Broken: a tag names an image other than the verified one."""
    for cell in built.cells:
        ids = {docker("image", "inspect", "--format", "{{.Id}}", tag) for tag in cell["tags"]}
        assert ids == {cell["digest"]}


def test_progress_is_plain_lines_where_nobody_watches(built: Built) -> None:
    """Broken: a CI log has terminal codes, or lacks lines for steps."""
    assert "\x1b" not in built.stderr
    assert f"3.13-alpine  verify  checks 0/{len(CHECKS)}" in built.stderr


def test_image_environment(built: Built) -> None:
    """Broken: a job lacks the environment, the cache or uv at the documented paths, or sees a build setting."""
    for cell in built.cells:
        lines = json.loads(docker("image", "inspect", "--format", "{{json .Config.Env}}", cell["tags"][1]))
        env = dict(line.split("=", 1) for line in lines)
        assert env["PATH"].startswith("/opt/uv/venv/bin:/usr/local/lib/prebuilt/bin:")
        assert {name: env[name] for name in env if name.startswith("UV_") or name == "VIRTUAL_ENV"} == {
            "UV_PROJECT_ENVIRONMENT": "/opt/uv/venv",
            "UV_CACHE_DIR": "/opt/uv/cache",
            "UV_PYTHON": "python",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_LINK_MODE": "copy",
            "VIRTUAL_ENV": "/opt/uv/venv",
        }
        assert not env.keys() & {"UV_COMPILE_BYTECODE", "PYC_INVALIDATION_MODE"}


def test_only_the_four_cells_are_tagged(built: Built) -> None:
    """Broken: the engine has tags other than the immutable and moving tags of the cells."""
    expected = {tag.partition(":")[2] for cell in built.cells for tag in cell["tags"]}
    assert expected <= set(images_of("webshop-ci"))
