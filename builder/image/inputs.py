"""The inputs that an image was built from, stored in its label `io.gitlab.prebuilt.inputs`, and their changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from builder.contract import KEY_LENGTH
from builder.image.render import RenderedImage, template_digest
from builder.lock.model import SelectedPackage
from builder.parse import MalformedError, parse_value


@dataclass(frozen=True, kw_only=True)
class ImageInputs:
    """The inputs of an image. `base` and `uv` are pinned references; `packages` maps names to versions.

    A package without a version has the commit or URL that it is installed from.
    """

    cell: str
    python: str
    base: str
    uv: str
    packages: Mapping[str, str]
    settings: Mapping[str, str]
    template: str

    @classmethod
    def of(cls, rendered: RenderedImage) -> ImageInputs:
        """The inputs of a rendered image."""
        plan = rendered.plan
        return cls(
            cell=plan.cell.name,
            python=plan.cell.python,
            base=str(plan.base),
            uv=str(plan.uv),
            packages={package.name: _version(package.version, package.source) for package in plan.selection.packages},
            settings={
                "platform": str(plan.cell.platform),
                "system packages": " ".join(plan.cell.packages),
                **({"user": plan.cell.user} if plan.cell.user else {}),
                **({"python from uv": f"{uv.key} of {uv.archive}"} if (uv := plan.cell.uv_python) else {}),
                "build packages": " ".join(plan.toolchain),
                "ca": hashlib.sha256(plan.ca).hexdigest()[:KEY_LENGTH] if plan.ca else "",
                "link-mode": plan.link_mode,
                "refresh": plan.refresh_period,
                "build requirements": "; ".join(
                    ", ".join([*system.requires, *system.constraints]) for system in plan.selection.build_systems
                ),
                "index": json.dumps(plan.selection.uv_settings, sort_keys=True, default=str),
                **(
                    {"only in the cache": "; ".join(map(_listed, plan.selection.cached))}
                    if plan.selection.cached
                    else {}
                ),
                **(
                    {"tools": "; ".join(_listed(tool.packages) for tool in plan.selection.tools)}
                    if plan.selection.tools
                    else {}
                ),
            },
            template=template_digest(),
        )

    @classmethod
    def from_label(cls, text: str) -> ImageInputs | None:
        """Parse the label; None if this version of builder does not understand it, or did not write it so."""
        try:
            found = parse_value(cls, text)
        except MalformedError:
            return None
        tables = (found.packages, found.settings)
        texts = [found.cell, found.python, found.base, found.uv, found.template]
        texts += [text for table in tables for pair in table.items() for text in pair]
        return found if all(map(str.isprintable, texts)) else None  # others could pretend to be several lines

    def to_label(self) -> str:
        """The label's text: JSON, a few kilobytes for several hundred packages."""
        table: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(table, sort_keys=True, separators=(",", ":"))


def _listed(packages: Iterable[SelectedPackage]) -> str:
    return ", ".join(f"{package.name} {_version(package.version, package.source)}" for package in packages)


def _version(version: str | None, source: Mapping[str, Any]) -> str:
    return version or str(source.get("commit-id") or source.get("url", ""))


def input_changes(old: ImageInputs, new: ImageInputs) -> tuple[str, ...]:
    """Describe the inputs that changed, one line each; empty if none did.

    If two images have the same inputs but different keys, a package's file changed and its version did not.
    """
    return tuple(_input_changes(old, new))


def _input_changes(old: ImageInputs, new: ImageInputs) -> Iterator[str]:
    if old.base != new.base:
        yield f"base: {old.base} → {new.base}"
    if old.uv != new.uv:
        yield f"uv: {old.uv} → {new.uv}"
    yield from package_changes(old.packages, new.packages)
    for name in sorted(old.settings.keys() | new.settings.keys()):
        before, after = old.settings.get(name, ""), new.settings.get(name, "")
        if before != after:
            yield f"setting {name}: {before or 'none'} → {after or 'none'}"
    if old.template != new.template:
        yield f"template: {old.template} → {new.template}"


def package_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Describe the packages that were added, removed or changed, one line each."""
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"package {name}: added {new[name]}"
        elif name not in new:
            yield f"package {name}: removed {old[name]}"
        elif old[name] != new[name]:
            yield f"package {name}: {old[name]} → {new[name]}"
