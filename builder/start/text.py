"""The files that a project begins with, as text: small, and with the reason beside each setting."""

from __future__ import annotations

import json
from collections.abc import Mapping

from builder.gitlab.adopt.installed import Installed
from builder.gitlab.adopt.proposal import axes_lines, bases_lines
from builder.gitlab.component import include_lines
from builder.start.survey import Survey

_HEAD = """\
# The images that this project's jobs run on: one for each Python on each base. `builder plan` shows them;
# docs/matrix.md of builder has every setting.

# Where `builder build --push` puts them, unless a GitLab job says it: $CI_REGISTRY_IMAGE/ci.
# repository = "registry.example.com/acme/ci"
"""


def matrix_text(found: Survey) -> str:
    """The text of a matrix.toml."""
    pythons, *others = axes_lines(found.wanted)
    lines = [_HEAD, f"# {_sentence(found.python_why)}", pythons, f"# {_sentence(found.base_why)}", *others]
    if found.uv:
        lines += ["# The lock requires or installs it.", f'uv = "{found.uv}"']
    if found.tools:
        lines += ["# Jobs run them by uvx.", f"tools = {json.dumps(found.tools)}"]
    lines += _install_lines(found)
    bases = bases_lines(found.wanted)
    if at := next((number for number, line in enumerate(bases) if line.startswith("packages =")), 0):
        bases.insert(at, f"# System packages: {found.packages_why}.")
    return "\n".join([*lines, *bases]) + "\n"


def _install_lines(found: Survey) -> list[str]:
    """The table [install]; as a comment if nothing is installed besides the default groups."""
    lines = []
    for key, choice in (("groups", found.groups), ("extras", found.extras)):
        if choice.names:
            lines += [f"# {_sentence(choice.why)}{_besides(choice)}", f"{key} = {_value(choice)}"]
        elif choice.others:
            lines += [f"# {key} = {json.dumps(list(choice.others))}   # jobs would find these installed, too"]
    if not lines:
        return []
    is_used = bool(found.groups.names or found.extras.names)
    return ["", "[install]   # besides the project's dependencies and its default groups", *lines] if is_used else [
        "", "# [install]   # besides the project's dependencies and its default groups", *lines,
    ]  # fmt: skip


def _value(choice: Installed) -> str:
    return json.dumps(choice.names if isinstance(choice.names, str) else list(choice.names))


def _besides(choice: Installed) -> str:
    return f" No job installs {', '.join(choice.others)}." if choice.others else ""


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def pipeline_text(address: str, inputs: Mapping[str, str], tag: str, script: list[str]) -> str:
    """The text of a .gitlab-ci.yml that includes the component, and has one job on an image."""
    lines = [
        "include:",
        *(f"  {line}" for line in include_lines(address, inputs)),
        "",
        "workflow:",
        "  rules:",
        '    - if: $CI_PIPELINE_SOURCE == "merge_request_event"',
        "    - if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH",
        "",
        "test:",
        f"  image: $CI_REGISTRY_IMAGE/ci:{tag}$PREBUILT",
        "  script:",
        *(f"    - {line}" for line in script),
    ]
    return "\n".join(lines) + "\n"
