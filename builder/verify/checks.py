"""The nine checks: what each one proves, the script that a job runs for it, and what the script's output shows."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from builder.contract import BUILDS, CACHE, PROBES, SELECTION, VENV
from builder.layer.assemble import AssembledImage
from builder.lock.project import has_overrides
from builder.oci.archive import ImageArchive
from builder.parse import Document, MalformedError, parse_value
from builder.verify.job import ScriptResult, Subject, run_scripts
from builder.verify.search import LeakError, search_assembled, search_image

_Value = TypeVar("_Value")
_UNKNOWN_USER: Final = "12345:12345"  # in no passwd file
# What is below the environment and the cache, and closed to users who do not own it; nothing in a good image.
_CLOSED_FILES: Final = (
    f"find {VENV} {CACHE} ! -type l \\( ! -perm -004 -o -type d ! -perm -005 \\) > /tmp/closed\nhead -n 3 /tmp/closed"
)
_OTHER_PYTHON: Final = "3.7"  # no image has it


class _Bytecode(Document):
    """The output of probes/bytecode.py."""

    files: int
    accepted: int
    uncompilable: int
    faults: tuple[tuple[str, str], ...]


class _Installed(Document):
    """A package in the output of `uv pip list --format json`."""

    name: str
    version: str


class Failed(Exception):  # noqa: N818 - a verdict
    """A check failed; `str()` is the evidence."""


@dataclass(frozen=True, kw_only=True)
class ScriptCheck:
    """A check that a script makes; `judge` returns the evidence in the script's output, or raises Failed."""

    script: Callable[[Subject], str]
    judge: Callable[[Subject, str], str]
    needs_uv_lock: bool = False

    def evidence(self, subject: Subject, result: ScriptResult) -> str:
        """What the script showed; raise Failed if it failed, or showed something else than the image promises."""
        if result.exit_code:
            raise Failed(result.tail)
        return self.judge(subject, result.output)


def _sync_frozen(subject: Subject) -> str:
    """1: a job's sync leaves the environment unchanged."""
    return _unchanged(subject.sync or _reinstall(""))


def _project_offline(subject: Subject) -> str:
    """2: the project itself installs without a network, because its build backend is in the cache."""
    return subject.in_copy("project-offline", (subject.sync or "").replace(" --no-install-local", ""))


def _second_environment(subject: Subject) -> str:
    """3: a second environment installs from the cache alone."""
    fresh = "/tmp/second-environment"  # noqa: S108 - a path in the container
    if subject.sync:
        script = f"UV_PROJECT_ENVIRONMENT={fresh} {subject.sync}"
    else:
        script = f"uv venv --quiet {fresh}\n{_reinstall(f'--python {fresh}')}"
    return f"{script}\nls -d {fresh}/lib/python*/site-packages/*.dist-info | wc -l" if subject.selection else "echo 0"


def _judge_second_environment(subject: Subject, output: str) -> str:
    count = _last_line(output).strip()
    if not count.isdecimal():
        raise Failed(f"wc -l printed {count!r} in the image")
    if int(count) < len(subject.selection):
        raise Failed(f"{count} of {len(subject.selection)} packages are in the second environment")
    return f"{count} packages from the cache, without a network"


def _python_version_file(subject: Subject) -> str:
    """4: a `.python-version` file with another version does not replace the environment."""
    return subject.in_copy(
        "python-version-file",
        f"echo {_OTHER_PYTHON} > .python-version\n"
        f"{_unchanged(subject.sync or _reinstall(''))} || exit 1\n"  # `set -e` lets a chain of && fail
        f"python -c 'import sys; print(sys.prefix, sys.version.split()[0])'",
    )


def _judge_python_version_file(_: Subject, output: str) -> str:
    python = _last_line(output)
    if not python.startswith(f"{VENV} "):
        raise Failed(f"python is {python}")
    return f"with {_OTHER_PYTHON} in .python-version, python is still {python}"


def _uv_pip(subject: Subject) -> str:
    """5: uv pip shows the environment and installs into it, with UV_SYSTEM_PYTHON too."""
    if not subject.selection:
        return "true"
    name = shlex.quote(min(subject.selection))
    return (
        f"uv pip show {name}\n"
        f"UV_SYSTEM_PYTHON=1 uv pip show {name} | grep '^Location: {VENV}/'\n"
        f"uv pip uninstall {name}\n"
        f"if uv pip show --quiet {name}; then echo {name} is still installed; exit 1; fi\n"
        f"UV_SYSTEM_PYTHON=1 {_reinstall('')}\n"
        f"uv pip show {name} | grep '^Location: {VENV}/'\n"
    )


def _judge_uv_pip(subject: Subject, _: str) -> str:
    if not subject.selection:
        return "nothing to check: the selection is empty"
    return f"uv pip show and uv pip install use {VENV}, with UV_SYSTEM_PYTHON=1 too"


def _bytecode(_: Subject) -> str:
    """6: every source file that compiles has bytecode which the interpreter accepts."""
    return f"python {BUILDS}/{PROBES}/bytecode.py"


def _judge_bytecode(_: Subject, output: str) -> str:
    findings = _parsed(_Bytecode, _last_line(output), "the bytecode probe")
    if findings.faults:
        path, reason = findings.faults[0]
        raise Failed(
            f"each job would compile {len(findings.faults)} of {findings.files} files, such as {path} ({reason})"
        )
    return (
        f"{findings.accepted} of {findings.files} files have bytecode; "
        f"{findings.uncompilable} do not compile with this Python"
    )


def _installed_set(_: Subject) -> str:
    """8: the installed packages and versions are those of the selection, and are compatible."""
    return "uv pip list --format json 2>/dev/null\nstatus=0; uv pip check || status=$?\necho; echo $status"


def _judge_installed_set(subject: Subject, output: str) -> str:
    listing, _, rest = output.partition("\n")
    installed = {
        package.name.lower().replace("_", "-"): package.version
        for package in _parsed(list[_Installed], listing, "uv pip list")
    }
    if "pip" not in subject.selection:
        installed.pop("pip", None)
    faults = [
        f"{name} {installed.get(name, 'is missing')}, locked {subject.selection.get(name, 'not at all')}"
        for name in sorted(installed.keys() | subject.selection.keys())
        if name not in installed or name not in subject.selection
        or subject.selection[name] not in {None, installed[name]}
    ]  # fmt: skip
    if faults:
        raise Failed("; ".join(faults[:5]))
    return f"{len(installed)} packages as locked; {_judge_compatibility(subject, rest)}"


def _judge_compatibility(subject: Subject, output: str) -> str:
    report, _, status = output.rstrip().rpartition("\n")
    result = ScriptResult(exit_code=0 if status == "0" else 1, output=report, seconds=0.0)
    if not result.exit_code:
        return _last_line(report)
    if subject.checkout and has_overrides(subject.checkout.lock):
        return f"uv pip check, which does not know the project's overrides, reports: {result.tail}"
    raise Failed(result.tail)


def _judge_by_exit_code(_: Subject, output: str) -> str:
    return _last_line(output)


SCRIPTS: Final[Mapping[str, ScriptCheck]] = {
    "second-environment": ScriptCheck(script=_second_environment, judge=_judge_second_environment),
    "installed-set": ScriptCheck(script=_installed_set, judge=_judge_installed_set),
    "bytecode": ScriptCheck(script=_bytecode, judge=_judge_bytecode),
    "sync-frozen": ScriptCheck(script=_sync_frozen, judge=_judge_by_exit_code),
    "python-version-file": ScriptCheck(script=_python_version_file, judge=_judge_python_version_file),
    "uv-pip": ScriptCheck(script=_uv_pip, judge=_judge_uv_pip),
    "project-offline": ScriptCheck(script=_project_offline, judge=_judge_by_exit_code, needs_uv_lock=True),
}


def _any_user(subject: Subject) -> str:
    """7: checks 1, 3 and 5 pass for a user who is not root and not in the passwd file, who can read every file."""
    names = ("sync-frozen", "second-environment", "uv-pip")
    scripts = {name: SCRIPTS[name].script(subject) for name in names}
    # With links instead of copies: that every file can be read is found out in a hundredth of the time.
    scripts["second-environment"] = f"export UV_LINK_MODE=symlink\n{scripts['second-environment']}"
    results = run_scripts(subject, {"modes": _CLOSED_FILES, **scripts}, user=_UNKNOWN_USER)
    for name, result in results.items():
        try:
            _judge_modes(result) if name == "modes" else SCRIPTS[name].evidence(subject, result)
        except Failed as failure:  # noqa: PERF203
            raise Failed(f"{name} as uid {_UNKNOWN_USER}: {failure}") from failure
    return f"{', '.join(names[:-1])} and {names[-1]} pass for uid {_UNKNOWN_USER}, who can read every file"


def _judge_modes(result: ScriptResult) -> None:
    if result.exit_code or result.output:
        raise Failed(f"closed to other users: {result.tail}")


def _no_secrets(subject: Subject) -> str:
    """9: no build secret is in a layer, the history, the config, an attestation or the build log."""
    if not subject.inputs.places:
        return "the build had no secrets"
    try:
        if isinstance(subject.content, AssembledImage):
            return search_assembled(subject.content, subject.inputs)
        return _search_saved(subject, subject.content)
    except LeakError as leak:
        raise Failed(str(leak)) from leak


def _search_saved(subject: Subject, saved: Path | None) -> str:
    with tempfile.TemporaryDirectory(prefix="builder-") as scratch:
        path = saved or Path(scratch, "image.tar")
        if saved is None:
            subject.engine.save(subject.image, path)
        with ImageArchive(path) as archive:
            return search_image(archive, subject.inputs, subject.engine.raise_if_stopped)


OTHERS: Final[Mapping[str, Callable[[Subject], str]]] = {"any-user": _any_user, "no-secrets": _no_secrets}

# Checks in the order in which they start, the slowest first. Those of a group share a container: the first ones of it
# leave the environment as they found it.
GROUPS: Final = (
    ("any-user",),
    ("second-environment",),
    ("no-secrets",),
    ("installed-set", "bytecode", "sync-frozen", "python-version-file", "uv-pip"),
    ("project-offline",),
)
CHECKS: Final = tuple(name for group in GROUPS for name in group)


def _unchanged(command: str) -> str:
    """A script that runs the command and fails if it changed a file of the environment."""
    # One chain of &&, because `set -e` has no effect in a command whose exit status is tested.
    return (
        f"touch /tmp/before && {command} && changed=$(find {VENV} -newer /tmp/before | head -n 3) && "
        f'{{ [ -z "$changed" ] || {{ echo "changed: $changed"; exit 1; }}; }}'
    )


def _reinstall(options: str) -> str:
    """A command that installs the selection recorded in the image, from the cache."""
    return f"uv pip install --offline --no-deps {options} --requirements {SELECTION}"


def _parsed(kind: type[_Value], line: str, program: str) -> _Value:
    """Parse a line of a program's output as JSON; raise Failed if it is anything else."""
    try:
        return parse_value(kind, line)
    except MalformedError as error:
        raise Failed(f"unexpected output of {program} in the image: {error}") from error


def _last_line(text: str) -> str:
    return text.splitlines()[-1] if text else ""
