"""Published images → what GitLab reads of them: the jobs that others extend, a dotenv file, a child pipeline.

Everything here is text, the same for the same images, and valid by GitLab's schema of `.gitlab-ci.yml`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from builder.errors import UsageError
from builder.matrix import Cell
from builder.refs import Digest, ImageRef
from builder.standing import Standing

_BY: Final = "run that again rather than edit this"


@dataclass(frozen=True, kw_only=True)
class JobImage:
    """A cell's image as jobs name it: the moving tag, and the digest that it named when asked."""

    cell: Cell
    tag: ImageRef
    digest: Digest

    @property
    def pinned(self) -> ImageRef:
        """The image by its digest alone, which nobody can move."""
        return self.tag.with_digest(self.digest).without_tag()

    @property
    def variable(self) -> str:
        """The name of the cell's variable in a dotenv file."""
        return "PREBUILT_" + re.sub("[^A-Z0-9]", "_", self.cell.name.upper())


def jobs_yaml(images: Sequence[JobImage], default: str, *, pin: bool) -> str:
    """One hidden job for each cell, and `.prebuilt` for the default cell, for jobs to extend.

    A tag moves, so that a runner is to ask for it each time, and may run what it has where the registry does not
    answer; a digest need not be asked for again. Runners that allow only one of the two policies take that one.
    """
    repository = images[0].tag.familiar.rpartition(":")[0]
    lines = [f"# The images of {repository}, for jobs to extend.", f"# Written by `builder ci images`; {_BY}.", ""]
    for image in images:
        lines += [f".prebuilt-{image.cell.name}:", "  image:"]
        if pin:
            lines += [
                f"    # {image.tag.tag}",
                f"    name: {image.pinned}",
                "    pull_policy: [if-not-present, always]",
            ]
        else:
            lines += [f"    name: {image.tag}", "    pull_policy: [always, if-not-present]"]
        lines += [""]
    lines += [".prebuilt:", f"  extends: .prebuilt-{default}"]
    return "\n".join(lines) + "\n"


def dotenv(images: Sequence[JobImage], default: str, *, pin: bool) -> str:
    """`PREBUILT_<CELL>=<image>` for each cell, and `PREBUILT_DEFAULT`, for `artifacts: reports: dotenv`.

    Raises UsageError where two cells would have one variable.
    """
    names: dict[str, str] = {}
    for image in images:
        other = names.setdefault(image.variable, image.cell.name)
        if other != image.cell.name:
            raise UsageError(
                f"{other} and {image.cell.name} would both be {image.variable} in a dotenv file",
                hint="give one of the bases another name in the matrix",
            )
    lines = [f"{image.variable}={image.pinned if pin else image.tag}" for image in images]
    (chosen,) = [image for image in images if image.cell.name == default]
    return "\n".join([*lines, f"PREBUILT_DEFAULT={chosen.pinned if pin else chosen.tag}"]) + "\n"


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
        return _command("push", "--promote", *(word for each in self.only for word in ("--only", each)), *self.options)

    def delete(self) -> list[str]:
        """Delete what nothing needs, where that is wanted."""
        return [_command("prune", "--delete", *self.options)] if self.prune else []


def pipeline_yaml(standings: Sequence[Standing], keywords: Mapping[str, Any], commands: Commands) -> str:
    """A child pipeline: a build job for each cell that the registry lacks, then one that moves the tags of all.

    `keywords` are what every job has: image, tags, services, …. Where nothing is to be done, the one job says so.
    """
    building = [each.rendered.plan.cell for each in standings if each.digest is None]
    jobs: dict[str, Any] = {
        f"build {cell.name}": {"stage": "build", **keywords, "script": [commands.build(cell)]} for cell in building
    }
    if any(each.state != "up-to-date" for each in standings):
        last, script = "promote", commands.promote()
    else:
        last, script = "nothing to do", f"echo '{len(standings)} cells are up to date'"
    jobs[last] = {"stage": "promote", **keywords, "script": [script, *commands.delete()]}
    head = f"# Written by `builder ci pipeline` for {len(building)} of {len(standings)} cells; {_BY}.\n"
    stages = {"stages": ["build", "promote"] if building else ["promote"]}
    parts = [stages, *({name: job} for name, job in jobs.items())]
    return head + "\n".join(_dumped(part) for part in parts)


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, as people write them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        """See PyYAML."""
        super().increase_indent(flow, False)


def _dumped(part: Mapping[str, Any]) -> str:
    text: str = yaml.dump(part, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)
    return text


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
