"""A software bill of materials for each cell: CycloneDX 1.6 as JSON, with GitLab's properties.

See https://cyclonedx.org/docs/1.6/json/ and
https://docs.gitlab.com/development/sec/cyclonedx_property_taxonomy/. It is made from the lock, so it exists before the
image does, and for images that somebody else built; `--sbom` attests what a scanner found in the layers.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from builder import __version__
from builder.image.render import RenderedImage
from builder.lock.model import SelectedPackage
from builder.oci.reference import ImageRef
from builder.redaction import redact

_ALGORITHMS: Final = {"md5": "MD5", "sha1": "SHA-1", "sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}
_MANAGERS: Final = {"uv.lock": "uv", "script": "uv", "pylock.toml": "uv", "requirements.txt": "pip"}


def cyclonedx_json(rendered: RenderedImage, image: ImageRef | None, lock: str) -> dict[str, Any]:
    """The document; the same inputs always give the same. `lock` is the lock's path from the repository's top."""
    plan = rendered.plan
    selection = plan.selection
    tag = rendered.immutable_tag
    named = tag.with_digest(image.digest) if image and image.digest else tag
    properties = {
        "gitlab:meta:schema_version": "1",
        "gitlab:dependency_scanning:category": "development",
        "gitlab:dependency_scanning:input_file:path": lock,
        "gitlab:dependency_scanning:package_manager:name": _MANAGERS[selection.lock_kind],
        "gitlab:dependency_scanning:language:name": "Python",
        "io.gitlab.prebuilt:cell": plan.cell.name,
        "io.gitlab.prebuilt:key": rendered.key,
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, str(named))}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "prebuilt", "version": __version__}]},
            "component": _image("image", named),
            "properties": _pairs(properties),
        },
        "components": [
            *(_package(package) for package in selection.packages),
            # Which may have other versions of the same packages, each in an environment of its own.
            *({**_package(each), "bom-ref": f"tool:{tool.name}:{each.name}"}
              for tool in selection.tools for each in tool.packages),
            {
                "type": "application", "bom-ref": "uv", "name": "uv", "version": str(plan.uv.tag),
                "purl": package_url("pypi", "uv", str(plan.uv.tag)),
            },
            _image("base", plan.base),
        ],
    }  # fmt: skip


def _package(package: SelectedPackage) -> dict[str, Any]:
    hashes = package.source.get("hashes")
    known = hashes if isinstance(hashes, Mapping) else {}
    table: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"pypi:{package.name}",
        "name": package.name,
        "purl": package_url("pypi", package.name, package.version or ""),
    }
    if package.version:
        table["version"] = package.version
    if found := [{"alg": _ALGORITHMS[name], "content": text} for name, text in known.items() if name in _ALGORITHMS]:
        table["hashes"] = found
    if url := package.source.get("url"):
        kind = "vcs" if package.artifact == "vcs" else "distribution"
        table["externalReferences"] = [{"type": kind, "url": quote(redact(str(url)), safe=":/?#[]@!$&'()*+,;=%~-._")}]
    return table


def _image(ref: str, image: ImageRef) -> dict[str, Any]:
    path = image.name.rpartition("/")[2]
    qualifiers = {"repository_url": image.name, **({"tag": image.tag} if image.tag else {})}
    version = str(image.digest or "")
    return {
        "type": "container",
        "bom-ref": ref,
        "name": image.name,
        "version": image.tag or version,
        "purl": package_url("oci", path, version, qualifiers),
    }


def package_url(kind: str, name: str, version: str, qualifiers: Mapping[str, str] | None = None) -> str:
    """A package URL (ECMA-427): `pkg:pypi/six@1.17.0`."""
    encoded = "&".join(f"{key}={quote(value, safe='/.-_~:')}" for key, value in sorted((qualifiers or {}).items()))
    at = f"@{quote(version, safe='.-_~:')}" if version else ""
    return f"pkg:{kind}/{quote(name, safe='.-_~')}{at}{f'?{encoded}' if encoded else ''}"


def _pairs(table: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in table.items()]
