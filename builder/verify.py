"""`BuiltImage` → `VerifiedImage`: the nine points that an image promises a job, each tried as a runner would.

Every check runs in a container of its own, by `sh -c`, without a network, the checkout on a volume under /builds.
"""

from __future__ import annotations

import json
import shlex
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import tomli

from builder import secrets
from builder.archive import ImageArchive, Layer
from builder.build import BuiltImage
from builder.checkout import BUILDS, PROBES, PROJECT, Checkout, tar_of
from builder.engine import Engine
from builder.errors import EngineError, VerifyError
from builder.lock import has_overrides
from builder.refs import Digest
from builder.render import LABELS, SELECTION, VENV, RenderedImage

Verdict = Literal["passed", "failed", "skipped"]

_SECONDS: Final = 600  # after which a check has failed
_SOMEBODY: Final = "12345:12345"
_OTHER_PYTHON: Final = "3.7"  # no image is made for it


@dataclass(frozen=True, kw_only=True)
class Check:
    """One point of the contract: its verdict, what shows it, and the seconds it took."""

    name: str
    verdict: Verdict
    evidence: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class VerifiedImage:
    """An image that keeps the whole contract."""

    built: BuiltImage
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a build was given that must not be in the image: files by secret name, and the log to search as well."""

    secrets: Mapping[str, Path]
    log: str = ""


class _Failed(Exception):  # noqa: N818 - a verdict, caught where it becomes one
    """A check's evidence against the image."""


class _Skipped(Exception):  # noqa: N818
    """Why a check has nothing to look at."""


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """An image under examination. `selection` maps the names it was built from to versions, None where unknown."""

    engine: Engine
    image: str
    volume: str
    checkout: Checkout | None
    given: Given
    selection: Mapping[str, str | None]

    def sh(self, script: str, *, user: str | None = None) -> str:
        """Run the script in a new container and return what it printed; raise _Failed with that where it fails."""
        workdir = self.checkout.path if self.checkout else f"{BUILDS}/{PROJECT}"
        ran = self.engine.run(
            self.image,
            f"set -eu\n{script}",
            volume=self.volume,
            target=BUILDS,
            workdir=workdir,
            user=user,
            seconds=_SECONDS,
        )
        if ran.exit_code:
            raise _Failed(_tail(ran.output) or f"exit code {ran.exit_code}")
        return ran.output.strip()

    @property
    def sync(self) -> str | None:
        """The job's `uv sync` without local packages, or None where there is no uv.lock to sync with."""
        if self.checkout is None or self.checkout.lock.kind != "uv.lock":
            return None
        # --no-install-local covers --no-install-project, and the other members of a workspace too.
        return shlex.join(["uv", "sync", "--frozen", "--offline", "--no-install-local", *self.checkout.lock.uv_flags])


def verify(built: BuiltImage, checks: tuple[Check, ...]) -> VerifiedImage:
    """Return the image as verified, or raise VerifyError that names the checks which failed."""
    faults = failed(checks)
    if faults:
        raise VerifyError(
            f"{built.rendered.plan.cell.name}: does not keep its promise: "
            + "; ".join(f"{check.name}: {check.evidence}" for check in faults),
            hint=f"no moving tag was put; the engine here, if any, has it as {built.rendered.immutable_tag.familiar}",
        )
    return VerifiedImage(built=built, checks=checks)


def earlier(rendered: RenderedImage, engine: Engine) -> VerifiedImage | None:
    """Return the cell's image in the engine as verified, if it was: its moving tag is put only then."""
    names = (rendered.immutable_tag, *rendered.moving_tags)
    try:
        ids = {engine.image_id(str(name)) for name in names}
    except EngineError:
        return None
    if len(ids) != 1:
        return None
    built = BuiltImage(rendered=rendered, digest=Digest.from_str(ids.pop()), size=0, seconds=0.0)
    return VerifiedImage(built=built, checks=())


def failed(checks: Iterable[Check]) -> tuple[Check, ...]:
    """The checks that did not pass."""
    return tuple(check for check in checks if check.verdict == "failed")


def examine(
    image: str,
    engine: Engine,
    *,
    checkout: Checkout | None,
    given: Given,
    selection: Mapping[str, str | None] | None = None,
    only: Collection[str] = (),
    on_check: Callable[[str], None] = lambda _: None,
) -> tuple[Check, ...]:
    """Run the checks, all or those named in `only`, against an image in the engine's store.

    `selection` is what the image should hold, names to versions (None where any will do); without one, the image's
    own note of it is taken.
    """
    with tar_of(checkout) as content, engine.volume(image, BUILDS, content) as volume:
        subject = _Subject(
            engine=engine,
            image=image,
            volume=volume,
            checkout=checkout,
            given=given,
            selection=selection if selection is not None else _noted_selection(engine, image, volume),
        )
        return tuple(
            _checked(name, subject, check, on_check) for name, check in CHECKS.items() if not only or name in only
        )


def _checked(name: str, subject: _Subject, check: Callable[[_Subject], str], on_check: Callable[[str], None]) -> Check:
    on_check(name)
    started = time.monotonic()
    verdict: Verdict = "passed"
    try:
        evidence = check(subject)
    except _Failed as failure:
        verdict, evidence = "failed", str(failure)
    except _Skipped as skipped:
        verdict, evidence = "skipped", str(skipped)
    return Check(name=name, verdict=verdict, evidence=evidence, seconds=round(time.monotonic() - started, 3))


def _noted_selection(engine: Engine, image: str, volume: str) -> Mapping[str, str | None]:
    ran = engine.run(image, f"cat {SELECTION}", volume=volume, target=BUILDS, workdir="/", user=None, seconds=_SECONDS)
    if ran.exit_code:
        raise VerifyError(
            f"{image} has no {SELECTION}: builder did not make it",
            hint="name an image that `builder build` made",
        )
    return {package["name"]: package.get("version") for package in tomli.loads(ran.output).get("packages", ())}


# ---------------------------------------------------------------------------------------------- the nine points


def _sync_frozen(subject: _Subject, user: str | None = None) -> str:
    """1: the job's own sync changes nothing in the environment."""
    said = subject.sh(_unchanged(subject.sync or _reinstall("")), user=user)
    return _last(said)


def _project_offline(subject: _Subject) -> str:
    """2: the project itself installs without a network: its build backend is in the cache."""
    if subject.sync is None:
        raise _Skipped("no uv.lock: the job has no project to sync")
    return _last(subject.sh(subject.sync.replace(" --no-install-local", "")))


def _second_environment(subject: _Subject, user: str | None = None) -> str:
    """3: a fresh environment fills itself from the cache alone."""
    fresh = "/tmp/second-environment"  # noqa: S108 - a path in the container
    if subject.sync:
        script = f"UV_PROJECT_ENVIRONMENT={fresh} {subject.sync}"
    else:
        script = f"uv venv --quiet {fresh}\n{_reinstall(f'--python {fresh}')}"
    count = f"ls -d {fresh}/lib/python*/site-packages/*.dist-info | wc -l"
    found = int(subject.sh(f"{{ {script}; }} >&2\n{count}", user=user).splitlines()[-1] if subject.selection else 0)
    if found < len(subject.selection):
        raise _Failed(f"{found} of {len(subject.selection)} packages are in the second environment")
    return f"{found} packages from the cache, without a network"


def _python_version_file(subject: _Subject) -> str:
    """4: a stray `.python-version` does not replace the environment."""
    command = subject.sync or _reinstall("")
    script = (
        f"here=$(pwd); [ ! -e .python-version ] || cp .python-version /tmp/kept\n"
        f"echo {_OTHER_PYTHON} > .python-version\n"
        f"({_unchanged(command)}) && status=0 || status=$?\n"
        f'cd "$here"; rm .python-version; [ ! -e /tmp/kept ] || cp /tmp/kept .python-version\n'
        f'[ "$status" -eq 0 ] || exit "$status"\n'
        f"python -c 'import sys; print(sys.prefix, sys.version.split()[0])'"
    )
    said = _last(subject.sh(script))
    if not said.startswith(f"{VENV} "):
        raise _Failed(f"python is {said}")
    return f".python-version said {_OTHER_PYTHON}; python is still {said}"


def _uv_pip(subject: _Subject, user: str | None = None) -> str:
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


def _bytecode(subject: _Subject) -> str:
    """6: every source file that compiles has bytecode which the interpreter accepts."""
    found = json.loads(_last(subject.sh(f"python {BUILDS}/{PROBES}/bytecode.py")))
    if found["faults"]:
        path, why = found["faults"][0]
        raise _Failed(
            f"{len(found['faults'])} of {found['files']} files would be compiled by each job, as {path} ({why})"
        )
    return f"{found['accepted']} of {found['files']} files; {found['uncompilable']} are no Python of this version"


def _any_user(subject: _Subject) -> str:
    """7: points 1, 3 and 5 for a user who is not root and is in no list."""
    for name, check in (
        ("sync-frozen", _sync_frozen),
        ("second-environment", _second_environment),
        ("uv-pip", _uv_pip),
    ):
        try:
            check(subject, _SOMEBODY)
        except _Failed as failure:  # noqa: PERF203
            raise _Failed(f"{name} as uid {_SOMEBODY}: {failure}") from failure
    return f"sync-frozen, second-environment and uv-pip hold for uid {_SOMEBODY}"


def _installed_set(subject: _Subject) -> str:
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
        raise _Failed("; ".join(faults[:5]))
    return f"{len(installed)} packages as locked; {_compatibility(subject)}"


def _compatibility(subject: _Subject) -> str:
    try:
        return _last(subject.sh("uv pip check"))
    except _Failed as failure:
        if subject.checkout and has_overrides(subject.checkout.lock):
            return f"the project overrides dependencies, and uv pip check, which does not know, says: {failure}"
        raise


def _no_secrets(subject: _Subject) -> str:
    """9: nothing of a secret is in a layer, in the history, in the config, in an attestation or in the log."""
    if not subject.given.secrets:
        return "the build was given no secret"
    with tempfile.TemporaryDirectory(prefix="builder-") as scratch:
        saved = Path(scratch, "image.tar")
        subject.engine.save(subject.image, saved)
        with ImageArchive(saved) as archive:
            return _searched(archive, subject.given)


def _searched(archive: ImageArchive, given: Given) -> str:
    base, layers = archive.split(f"LABEL {LABELS}.")
    needles = secrets.needles(given.secrets, _ca_bundles(archive, base))
    if not needles:
        return "all that the build was given is public: no certificate that is not in certifi or in the base image"
    places = [("the config or history", json.dumps(archive.config).encode()), ("the build log", given.log.encode())]
    places += [("an attestation", said) for each in archive.attestations for said in each.blobs.values()]
    for place, content in places:
        if found := secrets.first_found(needles, content):
            raise _Failed(f"{found} is in {place}")
    count = 0
    vouched: set[str] = set()
    hits: dict[str, str] = {}
    for layer in layers:
        for entry, data in archive.files(layer):
            count += 1
            if entry.endswith(".dist-info/RECORD"):
                vouched |= secrets.recorded_hashes(data)
            if found := secrets.first_found(needles, data):
                hits[secrets.record_hash(data)] = f"{found} is in /{entry} of layer {layer.member}"
    # A file that a wheel brought along, hash and all, is as public as the wheel: botocore and pip carry CA bundles.
    leaks = [hit for digest, hit in hits.items() if digest not in vouched]
    if leaks:
        raise _Failed(leaks[0])
    marks = f"{len(needles)} marks of {', '.join(given.secrets)}"
    return f"{marks} searched in {count} files of {len(layers)} layers, config, history, log"


def _ca_bundles(archive: ImageArchive, layers: Sequence[Layer]) -> list[bytes]:
    """The CA bundles that the base image brings along, as Debian and Alpine keep them."""
    return [
        data
        for layer in layers
        for name, data in archive.files(layer)
        if name.removeprefix("./") == "etc/ssl/certs/ca-certificates.crt"
    ]


CHECKS: Final[Mapping[str, Callable[[_Subject], str]]] = {
    "sync-frozen": _sync_frozen,
    "second-environment": _second_environment,
    "python-version-file": _python_version_file,
    "uv-pip": _uv_pip,
    "bytecode": _bytecode,
    "any-user": _any_user,
    "installed-set": _installed_set,
    "no-secrets": _no_secrets,
    "project-offline": _project_offline,  # last, for it leaves build output in the checkout
}


# ------------------------------------------------------------------------------------------------- shell pieces


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
