"""A child pipeline for GitLab: a build job for each cell that the registry lacks, then one that moves the tags."""

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
    """What the commands of a child pipeline are given: `options` all of them, `building` the builds beside those.

    `only` is the choice of cells that are promoted, as `--only` has it; with `prune`, the rest is deleted afterwards.
    """

    options: Sequence[str]
    building: Sequence[str] = ()
    only: Sequence[str] = ()
    prune: bool = False

    def build(self, cell: Cell) -> str:
        """Build one cell and push it; no tag that jobs name moves."""
        only = f"python={cell.python},base={cell.base}"
        return _command("build", "--push", "--promote", "none", "--only", only, *self.options, *self.building)

    def promote(self) -> str:
        """Move the tags of all cells, once each of them is there."""
        return _command("promote", *(word for each in self.only for word in ("--only", each)), *self.options)

    def delete(self) -> list[str]:
        """Delete what nothing needs, where that is wanted."""
        return [_command("prune", "--delete", *self.options)] if self.prune else []


def pipeline_yaml(states: Sequence[RegistryState], keywords: Mapping[str, Any], commands: Commands) -> str:
    """A child pipeline: a build job for each cell that the registry lacks, then one that moves the tags of all.

    `keywords` are what every job has: image, tags, services, …. Where nothing is to be done, the one job says so.
    """
    building = [each.rendered.plan.cell for each in states if each.digest is None]
    jobs: dict[str, Any] = {
        f"build {cell.name}": {"stage": "build", **keywords, "script": [commands.build(cell)]} for cell in building
    }
    if any(each.status != "up-to-date" for each in states):
        last, script = "promote", commands.promote()
    else:
        last, script = "nothing to do", f"echo '{len(states)} cells are up to date'"
    jobs[last] = {"stage": "promote", **keywords, "script": [script, *commands.delete()]}
    head = f"# Written by `builder ci pipeline` for {len(building)} of {len(states)} cells; "
    head += "run that again rather than edit this.\n"
    stages = {"stages": ["build", "promote"] if building else ["promote"]}
    parts = [stages, *({name: job} for name, job in jobs.items())]
    return head + "\n".join(_dumped(part) for part in parts)


def _command(*words: str) -> str:
    return shlex.join(["builder", *words])


def job_keywords(text: str, source: str) -> dict[str, Any]:
    """Parse the keywords that every job of a child pipeline has: a YAML mapping of GitLab's job keywords.

    Raises UsageError on anything else, and on keywords that the pipeline sets itself.
    """
    try:
        table = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict) or not all(isinstance(key, str) for key in table):
        raise UsageError(
            f"{source} is no mapping of job keywords", hint="write image: …, tags: […], services: […] as in a job"
        )
    ours = sorted(table.keys() & {"script", "stage", "needs", "trigger"})
    if ours:
        raise UsageError(f"{source} has {', '.join(ours)}, which the pipeline sets itself", hint="leave that out")
    return {key: value for key, value in table.items() if value != []}  # GitLab's schema wants no empty list of tags


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, as people write them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        """See PyYAML."""
        super().increase_indent(flow, False)


def _dumped(part: Mapping[str, Any]) -> str:
    text: str = yaml.dump(part, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)
    return text
