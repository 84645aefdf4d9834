"""Read a `.gitlab-ci.yml` and, as GitLab does, the files of the checkout that it includes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from builder.gitlab.adopt.file import GitLabFile, read_gitlab_file
from builder.gitlab.adopt.node import Alias, Collection, Node, Scalar
from builder.gitlab.adopt.pipeline import Include, Pipeline

MAIN: Final = ".gitlab-ci.yml"
_KEYWORDS: Final = ("local", "project", "remote", "template", "component", "artifact")
_URL: Final = re.compile(r"https?://")


def read_pipeline(path: Path) -> Pipeline:
    """Read a file and what it includes; raise a GitLabFileError if one of them is not a GitLab file."""
    top = top_folder(path)
    reader = _Reader(top)
    reader.read(path, read_gitlab_file(path, str(path)))
    return Pipeline(
        files=tuple(reader.files),
        folder=top,
        foreign=tuple(reader.foreign),
        is_part=_is_part(path, top),
        children=tuple(dict.fromkeys(child for child in _children(reader.files) if (top / child).is_file())),
    )


def _is_part(path: Path, top: Path) -> bool:
    """Whether the repository's own pipeline includes this file."""
    main = top / MAIN
    if not main.is_file() or main.resolve() == path.resolve():
        return False
    reader = _Reader(top)
    reader.read(main, read_gitlab_file(main, str(main)))
    return path.resolve() in reader.seen


def top_folder(path: Path) -> Path:
    """The folder that includes are relative to: the repository's; without one, the working directory or the file's."""
    folder = path.resolve().parent
    repository = next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)
    return repository or (Path.cwd() if folder.is_relative_to(Path.cwd()) else folder)


class _Reader:
    """Collects the files by precedence: each file before what it includes, later includes before earlier ones."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self.seen: set[Path] = set()
        self.files: list[GitLabFile] = []
        self.foreign: list[Include] = []

    def read(self, path: Path, file: GitLabFile) -> None:
        self.seen.add(path.resolve())
        self.files.append(file)
        for include in reversed(list(_includes(file))):
            paths = list(self._local(include.value)) if include.keyword == "local" else []
            if not paths:
                self.foreign.append(include)
            for found in reversed(paths):
                if found.resolve() not in self.seen:
                    self.read(found, read_gitlab_file(found, self._source(found)))

    def _local(self, value: str) -> Iterator[Path]:
        """The files that a value names, which may have wildcards."""
        name = value.lstrip("/")
        path = self._top / name
        if "*" in name:
            yield from self._matching(name)
        elif path.is_file() and path.resolve().is_relative_to(self._top.resolve()):
            yield path

    def _matching(self, pattern: str) -> Iterator[Path]:
        expression = _expression(pattern)
        start = self._top / pattern.partition("*")[0].rpartition("/")[0]
        for folder, folders, names in os.walk(start):
            folders[:] = sorted(set(folders) - {".git", "node_modules"})
            for name in sorted(names):
                path = Path(folder, name)
                if expression.fullmatch(path.relative_to(self._top).as_posix()):
                    yield path

    def _source(self, path: Path) -> str:
        here = Path.cwd()
        return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _expression(pattern: str) -> re.Pattern[str]:
    """GitLab's wildcards: `*` within a folder, `**` across folders."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    return re.compile("".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*)", pattern)))


def _includes(file: GitLabFile) -> Iterator[Include]:
    for slot in file.root.slots:
        if slot.name == "include":
            yield from _listed(slot.value)


def _listed(node: Node) -> Iterator[Include]:
    """The includes of an `include:`: a text, a mapping, or a list of both."""
    value = node.target if isinstance(node, Alias) else node
    if isinstance(value, Scalar):
        yield Include(keyword="remote" if _URL.match(value.value) else "local", value=value.value)
    elif value.is_mapping:
        table = {slot.name: slot.value for slot in value.slots}
        keyword = next((each for each in _KEYWORDS if each in table), "")
        named = table.get(keyword)
        yield Include(keyword=keyword, value=named.value if isinstance(named, Scalar) else "")
    else:
        for item in value.slots:
            yield from _listed(item.value)


def _children(files: Sequence[GitLabFile]) -> Iterator[str]:
    """The local files that the trigger jobs of these files run as child pipelines."""
    for file in files:
        for job in file.root.slots:
            trigger = _entry(job.value, "trigger")
            include = _entry(trigger, "include") if trigger else None
            for child in _listed(include) if include else ():
                if child.keyword == "local" and not set("$*") & set(child.value):
                    yield child.value.lstrip("/")


def _entry(node: Node, name: str) -> Node | None:
    if not isinstance(node, Collection) or not node.is_mapping:
        return None
    return next((slot.value for slot in node.slots if slot.name == name), None)
