"""Plans, differences and outcomes as JSON, documented in docs/json.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from builder.image.index import RenderedIndex, indexes_of
from builder.image.render import RenderedImage
from builder.layer.build import LayerStatus
from builder.lock.model import SelectedPackage, Tool
from builder.publication import Publication
from builder.redaction import redact
from builder.release.diff import Difference
from builder.release.journal import Move
from builder.release.state import Explanation
from builder.run import CellResult
from builder.verify.inside import Check
from builder.verify.record import EngineImage

if TYPE_CHECKING:  # only `ci adopt` has any, and to import it takes time
    from builder.gitlab.adopt.adopt import Adoption


def diff_json(found: Difference) -> dict[str, Any]:
    """The output of `builder diff --json`."""
    sides = {"old": found.old.name, "new": found.new.name}
    parts = {title.replace(" ", "_"): list(moves) for title, moves in found.parts.items()}
    return (
        sides
        | parts
        | {"layers": _layers_json(found), "shared_bytes": found.shared_bytes, "new_bytes": found.new_bytes}
    )


def _layers_json(found: Difference) -> list[dict[str, Any]]:
    old = found.old.layers or {}
    return [
        {"digest": digest, "size": size, "shared": digest in old} for digest, size in (found.new.layers or {}).items()
    ]


def adoption_json(adoption: Adoption, diffs: Mapping[str, str]) -> dict[str, Any]:
    """The output of `builder ci adopt --json`; `diffs` has the diff of each file by its path, '' if it stays."""
    remarks = [
        {
            "kind": remark.kind,
            "path": remark.place.source,
            "line": remark.place.line,
            "job": remark.job,
            "text": redact(remark.text),
        }
        for remark in adoption.remarks
    ]
    files = [{"path": path, "diff": diff} for path, diff in diffs.items() if diff]
    return {"files": files, "jobs": sorted(adoption.baked), "remarks": remarks}


def _index_json(rendered: RenderedImage, indexes: Mapping[str, RenderedIndex]) -> dict[str, Any]:
    """The index that an image is for one platform in; nothing where there is one platform."""
    index = indexes.get(rendered.key)
    return {"index": {"key": index.key, "tag": index.immutable_tag.familiar}} if index else {}


def _indexes(rendered: Iterable[RenderedImage]) -> dict[str, RenderedIndex]:
    """The indexes by the keys of their images."""
    return {image.key: index for index in indexes_of(rendered) for image in index.images}


def plan_json(
    rendered: Sequence[RenderedImage],
    explanations: Mapping[str, Explanation] | None = None,
    layers: Mapping[str, LayerStatus] | None = None,
) -> dict[str, Any]:
    """The output of `builder plan --json`."""
    indexes = _indexes(rendered)
    return {
        "cells": [
            cell_json(image)
            | _index_json(image, indexes)
            | _status_json((explanations or {}).get(image.plan.cell.name))
            | {"layers": _plan_layers_json((layers or {}).get(image.plan.cell.name))}
            for image in rendered
        ]
    }


def _plan_layers_json(status: LayerStatus | None) -> list[dict[str, Any]] | None:
    if status is None:
        return None
    return [
        {
            "kind": layer.kind,
            "key": layer.key,
            "packages": [package.name for package in layer.packages],
            "exists": layer not in status.missing,
        }
        for layer in status.plan.layers
    ]


def _status_json(explanation: Explanation | None) -> dict[str, Any]:
    return {
        "status": explanation.status if explanation else None,
        "reasons": list(explanation.reasons) if explanation else [],
    }


def cell_json(rendered: RenderedImage) -> dict[str, Any]:
    """A cell of a plan."""
    plan = rendered.plan
    cached = [package for group in plan.selection.cached for package in group]
    return {
        "name": plan.cell.name,
        "python": plan.cell.python,
        **({"python_from_uv": plan.cell.uv_python.key} if plan.cell.uv_python else {}),
        "base": plan.cell.base,
        **({"profile": plan.cell.profile} if plan.cell.profile else {}),
        "platform": str(plan.cell.platform),
        "key": rendered.key,
        "tags": [tag.familiar for tag in rendered.tags],
        "base_image": plan.base.familiar,
        "uv_image": plan.uv.familiar,
        "download_size": plan.selection.download_size,
        "packages": [_package_json(package) for package in plan.selection.packages],
        **({"cached_packages": [_package_json(each) for each in cached]} if cached else {}),
        **({"tools": [_tool_json(tool) for tool in plan.selection.tools]} if plan.selection.tools else {}),
    }


def _tool_json(tool: Tool) -> dict[str, Any]:
    packages = [_package_json(package) for package in tool.packages]
    return {"name": tool.name, "requirement": tool.requirement, "packages": packages}


def _package_json(package: SelectedPackage) -> dict[str, Any]:
    return {
        "name": package.name,
        "version": package.version,
        "artifact": "wheel" if package.is_wheel else package.artifact,
        "file": package.filename,
        "size": package.size,
    }


def build_json(done: Publication) -> dict[str, Any]:
    """The output of `builder build --json`: the cells of the plan, each with its outcome."""
    indexes = _indexes(result.rendered for result in done.results)
    return {
        "cells": [
            cell_json(result.rendered) | _index_json(result.rendered, indexes) | _outcome_json(result)
            for result in done.results
        ],
        "promotion": [_move_json(move) for move in done.promotion.moves] if done.promotion else [],
    }


def _move_json(move: Move) -> dict[str, Any]:
    return {"tag": move.tag, "old": str(move.old) if move.old else None, "new": str(move.new) if move.new else None}


def _outcome_json(result: CellResult) -> dict[str, Any]:
    return {
        "outcome": result.outcome,
        "digest": _digest(result),
        "size": result.built.size if result.built else None,
        "seconds": round(result.seconds, 3),
        "timings": {step: round(seconds, 3) for step, seconds in result.watch.seconds.items()},
        "checks": [check_json(check) for check in result.checks],
        "made_by": result.made_by or None,
        "log": str(result.log) if result.log else None,
        "error": redact(str(result.error)) if result.error else None,
    }


def _digest(result: CellResult) -> str | None:
    if result.handed_over:
        return str(result.handed_over.digest)
    made = result.published or result.built or (result.verified if isinstance(result.verified, EngineImage) else None)
    return str(made.digest) if made else None


def check_json(check: Check) -> dict[str, Any]:
    """A check, for `build --json` and `verify --json`."""
    return {
        "name": check.name,
        "verdict": check.verdict,
        "evidence": redact(check.evidence),
        "seconds": check.seconds,
    }
