"""What decided an image, as its label `io.gitlab.prebuilt.inputs` carries it, and what moved between two of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from builder.image.render import RenderedImage, template_digest


@dataclass(frozen=True, kw_only=True)
class ImageInputs:
    """The inputs of one image: references pinned by digest, package versions by name, settings by name."""

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
                "link-mode": plan.link_mode,
                "refresh": plan.refresh_period,
                "build requirements": "; ".join(
                    ", ".join([*system.requires, *system.constraints]) for system in plan.selection.build_systems
                ),
                "index": json.dumps(plan.selection.uv_settings, sort_keys=True, default=str),
            },
            template=template_digest(),
        )

    @classmethod
    def from_label(cls, text: str) -> ImageInputs | None:
        """Parse the label; None where it is none that this version understands."""
        try:
            table = json.loads(text)
            fields = {name: table[name] for name in cls.__dataclass_fields__}
        except (ValueError, KeyError, TypeError):
            return None
        return cls(**fields)

    def to_label(self) -> str:
        """The label's text: JSON, a few kilobytes for some hundred packages."""
        table: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(table, sort_keys=True, separators=(",", ":"))


def _version(version: str | None, source: Mapping[str, Any]) -> str:
    return version or str(source.get("commit-id") or source.get("url", ""))


def input_changes(old: ImageInputs, new: ImageInputs) -> tuple[str, ...]:
    """Say, a line each, which inputs moved from the old image to the new one; empty where none did.

    Same inputs under another key mean that a file of a package changed while its version did not.
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
    """Say, a line each, which packages were added, removed or changed."""
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"package {name}: added {new[name]}"
        elif name not in new:
            yield f"package {name}: removed {old[name]}"
        elif old[name] != new[name]:
            yield f"package {name}: {old[name]} → {new[name]}"
