"""A child pipeline for GitLab: a build job for each missing cell, then a job that moves the tags."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from builder.errors import UsageError
from builder.matrix.model import Cell
from builder.release.state import RegistryState


@dataclass(frozen=True, kw_only=True)
class Commands:
    """The builder commands of a child pipeline: all get `options`, and builds also get `build_options`.

    `only` selects the cells to promote, as `--only` does. With `prune`, unused images are deleted afterwards.
    """

    options: Sequence[str]
    build_options: Sequence[str] = ()
    only: Sequence[str] = ()
    prune: bool = False

    def build(self, cell: Cell) -> str:
        """The command that builds and pushes one cell, without moving its tags."""
        only = f"python={cell.python},base={cell.base}"
        return _command("build", "--push", "--promote", "none", "--only", only, *self.options, *self.build_options)

    def promote(self) -> str:
        """The command that moves the tags of all cells."""
        return _command("promote", *(word for selector in self.only for word in ("--only", selector)), *self.options)

    def delete(self) -> list[str]:
        """The command that deletes unused images, if requested."""
        return [_command("prune", "--delete", *self.options)] if self.prune else []


def pipeline_yaml(states: Sequence[RegistryState], keywords: Mapping[str, Any], commands: Commands) -> str:
    """A child pipeline: a build job for each cell that the registry lacks, then a job that moves all tags.

    Every job gets the `keywords`: image, tags, services, …. If there is nothing to do, the only job says so.
    """
    missing = [state.rendered.plan.cell for state in states if state.digest is None]
    jobs: dict[str, Any] = {
        f"build {cell.name}": {"stage": "build", **keywords, "script": [commands.build(cell)]} for cell in missing
    }
    if any(state.status != "up-to-date" for state in states):
        last, script = "promote", commands.promote()
    else:
        last, script = "nothing to do", f"echo '{len(states)} cells are up to date'"
    jobs[last] = {"stage": "promote", **keywords, "script": [script, *commands.delete()]}
    head = f"# Written by `builder ci pipeline` for {len(missing)} of {len(states)} cells; "
    head += "do not edit, run it again instead.\n"
    stages = {"stages": ["build", "promote"] if missing else ["promote"]}
    parts = [stages, *({name: job} for name, job in jobs.items())]
    return head + "\n".join(_dumped(part) for part in parts)


def _command(*words: str) -> str:
    return shlex.join(["builder", *words])


def job_keywords(text: str, source: str) -> dict[str, Any]:
    """Parse the job keywords, a YAML mapping, that every job of a child pipeline gets.

    Raises UsageError for anything else, and for keywords that the pipeline sets itself.
    """
    try:
        table = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict) or not all(isinstance(key, str) for key in table):
        raise UsageError(
            f"{source} is not a mapping of job keywords", hint="write image: …, tags: […], services: […] as in a job"
        )
    reserved = sorted(table.keys() & {"script", "stage", "needs", "trigger"})
    if reserved:
        raise UsageError(f"{source} has {', '.join(reserved)}, which the pipeline sets itself", hint="remove that")
    return {key: value for key, value in table.items() if value != []}  # GitLab's schema rejects an empty list of tags


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, as is usual."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        """See PyYAML."""
        super().increase_indent(flow, False)


def _dumped(part: Mapping[str, Any]) -> str:
    text: str = yaml.dump(part, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)
    return text
