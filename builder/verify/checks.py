"""The nine checks: what each one verifies, and the script that it runs in a container of the image."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from builder.contract import BUILDS, PROBES, PROJECT, SELECTION, VENV
from builder.engine.protocol import Engine
from builder.lock.project import has_overrides
from builder.oci.archive import ImageArchive
from builder.parse import Document, MalformedError, parse_value
from builder.verify.checkout import Checkout
from builder.verify.search import BuildInputs, LeakError, search_image

SECONDS: Final = 600  # a check that takes longer fails
_Value = TypeVar("_Value")
_UNKNOWN_USER: Final = "12345:12345"  # in no passwd file
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


class Skipped(Exception):  # noqa: N818
    """A check does not apply; `str()` is the reason."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The image that is verified, in the engine and, unless `archive` is None, saved.

    `selection` maps its packages to versions, or to None if any version will do.
    """

    engine: Engine
    image: str
    volume: str
    checkout: Checkout | None
    inputs: BuildInputs
    selection: Mapping[str, str | None]
    archive: Path | None

    def sh(self, script: str, *, user: str | None = None) -> str:
        """Run a script in a new container and return its output; raise Failed with the output's end if it fails."""
        workdir = self.checkout.path if self.checkout else f"{BUILDS}/{PROJECT}"
        exited = self.engine.run(
            self.image,
            f"set -eu\n{script}",
            volume=self.volume,
            target=BUILDS,
            workdir=workdir,
            user=user,
            seconds=SECONDS,
        )
        if exited.exit_code:
            raise Failed(_tail(exited.output) or f"exit code {exited.exit_code}")
        return exited.output.strip()

    def sh_in_copy(self, name: str, script: str) -> str:
        """Run a script that writes to the checkout in a copy of it, because other checks use the checkout meanwhile."""
        copy = shlex.quote(f"{BUILDS}/{name}")
        inside = f"{copy}/{self.checkout.workdir}" if self.checkout else copy
        return self.sh(f"cp -a {BUILDS}/{PROJECT} {copy}\ncd {inside}\n{script}")

    @property
    def sync(self) -> str | None:
        """A job's `uv sync` without local packages; None if there is no uv.lock to sync with."""
        if self.checkout is None or self.checkout.lock.kind != "uv.lock":
            return None
        # --no-install-local includes --no-install-project, and the other members of a workspace.
        return shlex.join(["uv", "sync", "--frozen", "--offline", "--no-install-local", *self.checkout.lock.uv_flags])


def _sync_frozen(subject: Subject, user: str | None = None) -> str:
    """1: a job's sync leaves the environment unchanged."""
    return _last_line(subject.sh(_unchanged(subject.sync or _reinstall("")), user=user))


def _project_offline(subject: Subject) -> str:
    """2: the project itself installs without a network, because its build backend is in the cache."""
    if subject.sync is None:
        raise Skipped("there is no uv.lock to sync with")
    return _last_line(subject.sh_in_copy("project-offline", subject.sync.replace(" --no-install-local", "")))


def _second_environment(subject: Subject, user: str | None = None) -> str:
    """3: a second environment installs from the cache alone."""
    fresh = "/tmp/second-environment"  # noqa: S108 - a path in the container
    if subject.sync:
        script = f"UV_PROJECT_ENVIRONMENT={fresh} {subject.sync}"
    else:
        script = f"uv venv --quiet {fresh}\n{_reinstall(f'--python {fresh}')}"
    count = f"ls -d {fresh}/lib/python*/site-packages/*.dist-info | wc -l"
    output = _last_line(subject.sh(f"{{ {script}; }} >&2\n{count}", user=user)) if subject.selection else "0"
    if not output.isdecimal():
        raise Failed(f"wc -l printed {output!r} in the image")
    if int(output) < len(subject.selection):
        raise Failed(f"{output} of {len(subject.selection)} packages are in the second environment")
    return f"{output} packages from the cache, without a network"


def _python_version_file(subject: Subject) -> str:
    """4: a `.python-version` file with another version does not replace the environment."""
    command = subject.sync or _reinstall("")
    script = (
        f"echo {_OTHER_PYTHON} > .python-version\n"
        f"{_unchanged(command)} || exit 1\n"  # `set -e` lets a chain of && fail
        f"python -c 'import sys; print(sys.prefix, sys.version.split()[0])'"
    )
    python = _last_line(subject.sh_in_copy("python-version-file", script))
    if not python.startswith(f"{VENV} "):
        raise Failed(f"python is {python}")
    return f"with {_OTHER_PYTHON} in .python-version, python is still {python}"


def _uv_pip(subject: Subject, user: str | None = None) -> str:
    """5: uv pip shows the environment and installs into it, with UV_SYSTEM_PYTHON too."""
    if not subject.selection:
        return "nothing to check: the selection is empty"
    name = shlex.quote(min(subject.selection))
    script = (
        f"uv pip show {name}\n"
        f"UV_SYSTEM_PYTHON=1 uv pip show {name} | grep '^Location: {VENV}/'\n"
        f"uv pip uninstall {name}\n"
        f"if uv pip show --quiet {name}; then echo {name} is still installed; exit 1; fi\n"
        f"UV_SYSTEM_PYTHON=1 {_reinstall('')}\n"
        f"uv pip show {name} | grep '^Location: {VENV}/'\n"
    )
    subject.sh(script, user=user)
    return f"uv pip show and uv pip install use {VENV}, with UV_SYSTEM_PYTHON=1 too"


def _bytecode(subject: Subject) -> str:
    """6: every source file that compiles has bytecode which the interpreter accepts."""
    findings = _parsed(_Bytecode, subject.sh(f"python {BUILDS}/{PROBES}/bytecode.py"), "the bytecode probe")
    if findings.faults:
        path, reason = findings.faults[0]
        raise Failed(
            f"each job would compile {len(findings.faults)} of {findings.files} files, such as {path} ({reason})"
        )
    return (
        f"{findings.accepted} of {findings.files} files have bytecode; "
        f"{findings.uncompilable} do not compile with this Python"
    )


def _any_user(subject: Subject) -> str:
    """7: checks 1, 3 and 5 pass for a user who is not root and not in the passwd file."""
    for name, check in (
        ("sync-frozen", _sync_frozen),
        ("second-environment", _second_environment),
        ("uv-pip", _uv_pip),
    ):
        try:
            check(subject, _UNKNOWN_USER)
        except Failed as failure:  # noqa: PERF203
            raise Failed(f"{name} as uid {_UNKNOWN_USER}: {failure}") from failure
    return f"sync-frozen, second-environment and uv-pip pass for uid {_UNKNOWN_USER}"


def _installed_set(subject: Subject) -> str:
    """8: the installed packages and versions are those of the selection, and are compatible."""
    listing = _parsed(list[_Installed], subject.sh("uv pip list --format json 2>/dev/null"), "uv pip list")
    installed = {package.name.lower().replace("_", "-"): package.version for package in listing}
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
    return f"{len(installed)} packages as locked; {_check_compatibility(subject)}"


def _check_compatibility(subject: Subject) -> str:
    try:
        return _last_line(subject.sh("uv pip check"))
    except Failed as failure:
        if subject.checkout and has_overrides(subject.checkout.lock):
            return f"uv pip check, which does not know the project's overrides, reports: {failure}"
        raise


def _no_secrets(subject: Subject) -> str:
    """9: no build secret is in a layer, the history, the config, an attestation or the build log."""
    if not subject.inputs.secrets:
        return "the build had no secrets"
    with tempfile.TemporaryDirectory(prefix="builder-") as scratch:
        saved = subject.archive or Path(scratch, "image.tar")
        if subject.archive is None:
            subject.engine.save(subject.image, saved)
        try:
            with ImageArchive(saved) as archive:
                return search_image(archive, subject.inputs)
        except LeakError as leak:
            raise Failed(str(leak)) from leak


# In the order in which they start: the slowest first.
CHECKS: Final[Mapping[str, Callable[[Subject], str]]] = {
    "any-user": _any_user,
    "second-environment": _second_environment,
    "no-secrets": _no_secrets,
    "bytecode": _bytecode,
    "project-offline": _project_offline,
    "installed-set": _installed_set,
    "uv-pip": _uv_pip,
    "sync-frozen": _sync_frozen,
    "python-version-file": _python_version_file,
}


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


def _parsed(kind: type[_Value], output: str, program: str) -> _Value:
    """Parse the last line of a program's output as JSON; raise Failed if it is anything else."""
    try:
        return parse_value(kind, _last_line(output))
    except MalformedError as error:
        raise Failed(f"unexpected output of {program} in the image: {error}") from error


def _last_line(text: str) -> str:
    return text.splitlines()[-1] if text else ""


def _tail(text: str) -> str:
    lines: Sequence[str] = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-4:])
