"""The output of --json (docs/json.md), which scripts read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from builder.cli.output import json as documents
from builder.cli.output.plan import plan_details, plan_table
from builder.errors import BuildError
from builder.image.build import BuiltImage
from builder.image.render import RenderedImage, render
from builder.oci.reference import Digest
from builder.publication import Publication
from builder.release.state import Explanation
from builder.run import CellResult, Outcome
from builder.verify.inside import Check
from tests.locks import FILES, INDEX, fake_hash, pure, sdist
from tests.matrices import EXAMPLE
from tests.plans import plan_of


@pytest.fixture
def rendered(tmp_path: Path, base_digest: Digest, uv_digest: Digest) -> RenderedImage:
    """An image with a wheel, an sdist, and a package without version and size."""
    packages = [
        pure("one"),
        {"name": "two", "version": "2.0", "index": INDEX, "sdist": sdist("two", "2.0")},
        {"name": "zip", "archive": {"url": f"{FILES}/zip.zip", "hashes": {"sha256": fake_hash("zip")}}},
    ]
    return render(plan_of(tmp_path, EXAMPLE, *packages, base_digest=base_digest, uv_digest=uv_digest))


def cell(rendered: RenderedImage) -> dict[str, Any]:
    """The cell in the JSON of a plan."""
    name = "registry.example.com/acme/ci:3.12-bookworm-slim"
    file = {"one": "one-1.0-py3-none-any.whl", "two": "two-2.0.tar.gz", "zip": "zip.zip"}
    return {
        "name": "3.12-bookworm-slim",
        "python": "3.12",
        "base": "bookworm-slim",
        "platform": "linux/amd64",
        "key": rendered.key,
        "tags": [f"{name}-{rendered.key[:12]}", name],
        "base_image": f"python:3.12-slim-bookworm@sha256:{'ba5e' * 16}",
        "uv_image": f"ghcr.io/astral-sh/uv:0.13.8@sha256:{'0123456789abcdef' * 4}",
        "download_size": None,
        "packages": [
            {"name": "one", "version": "1.0", "artifact": "wheel", "file": file["one"], "size": 1000},
            {"name": "two", "version": "2.0", "artifact": "sdist", "file": file["two"], "size": 1000},
            {"name": "zip", "version": None, "artifact": "archive", "file": file["zip"], "size": None},
        ],
    }


def test_plan(rendered: RenderedImage) -> None:
    """Broken: `builder plan --json` prints other keys or values."""
    assert json.loads(json.dumps(documents.plan_json([rendered]))) == {
        "cells": [{**cell(rendered), "status": None, "reasons": [], "layers": None}]
    }


def test_verified_build(rendered: RenderedImage) -> None:
    """Broken: `builder build --json` prints other keys or values."""
    digest = Digest(algorithm="sha256", hex="d1" * 32)
    built = BuiltImage(rendered=rendered, digest=digest, archive=Path("image.tar"), size=12345, seconds=1.0)
    check = Check(name="uv-pip", verdict="passed", evidence="fine", seconds=0.25)
    result = CellResult(
        rendered=rendered, outcome="verified", seconds=2.00049, log=Path("a.log"), built=built, checks=(check,)
    )
    assert json.loads(json.dumps(documents.build_json(Publication(results=(result,), promotion=None)))) == {
        "promotion": [],
        "cells": [
            {
                **cell(rendered),
                "outcome": "verified",
                "digest": str(digest),
                "size": 12345,
                "seconds": 2.0,
                "timings": {},
                "checks": [{"name": "uv-pip", "verdict": "passed", "evidence": "fine", "seconds": 0.25}],
                "made_by": None,
                "log": "a.log",
                "error": None,
            }
        ],
    }


def test_failed_build(rendered: RenderedImage) -> None:
    """Broken: scripts cannot recognise a failed cell, or its error contains a password."""
    error = BuildError("no https://jane:hunter2@index.invalid", hint="log: a.log")
    result = CellResult(rendered=rendered, outcome="build-failed", seconds=1.0, log=Path("a.log"), error=error)
    (found,) = documents.build_json(Publication(results=(result,), promotion=None))["cells"]
    assert (found["outcome"], found["digest"], found["size"], found["checks"]) == ("build-failed", None, None, [])
    assert found["log"] == "a.log"
    assert found["error"] == "no https://***@index.invalid\n  log: a.log"


@pytest.mark.parametrize("outcome", [None, "planned", "verified", "build-failed"])
def test_documented_schema(rendered: RenderedImage, repository_root: Path, outcome: Outcome | None) -> None:
    """Broken: the output differs from the schema in docs/."""
    schema = json.loads((repository_root / "docs" / "output.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    table = documents.plan_json([rendered])
    if outcome:
        table = documents.build_json(
            Publication(
                results=(CellResult(rendered=rendered, outcome=outcome, seconds=1.0, log=Path("a.log")),),
                promotion=None,
            )
        )
    validator.validate(table)
    (found,) = table["cells"]
    assert not validator.is_valid({"cells": [{**found, "extra": 1}]})
    assert not [name for name in found if validator.is_valid({"cells": [{k: found[k] for k in found if k != name}]})]


def test_plan_as_text(rendered: RenderedImage) -> None:
    """Broken: `builder plan` has more than a row for a cell, or `plan -v` omits packages, sizes, key or tags."""
    row = plan_table([rendered], {rendered.plan.cell.name: Explanation(status="moved", reasons=("base: a → b",))})
    assert [line.split() for line in row.splitlines()[1:]] == [
        ["3.12-bookworm-slim", "3", "2", "?", "nothing", "needs", "rebuild"],
        ["3.12-bookworm-slim:", "base:", "a", "→", "b"],
    ]
    said = plan_details([rendered])
    assert said.splitlines()[:3] == [
        "3.12-bookworm-slim",
        "  packages   3: 1 wheel, 2 built from source (two, zip)",
        "  download   unknown size",
    ]
    assert rendered.key in said
    assert all(tag in said for tag in cell(rendered)["tags"])
