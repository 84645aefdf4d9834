"""`uv.lock` files for tests, as uv writes them, of packages in an index that does not exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.locks import FILES, INDEX, fake_hash


def package(name: str, version: str = "1.0", *, files: Sequence[str] | None = None, source: str = "") -> str:
    """The entry of a package with these files; by default a wheel for every platform, in the index."""
    names = (f"{name}-{version}-py3-none-any.whl",) if files is None else files
    wheels = "".join(f"    {_file(file)},\n" for file in names if file.endswith(".whl"))
    sdists = "".join(f"sdist = {_file(file)}\n" for file in names if not file.endswith(".whl"))
    source = source or f'registry = "{INDEX}"'
    head = f'[[package]]\nname = "{name}"\nversion = "{version}"\nsource = {{ {source} }}\n'
    return head + sdists + (f"wheels = [\n{wheels}]\n" if wheels else "")


def _file(name: str) -> str:
    url = name if "://" in name else f"{FILES}/{name}"
    return f'{{ url = "{url}", hash = "sha256:{fake_hash(name)}", size = 1000 }}'


def write_project(
    folder: Path,
    *packages: str,
    markers: Mapping[str, str] | None = None,
    more: str = "",
    python: str = ">=3.8",
    name: str = "app",
) -> Path:
    """Write a project that depends on the packages, and its lock; return the lock's path.

    `markers` are those of the dependencies; `more` is appended to the pyproject.toml.
    """
    marked = [(entry.split('"')[1], (markers or {}).get(entry.split('"')[1])) for entry in packages]
    dependencies = [f"{dependency}; {marker}" if marker else dependency for dependency, marker in marked]
    project = (
        f'[project]\nname = "{name}"\nversion = "1.0"\nrequires-python = "{python}"\ndependencies = {dependencies}\n'
    )
    (folder / "pyproject.toml").write_text(project + more, encoding="utf-8")
    edges = "".join(map(_edge, marked))
    root = (
        f'[[package]]\nname = "{name}"\nversion = "1.0"\nsource = {{ virtual = "." }}\n'
        f"dependencies = [\n{edges}]\n\n[package.metadata]\nrequires-dist = [\n{edges}]\n"
    )
    path = folder / "uv.lock"
    head = f'version = 1\nrevision = 3\nrequires-python = "{python}"\n'
    path.write_text("\n".join([head, root, *packages]), encoding="utf-8")
    return path


def _edge(dependency: tuple[str, str | None]) -> str:
    name, marker = dependency
    return f'    {{ name = "{name}"' + (f', marker = "{marker}"' if marker else "") + " },\n"


def write_script(folder: Path, *packages: str, more: str = "", python: str = ">=3.8") -> Path:
    """Write a script that depends on the packages, and its lock; return the lock's path. `more` ends its metadata."""
    names = [entry.split('"')[1] for entry in packages]
    metadata = f'requires-python = "{python}"\ndependencies = {names}\n{more}'
    lines = "".join(f"# {line}\n" for line in metadata.splitlines())
    (folder / "tool.py").write_text(f"#!/usr/bin/env python\n# /// script\n{lines}# ///\n", encoding="utf-8")
    requirements = "".join(f'{{ name = "{name}" }}, ' for name in names)
    head = f'version = 1\nrevision = 3\nrequires-python = "{python}"\n\n[manifest]\nrequirements = [{requirements}]\n'
    path = folder / "tool.py.lock"
    path.write_text("\n".join([head, *packages]), encoding="utf-8")
    return path
