"""Results of jobs: what they must say before an image gets its immutable tag. No registry is asked before that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.errors import BuilderError, PublishError, VerifyError
from builder.layer.store import LayerStore
from builder.oci.reference import Digest, Mirrors
from builder.oci.registry import Registries
from builder.release.accept import accept
from builder.release.state import RegistryState
from builder.verify.script import INSIDE
from tests.layers import chosen, rendered

DIGEST = "sha256:" + "ab" * 32
STATE = RegistryState(rendered=rendered([chosen("one")]), digest=None, moving={})
CELL = STATE.rendered.plan.cell.name


def results(**more: Any) -> dict[str, Any]:
    """Results of an image that passed; `more` replaces fields."""
    checks = [{"name": name, "verdict": "passed", "evidence": "fine", "seconds": 0.5} for name in INSIDE]
    return {"image": str(STATE.rendered.immutable_tag), "id": DIGEST, "checks": checks, **more}


def failed(table: dict[str, Any]) -> dict[str, Any]:
    """The same, with one check that failed."""
    (first, *rest) = table["checks"]
    return {**table, "checks": [{**first, "verdict": "failed", "evidence": "six.py is gone"}, *rest]}


def error(folder: Path, content: str | None) -> BuilderError:
    """The error for a file of results with this content."""
    if content is not None:
        (folder / CELL).mkdir()
        (folder / CELL / "results.json").write_text(content)
    store = LayerStore(folder=folder / "store")
    with pytest.raises(BuilderError) as raised:
        accept([STATE], folder, Registries(Mirrors()), repositories=None, store=store)
    return raised.value


def test_no_results(tmp_path: Path) -> None:
    """Broken: an image that no job has verified gets its immutable tag."""
    found = error(tmp_path, None)
    assert isinstance(found, PublishError)
    assert f"{CELL} was not verified: there is no " in found.what


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: "", "has no results of checks"),
        (lambda: "[]", "has no results of checks"),
        (lambda: json.dumps(results(checks=[{"name": "files", "verdict": "fine"}])), "has no results of checks"),
        (lambda: json.dumps(results(checks=results()["checks"][1:])), f"lacks results of checks: {INSIDE[0]}"),
        (lambda: json.dumps(results(checks=[])), "lacks results of checks: "),
        (lambda: json.dumps(results(image="other:1")), "is about other:1, not "),
        (lambda: json.dumps(results(id="../../other")), "is about "),
    ],
)
def test_other_results(tmp_path: Path, content: Callable[[], str], words: str) -> None:
    """Broken: results that are damaged, incomplete or of another image give an image its immutable tag."""
    found = error(tmp_path, content())
    assert isinstance(found, PublishError)
    assert words in found.what


def test_failed_check(tmp_path: Path) -> None:
    """Broken: an image that failed in its job gets its immutable tag, or nobody says why it does not."""
    found = error(tmp_path, json.dumps(failed(results())))
    assert isinstance(found, VerifyError)
    assert found.what == f"{CELL}: failed verification: {INSIDE[0]}: six.py is gone"


def test_image_in_the_registry_needs_no_results(tmp_path: Path) -> None:
    """Broken: a promotion after a pipeline that built some cells asks for results of the others."""
    state = RegistryState(rendered=STATE.rendered, digest=Digest.from_str(DIGEST), moving={})
    accept([state], tmp_path, Registries(Mirrors()), repositories=None, store=LayerStore(folder=tmp_path))
