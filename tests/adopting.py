"""`builder ci adopt` for tests: run it on a text, apply its diff, and validate the result."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.commandline import Ended, builder
from tests.gitlab import MATRIX

Adopt = Callable[..., tuple[str, str]]

BAKED = "test:\n  image: $CI_REGISTRY_IMAGE/ci:3.12-alpine\n"


def job(image: str, *more: str) -> str:
    """A file with one job, which installs and tests."""
    lines = [f"  {line}\n" for each in more for line in each.splitlines()]
    return f"test:\n  image: {image}\n{''.join(lines)}  script:\n    - uv sync --frozen\n    - pytest\n"


def script(*lines: str) -> str:
    """A file with one job, already on a baked image, with these lines and one more."""
    return BAKED + "  script:\n" + "".join(f"    - {line}\n" for line in (*lines, "pytest"))


def run_adopt(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, matrix: str = MATRIX) -> Ended:
    """Run `builder ci adopt` on a text in a folder."""
    monkeypatch.chdir(folder)
    (folder / ".gitlab-ci.yml").write_bytes(text.encode())
    (folder / "matrix.toml").write_text(matrix, encoding="utf-8")
    ended = builder("ci", "adopt", "--explain")
    assert (folder / ".gitlab-ci.yml").read_bytes() == text.encode()
    return ended


def run_adopt_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, str], *arguments: str, matrix: str = MATRIX
) -> Ended:
    """Run `builder ci adopt` in a folder with these files, and with a matrix unless its text is empty."""
    monkeypatch.chdir(folder)
    for name, text in {**files, **({"matrix.toml": matrix} if matrix else {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return builder("ci", "adopt", "--explain", *arguments)


def changed_lines(diff: str) -> dict[str, str]:
    """The removed and added lines of a diff by file."""
    changed: dict[str, str] = {}
    for part in re.split(r"^--- .*\n\+\+\+ b/", diff, flags=re.MULTILINE)[1:]:
        name, *lines = part.splitlines(keepends=True)
        changed[name.rstrip()] = "".join(line for line in lines if line[0] in "+-")
    return changed


def added_file(diff: str, name: str) -> str:
    """The text of a new file in a diff."""
    part = diff.partition(f"--- /dev/null\n+++ b/{name}\n")[2].partition("--- /dev/null\n")[0]
    return "".join(line[1:] for line in part.splitlines(keepends=True)[1:])


def applied(text: str, diff: str) -> str:
    """Apply a unified diff to a text."""
    old, position = re.findall(r"[^\n]*\n|[^\n]+\Z", text), 0
    new: list[str] = []
    before = ""
    for line in re.findall(r"[^\n]*\n", diff)[2:]:
        if hunk := re.match(r"@@ -(\d+)", line):
            start = int(hunk[1]) - 1
            new += old[position:start]
            position = start
        elif line[0] == "\\":
            new[-1:] = [new[-1].removesuffix("\n")] if before[0] != "-" else new[-1:]
        elif line[0] == "+":
            new.append(line[1:])
        else:
            assert old[position].removesuffix("\n") == line[1:].removesuffix("\n")
            new += [old[position]] if line[0] == " " else []
            position += 1
        before = line
    return "".join(new + old[position:])


class _Reference(tuple[str, ...]):
    """The path of a `!reference`."""


class _Loader(yaml.SafeLoader):
    """A YAML loader that knows `!reference`."""


def _reference(loader: _Loader, node: yaml.Node) -> _Reference:
    assert isinstance(node, yaml.SequenceNode)
    return _Reference(loader.construct_sequence(node))


_Loader.add_constructor("!reference", _reference)


def _resolved(value: Any, root: Any, seen: tuple[_Reference, ...] = ()) -> Any:
    """A value with its references resolved, which GitLab's schema does not know; a circular one becomes a text."""
    if isinstance(value, _Reference):
        target = root
        for key in value:
            target = target[key]
        return "circular" if value in seen else _resolved(target, root, (*seen, value))
    if isinstance(value, dict):
        return {key: _resolved(item, root, seen) for key, item in value.items()}
    return [_resolved(item, root, seen) for item in value] if isinstance(value, list) else value


def assert_valid(before: str, after: str) -> None:
    """Validate a file with GitLab's schema, before and after the change."""
    schema: Any = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/gitlab-ci.json").read_bytes())
    validator = jsonschema.Draft7Validator(schema)
    for text in (before, after):
        document = list(yaml.load_all(text, Loader=_Loader))[-1]
        resolved = _resolved(document, document)
        assert validator.is_valid(resolved), next(validator.iter_errors(resolved)).message
