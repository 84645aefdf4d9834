"""The nine checks: what each promises, and the script that shows it in a container of the image."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.contract import BUILDS, PROBES, PROJECT, SELECTION, VENV
from builder.engine.protocol import Engine
from builder.lock.project import has_overrides
from builder.oci.archive import ImageArchive
from builder.verify.checkout import Checkout
from builder.verify.search import BuildInputs, LeakError, search_image

SECONDS: Final = 600  # after which a check has failed
_SOMEBODY: Final = "12345:12345"
_OTHER_PYTHON: Final = "3.7"  # no image is made for it


class Failed(Exception):  # noqa: N818 - a verdict, caught where it becomes one
    """A check's evidence against the image."""


class Skipped(Exception):  # noqa: N818
    """Why a check has nothing to look at."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An image under examination, in the engine and saved as an archive.

    `selection` maps the names it was built from to versions, None where unknown.
    """

    engine: Engine
    image: str
    volume: str
    checkout: Checkout | None
    inputs: BuildInputs
    selection: Mapping[str, str | None]
    archive: Path | None

    def sh(self, script: str, *, user: str | None = None) -> str:
        """Run the script in a new container and return what it printed; raise Failed with that where it fails."""
        workdir = self.checkout.path if self.checkout else f"{BUILDS}/{PROJECT}"
        ran = self.engine.run(
            self.image,
            f"set -eu\n{script}",
            volume=self.volume,
            target=BUILDS,
            workdir=workdir,
            user=user,
            seconds=SECONDS,
        )
        if ran.exit_code:
            raise Failed(_tail(ran.output) or f"exit code {ran.exit_code}")
        return ran.output.strip()

    def sh_in_copy(self, name: str, script: str) -> str:
        """Run a script that writes to the checkout in a copy of it, because other checks use the checkout meanwhile."""
        copy = shlex.quote(f"{BUILDS}/{name}")
        inside = f"{copy}/{self.checkout.workdir}" if self.checkout else copy
        return self.sh(f"cp -a {BUILDS}/{PROJECT} {copy}\ncd {inside}\n{script}")

    @property
    def sync(self) -> str | None:
        """The job's `uv sync` without local packages, or None where there is no uv.lock to sync with."""
        if self.checkout is None or self.checkout.lock.kind != "uv.lock":
            return None
        # --no-install-local covers --no-install-project, and the other members of a workspace too.
        return shlex.join(["uv", "sync", "--frozen", "--offline", "--no-install-local", *self.checkout.lock.uv_flags])


def _sync_frozen(subject: Subject, user: str | None = None) -> str:
    """1: the job's own sync changes nothing in the environment."""
    said = subject.sh(_unchanged(subject.sync or _reinstall("")), user=user)
    return _last(said)


def _project_offline(subject: Subject) -> str:
    """2: the project itself installs without a network: its build backend is in the cache."""
    if subject.sync is None:
        raise Skipped("no uv.lock: the job has no project to sync")
    return _last(subject.sh_in_copy("project-offline", subject.sync.replace(" --no-install-local", "")))


def _second_environment(subject: Subject, user: str | None = None) -> str:
    """3: a fresh environment fills itself from the cache alone."""
    fresh = "/tmp/second-environment"  # noqa: S108 - a path in the container
    if subject.sync:
        script = f"UV_PROJECT_ENVIRONMENT={fresh} {subject.sync}"
    else:
        script = f"uv venv --quiet {fresh}\n{_reinstall(f'--python {fresh}')}"
    count = f"ls -d {fresh}/lib/python*/site-packages/*.dist-info | wc -l"
    found = int(subject.sh(f"{{ {script}; }} >&2\n{count}", user=user).splitlines()[-1] if subject.selection else 0)
    if found < len(subject.selection):
        raise Failed(f"{found} of {len(subject.selection)} packages are in the second environment")
    return f"{found} packages from the cache, without a network"


def _python_version_file(subject: Subject) -> str:
    """4: a stray `.python-version` does not replace the environment."""
    command = subject.sync or _reinstall("")
    script = (
        f"echo {_OTHER_PYTHON} > .python-version\n"
        f"{_unchanged(command)} || exit 1\n"  # `set -e` lets a chain of && fail
        f"python -c 'import sys; print(sys.prefix, sys.version.split()[0])'"
    )
    said = _last(subject.sh_in_copy("python-version-file", script))
    if not said.startswith(f"{VENV} "):
        raise Failed(f"python is {said}")
    return f".python-version said {_OTHER_PYTHON}; python is still {said}"


def _uv_pip(subject: Subject, user: str | None = None) -> str:
    """5: uv pip sees the environment, and installs into it, also when told to use the system's Python."""
    if not subject.selection:
        return "nothing to show: the selection is empty"
    name = shlex.quote(min(subject.selection))
    script = (
        f"uv pip show {name}\n"
        f"UV_SYSTEM_PYTHON=1 uv pip show {name} | grep '^Location: {VENV}/'\n"
        f"uv pip uninstall {name}\n"
        f"if uv pip show --quiet {name}; then echo {name} is still there; exit 1; fi\n"
        f"UV_SYSTEM_PYTHON=1 {_reinstall('')}\n"
        f"uv pip show {name} | grep '^Location: {VENV}/'\n"
    )
    subject.sh(script, user=user)
    return f"uv pip show and uv pip install reach {VENV}, with UV_SYSTEM_PYTHON=1 too"


def _bytecode(subject: Subject) -> str:
    """6: every source file that compiles has bytecode which the interpreter accepts."""
    found = json.loads(_last(subject.sh(f"python {BUILDS}/{PROBES}/bytecode.py")))
    if found["faults"]:
        path, why = found["faults"][0]
        raise Failed(
            f"{len(found['faults'])} of {found['files']} files would be compiled by each job, as {path} ({why})"
        )
    return f"{found['accepted']} of {found['files']} files; {found['uncompilable']} are no Python of this version"


def _any_user(subject: Subject) -> str:
    """7: points 1, 3 and 5 for a user who is not root and is in no list."""
    for name, check in (
        ("sync-frozen", _sync_frozen),
        ("second-environment", _second_environment),
        ("uv-pip", _uv_pip),
    ):
        try:
            check(subject, _SOMEBODY)
        except Failed as failure:  # noqa: PERF203
            raise Failed(f"{name} as uid {_SOMEBODY}: {failure}") from failure
    return f"sync-frozen, second-environment and uv-pip hold for uid {_SOMEBODY}"


def _installed_set(subject: Subject) -> str:
    """8: what is installed is the selection, versions and all, and fits together."""
    printed = subject.sh("uv pip list --format json 2>/dev/null")
    installed = {
        package["name"].lower().replace("_", "-"): package["version"] for package in json.loads(_last(printed))
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
    return f"{len(installed)} packages as locked; {_compatibility(subject)}"


def _compatibility(subject: Subject) -> str:
    try:
        return _last(subject.sh("uv pip check"))
    except Failed as failure:
        if subject.checkout and has_overrides(subject.checkout.lock):
            return f"the project overrides dependencies, and uv pip check, which does not know, says: {failure}"
        raise


def _no_secrets(subject: Subject) -> str:
    """9: no build secret is in a layer, the history, the config, an attestation or the log."""
    if not subject.inputs.secrets:
        return "the build was given no secret"
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
    """A script that runs the command, and fails where that touched a file of the environment."""
    # One chain of &&, for `set -e` does not hold where the script's outcome is looked at.
    return (
        f"touch /tmp/before && {command} && changed=$(find {VENV} -newer /tmp/before | head -n 3) && "
        f'{{ [ -z "$changed" ] || {{ echo "changed: $changed"; exit 1; }}; }}'
    )


def _reinstall(options: str) -> str:
    """Install the image's own note of its selection, from the cache."""
    return f"uv pip install --offline --no-deps {options} --requirements {SELECTION}"


def _last(text: str) -> str:
    return text.splitlines()[-1] if text else ""


def _tail(text: str) -> str:
    lines: Sequence[str] = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-4:])
