"""A child pipeline for GitLab: jobs that build each missing cell, jobs on these images that verify them, a promotion.

A build job pushes an image under a tag that says that it is unverified, and hands the checks over as an artifact. The
job that verifies it runs on the image itself, on the runner that will use it. What passed gets its immutable tag, and
the moving tags move, when all have passed.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import yaml

from builder.errors import UsageError, counted
from builder.gitlab.reports import report_artifacts
from builder.image.render import RenderedImage
from builder.matrix.model import Cell, Platform
from builder.release.state import RegistryState
from builder.verify.handover import DOTENV_NAME, IMAGE_VARIABLE, RESULTS_NAME, SCRIPT_NAME

FOLDER: Final = "prebuilt-verify"  # in the checkout, for what build jobs hand over
_OF_RUNNER: Final = {"tags", "interruptible", "retry", "timeout"}


@dataclass(frozen=True, kw_only=True)
class Commands:
    """The builder commands of a child pipeline: all get `options`, and builds also get `build_options`.

    `only` selects the cells to promote, as `--only` does. With `prune`, unused images are deleted afterwards.
    `reports` is a folder for the reports of the promotion. With `environments`, each promoted cell has a deployment.
    """

    options: Sequence[str]
    build_options: Sequence[str] = ()
    only: Sequence[str] = ()
    prune: bool = False
    reports: str = ""
    environments: bool = False

    def build(self, cell: Cell) -> str:
        """The command that builds and pushes one cell, without verifying it."""
        only = ["--only", cell.selector]
        if cell.platforms:
            only += ["--platform", str(cell.platform)]
        return _command("build", "--push", "--verify-later", FOLDER, *only, *self.options, *self.build_options)

    def promote(self, *, verified: bool) -> str:
        """The command that moves the tags of all cells, those among them that jobs of the pipeline have verified."""
        only = [word for selector in self.only for word in ("--only", selector)]
        reports = ("--reports", self.reports) if self.reports else ()
        return _command("promote", *(("--results", FOLDER) if verified else ()), *reports, *only, *self.options)

    def delete(self) -> list[str]:
        """The command that deletes unused images, if requested."""
        return [_command("prune", "--delete", *self.options)] if self.prune else []


Runners = Mapping[Platform, Sequence[str]]  # tags of runners for jobs that need a machine of a platform


def read_runners(texts: Sequence[str]) -> Runners:
    """Parse `linux/arm64=TAG,TAG`, several separated by spaces; raise UsageError for anything else."""
    runners: dict[Platform, Sequence[str]] = {}
    for text in (word for each in texts for word in each.split()):
        platform, equals, tags = text.partition("=")
        if not equals or not all(tags.split(",")):
            raise UsageError(f"--runners {text!r} names no tags", hint="write linux/arm64=TAG or linux/arm64=TAG,TAG")
        runners[Platform.from_str(platform)] = tags.split(",")
    return runners


def pipeline_yaml(
    states: Sequence[RegistryState],
    keywords: Mapping[str, Any],
    commands: Commands,
    runners: Runners = {},  # noqa: B006
) -> str:
    """A child pipeline: jobs to build and verify each cell that the registry lacks, then one that moves all tags.

    Every job gets the `keywords`: image, tags, services, …; those that verify only the ones that choose the runner.
    Jobs that run something of an image for a platform get the tags of its runners. If there is nothing to do, the only
    job says so.
    """
    missing = [state.rendered for state in states if state.digest is None]
    jobs: dict[str, Any] = {}
    for image in missing:
        cell = image.plan.cell
        own = {**keywords, "tags": list(runners[cell.platform])} if cell.platform in runners else keywords
        jobs[f"build {cell.name}"] = _build_job(cell, own if must_run(image) else keywords, commands)
        jobs[f"verify {cell.name}"] = _verify_job(cell, own)
    jobs = dict(sorted(jobs.items(), key=lambda pair: pair[0].partition(" ")[0]))
    if any(state.status != "up-to-date" for state in states):
        last, script = "promote", commands.promote(verified=bool(missing))
    else:
        last, script = (
            "nothing to do",
            f"echo '{counted(len(states), 'cell')} {'is' if len(states) == 1 else 'are'} up to date'",
        )
    jobs[last] = {"stage": "promote", **keywords, "script": [script, *commands.delete()]}
    if last == "promote" and commands.reports:
        jobs[last]["artifacts"] = report_artifacts(commands.reports)
    if last == "promote" and commands.environments:
        moved = {state.rendered.plan.cell.tag: state for state in states if state.status != "up-to-date"}
        jobs |= {f"use {tag}": _deployment_job(state, keywords) for tag, state in moved.items()}
    head = f"# Written by `builder ci pipeline` for {len(missing)} of {counted(len(states), 'cell')}; "
    head += "do not edit, run it again instead.\n"
    stages = {"stages": [*(["build", "verify"] if missing else []), "promote"]}
    if any(job["stage"] == "use" for job in jobs.values()):
        stages["stages"].append("use")
    parts = [stages, *({name: job} for name, job in jobs.items())]
    return head + "\n".join(_dumped(part) for part in parts)


def must_run(image: RenderedImage) -> bool:
    """Whether making the image takes a machine that runs its programs: what it builds, and its system packages."""
    return bool(image.plan.cell.packages) or any(
        package.artifact != "wheel" for package in image.plan.selection.packages
    )


def _build_job(cell: Cell, keywords: Mapping[str, Any], commands: Commands) -> dict[str, Any]:
    folder = f"{FOLDER}/{cell.name}"
    artifacts = {
        "paths": [f"{folder}/{SCRIPT_NAME}"],
        "reports": {"dotenv": f"{folder}/{DOTENV_NAME}"},
        "expire_in": "1 week",
    }
    return {"stage": "build", **keywords, "script": [commands.build(cell)], "artifacts": artifacts}


def _verify_job(cell: Cell, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """A job on the image, by its digest: its runner needs no engine for jobs, and the image nothing of builder."""
    folder = f"{FOLDER}/{cell.name}"
    results = f"{folder}/{RESULTS_NAME}"
    return {
        "stage": "verify",
        **{name: value for name, value in keywords.items() if name in _OF_RUNNER},
        "needs": [f"build {cell.name}"],
        "image": f"${IMAGE_VARIABLE}",
        "script": [shlex.join(["sh", f"{folder}/{SCRIPT_NAME}", results])],
        "artifacts": {
            "when": "always",
            "paths": [results],
            "reports": {"junit": str(PurePosixPath(results).with_suffix(".xml"))},
            "expire_in": "1 week",
        },
    }


def _deployment_job(state: RegistryState, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """A job on the image that a cell's tag names now: the first user of it, and a deployment in GitLab's history."""
    tag = state.rendered.moving_tags[0]
    return {
        "stage": "use",
        **{name: value for name, value in keywords.items() if name in _OF_RUNNER},
        "needs": ["promote"],
        "image": {"name": str(tag), "pull_policy": ["always", "if-not-present"]},
        "variables": {"GIT_STRATEGY": "none"},
        "script": ["prebuilt-status || true"],
        "environment": {"name": f"prebuilt/{state.rendered.plan.cell.tag}", "deployment_tier": "other"},
    }


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
    reserved = sorted(table.keys() & {"script", "stage", "needs", "trigger", "artifacts"})
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
