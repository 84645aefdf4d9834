"""Steps: the scripts that make layers, rendered for a plan, and the files that they read.

The same templates are in the Dockerfile that `builder render` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from builder.errors import counted
from builder.image.plan import ImagePlan
from builder.image.render import (
    RECEIPT_NAME,
    build_system_files,
    ca_files,
    pylock,
    render_template,
    template_bytes,
    uv_settings_files,
)
from builder.image.uv_settings import lasting
from builder.lock.build_system import narrowed
from builder.lock.model import SelectedPackage, Tool

_STRICT: Final = "set -eu\n"
_UV: Final = "/opt/uv"  # everything that uv writes is below this folder, but a Python


@dataclass(frozen=True, kw_only=True)
class Step:
    """A script with its title; `setup` runs before it, and `scope` is the folder below which it may change files.

    `files` are read by the scripts; `requirements` is the one of them that names the packages to install.
    """

    title: str
    script: str
    setup: str = ""
    scope: str = "/"
    files: Mapping[str, bytes] = field(default_factory=dict)
    requirements: str = ""


def system_step(plan: ImagePlan) -> Step:
    """Install the cell's system packages."""
    script = _system_packages(plan, plan.cell.packages, plan.refresh_period)
    return Step(title=f"install {counted(len(plan.cell.packages), 'system package')}", script=script)


def toolchain_step(plan: ImagePlan) -> Step:
    """Install what builds from source need; no layer has it."""
    script = _system_packages(plan, plan.toolchain)
    return Step(title=f"install {counted(len(plan.toolchain), 'package')} to build with", script=script)


def ca_step(plan: ImagePlan) -> Step:
    """Make the image trust a company's CA."""
    script = _STRICT + render_template("steps/ca.sh.j2", plan)
    return Step(title="install the CA certificates", script=script, files=ca_files(plan.ca))


def user_step(plan: ImagePlan) -> Step:
    """Create the image's user, if the base does not have it, and a home."""
    return Step(title=f"create the user {plan.cell.user}", script=_STRICT + render_template("steps/user.sh.j2", plan))


def _build_settings(
    plan: ImagePlan, packages: Sequence[SelectedPackage], folder: str, locate: Callable[[str], str]
) -> Mapping[str, bytes]:
    """The files in a folder with uv's settings for building the packages: what builds need comes from the mirrors."""
    found = lasting(narrowed(plan.selection.uv_settings, {package.name for package in packages}))
    found = {**found, "index": [{**index, "url": locate(index["url"])} for index in found["index"]]}
    return {f"{folder}/{name}": content for name, content in uv_settings_files(found).items()}


def stdlib_step(plan: ImagePlan) -> Step:
    """Compile the standard library."""
    script = _STRICT + render_template("steps/stdlib.sh.j2", plan)
    scope = plan.cell.uv_python.home if plan.cell.uv_python else "/"
    return Step(title="compile the standard library", script=script, scope=scope)


def environment_step(plan: ImagePlan) -> Step:
    """Create the empty environment, and the cache."""
    script = _settings(plan) + render_template("steps/environment.sh.j2", plan)
    return Step(title="create the environment", script=script, scope=_UV)


def build_systems_step(plan: ImagePlan) -> Step:
    """Fill the cache with what builds of local packages need."""
    settings = uv_settings_files(lasting(plan.selection.uv_settings))
    parts = [
        render_template("steps/build-system.sh.j2", plan, system=system, folder=f"/run/builder/build-system-{number}")
        for number, system in enumerate(plan.selection.build_systems)
    ]
    return Step(
        title="cache the build systems",
        script=_settings(plan) + _uv_settings(plan, settings) + "".join(parts),
        scope=_UV,
        files=build_system_files(plan.selection) | settings,
    )


def wheels_step(plan: ImagePlan, packages: Sequence[SelectedPackage], number: int = 0) -> Step:
    """Install wheels; their layers are told apart afterwards, so that one step makes many."""
    folder = f"packages-{number}"
    files = {f"{folder}/pylock.{package.name}.toml": pylock([package]) for package in packages}
    return Step(
        title=f"install {counted(len(packages), 'package')}",
        setup=_new_environment(plan),
        script=_settings(plan) + _install(plan),
        scope=_UV,
        files={**files, f"{folder}/pylock.toml": pylock(packages)},
        requirements=f"{folder}/pylock.toml",
    )


def source_step(
    plan: ImagePlan, packages: Sequence[SelectedPackage], locate: Callable[[str], str] = lambda url: url
) -> Step:
    """Build packages and install them: one, or several that share a layer; `locate` finds an index's mirror."""
    folder = f"source-{packages[0].name}"
    settings = _build_settings(plan, packages, folder, locate)
    return Step(
        title=f"build {', '.join(package.name for package in packages)} from source",
        setup=_new_environment(plan),
        script=_settings(plan) + _ssh(plan, packages) + _uv_settings(plan, settings) + _install(plan),
        scope=_UV,
        files={f"{folder}/pylock.toml": pylock(packages), **settings},
        requirements=f"{folder}/pylock.toml",
    )


def cached_step(
    plan: ImagePlan, packages: Sequence[SelectedPackage], locate: Callable[[str], str] = lambda url: url
) -> Step:
    """Fill the cache with the packages of a group that the environment does not have; see `source_step`."""
    folder = f"cached-{packages[0].name}-{len(packages)}"
    built = [package for package in packages if not package.is_wheel]
    settings = _build_settings(plan, built, folder, locate) if built else {}
    script = render_template("steps/cached.sh.j2", plan, requirements='"$REQUIREMENTS"')
    return Step(
        title=f"cache {counted(len(packages), 'package')}",
        script=_settings(plan) + _ssh(plan, packages) + _uv_settings(plan, settings) + script,
        scope=_UV,
        files={f"{folder}/pylock.toml": pylock(packages), **settings},
        requirements=f"{folder}/pylock.toml",
    )


def tool_step(plan: ImagePlan, tool: Tool) -> Step:
    """Install a tool that the matrix names into an environment of its own."""
    folder = f"tool-{tool.name}"
    script = render_template("steps/tool.sh.j2", plan, tool=tool, requirements='"$REQUIREMENTS"')
    return Step(
        title=f"install the tool {tool.name}",
        script=_settings(plan) + script,
        scope=_UV,
        files={RECEIPT_NAME: template_bytes(RECEIPT_NAME), f"{folder}/pylock.toml": pylock(tool.packages)},
        requirements=f"{folder}/pylock.toml",
    )


def _system_packages(plan: ImagePlan, packages: Sequence[str], period: str = "") -> str:
    return _STRICT + render_template(f"steps/{plan.cell.family}.sh.j2", plan, packages=packages, period=period)


def _settings(plan: ImagePlan) -> str:
    return _STRICT + render_template("steps/settings.sh.j2", plan)


def _uv_settings(plan: ImagePlan, files: Iterable[str]) -> str:
    config = next((f"/run/builder/{name}" for name in files), "")
    return render_template("steps/uv-settings.sh.j2", plan, config=config)


def _ssh(plan: ImagePlan, packages: Sequence[SelectedPackage]) -> str:
    return render_template("steps/ssh.sh.j2", plan) if any(package.is_over_ssh for package in packages) else ""


def _new_environment(plan: ImagePlan) -> str:
    return _settings(plan) + render_template("steps/venv.sh.j2", plan)


def _install(plan: ImagePlan) -> str:
    return render_template("steps/packages.sh.j2", plan, requirements='"$REQUIREMENTS"')
