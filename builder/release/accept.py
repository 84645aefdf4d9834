"""Accepts images that jobs have verified: what passed gets its immutable tag, by the very bytes that the job ran on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.contract import KEY_LABEL
from builder.errors import PublishError, VerifyError, listed
from builder.layer.find import LayerRepositories
from builder.layer.store import LayerStore
from builder.oci.manifest import Manifest
from builder.oci.reference import Digest, is_digest
from builder.oci.registry import Registries
from builder.parse import MalformedError, parse_document, read_bytes
from builder.release.immutable import put_immutable
from builder.release.publish import put_layers_of
from builder.release.state import RegistryState, fetch_image_config
from builder.verify.handover import RESULTS_NAME
from builder.verify.inside import Check, Results
from builder.verify.runner import failed_checks
from builder.verify.script import INSIDE


@dataclass(frozen=True, kw_only=True)
class _Accepted:
    """An image that passed in a job, as it is in the registry."""

    state: RegistryState
    manifest: Manifest


def accept(
    states: Sequence[RegistryState],
    folder: Path,
    registries: Registries,
    *,
    repositories: LayerRepositories | None,
    store: LayerStore,
) -> dict[str, tuple[Check, ...]]:
    """Give each cell that the registry lacks its immutable tag, if the results in the folder say that it passed.

    Either all of them get it, or none. Returns the results of the checks, by the image's key. Raises VerifyError if a
    check failed, PublishError if a cell has no results, or if the registry does not have the image that they are about.
    """
    missing = [state for state in states if state.digest is None]
    results = {state.rendered.key: _read(state, folder) for state in missing}
    accepted = [_fetch(state, results[state.rendered.key], registries) for state in missing]
    for each in accepted:
        rendered = each.state.rendered
        put_immutable(rendered.immutable_tag, rendered.key, each.manifest, registries)
        if repositories:
            put_layers_of(each.manifest, store, repositories, registries)
    return {key: each.checks for key, each in results.items()}


def _read(state: RegistryState, folder: Path) -> Results:
    """The results of a cell's checks, all of which passed or did not apply."""
    cell, path = state.rendered.plan.cell.name, folder / state.rendered.plan.cell.name / RESULTS_NAME
    hint = "no tag was moved; the job that verifies the cell writes the file, and keeps it as an artifact"
    try:
        results = parse_document(Results, read_bytes(path))
    except FileNotFoundError:
        raise PublishError(f"{cell} was not verified: there is no {path}", hint=hint) from None
    except OSError as error:
        raise PublishError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    except MalformedError as error:
        raise PublishError(f"{path} has no results of checks: {error}", hint=hint) from error
    if failed := failed_checks(results.checks):
        evidence = "; ".join(f"{check.name}: {check.evidence}" for check in failed)
        raise VerifyError(f"{cell}: failed verification: {evidence}", hint="no tag was moved")
    if lacking := sorted(set(INSIDE) - {check.name for check in results.checks}):
        raise PublishError(f"{path} lacks results of checks: {listed(lacking)}", hint=hint)
    expected = str(state.rendered.immutable_tag)
    if results.image != expected or not is_digest(results.id):
        raise PublishError(f"{path} is about {results.image}, not {expected}", hint=hint)
    return results


def _fetch(state: RegistryState, results: Results, registries: Registries) -> _Accepted:
    """Fetch the image that was verified, by its digest."""
    rendered = state.rendered
    ref = rendered.unverified_tag.without_tag().with_digest(Digest.from_str(results.id))
    manifest = registries.fetch_manifest(ref)
    if manifest is None:
        hint = "no tag was moved; build and verify the cell again"
        raise PublishError(f"{ref.registry} no longer has the image that was verified, {results.id}", hint=hint)
    if fetch_image_config(ref, registries).labels.get(KEY_LABEL) != rendered.key:
        hint = "no tag was moved; run the whole pipeline again"
        raise PublishError(f"{results.id}, which was verified, is no image of {rendered.plan.cell.name}", hint=hint)
    return _Accepted(state=state, manifest=manifest)
