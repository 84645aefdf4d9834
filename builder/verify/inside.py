"""Runs the script that checks an image in a container of it, and reads its results, which are not trusted."""

from __future__ import annotations

import hashlib
import secrets
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from builder.contract import (
    BUILDS,
    FOREIGN_VARIABLES,
    LABELS,
    LINK_MODES,
    PROBES,
    PROJECT,
    PYTHON_LABEL,
    STATUS,
    SYSTEM_PYTHON,
    TOOLS_LABEL,
    UVX,
    VARIABLES,
)
from builder.engine.protocol import ContainerExit, Engine
from builder.image.render import SYSTEM_PYTHON_NAME, template_bytes
from builder.layer.assemble import AssembledImage
from builder.lock.model import Lock
from builder.lock.project import has_overrides
from builder.matrix.facts import OS_RELEASE
from builder.oci.manifest import ConfigSection
from builder.parse import Document, MalformedError, parse_document
from builder.verify.checkout import Checkout
from builder.verify.script import INSIDE, Expectation
from builder.verify.search import BuildInputs
from builder.verify.vouch import Vouched

SECONDS: Final = 900  # a container that takes longer is stopped
SCRIPT: Final = f"{PROBES}/verify.sh"
_LISTS: Final = {"pylock.toml", "requirements.txt"}  # kinds of locks that `uv pip install` reads
Verdict = Literal["passed", "failed", "skipped"]


class Check(Document):
    """The result of a check: its verdict, the evidence, and its duration in seconds."""

    name: str
    verdict: Verdict
    evidence: str
    seconds: float


class Results(Document):
    """What the script writes: the checks of an image, named by reference and id."""

    image: str
    id: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of an image outside of it: its reference, its id, what its config sets, and what is in its files.

    `variables`, `user` and `family` are those that it was planned with; None or empty if nobody knows. A `thorough`
    verification compiles all bytecode again, which nobody needs who has just made the image.
    """

    image: str
    id: str
    config: ConfigSection
    checkout: Checkout | None
    vouched: Vouched
    variables: Mapping[str, str] | None = None
    user: str = ""
    family: str = ""
    thorough: bool = False


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The image that is verified, in the engine; `content` is the image as it was assembled, or saved to an archive."""

    engine: Engine
    facts: Facts
    inputs: BuildInputs
    content: AssembledImage | Path | None


def expectation(facts: Facts, names: Collection[str] = INSIDE) -> Expectation:
    """What the script is to expect of the image, with the checks of these names."""
    labels = facts.config.labels or {}
    variables = dict(pair.split("=", 1) for pair in facts.config.variables or () if "=" in pair)
    allowed = {name: [value] for name, value in (facts.variables or VARIABLES).items()}
    if facts.variables is None:
        allowed["UV_LINK_MODE"] = list(LINK_MODES)
    checkout = facts.checkout
    return Expectation(
        image=facts.image,
        id=facts.id,
        variables=allowed,
        foreign=FOREIGN_VARIABLES,
        programs={
            STATUS: None,  # it has the names of lock and cell, and more
            UVX: None,
            SYSTEM_PYTHON: hashlib.sha256(template_bytes(SYSTEM_PYTHON_NAME)).hexdigest(),
        },
        uv=labels.get(f"{LABELS}.uv", ""),
        python=variables.get("PYTHON_VERSION", ""),
        interpreter=labels.get(PYTHON_LABEL, ""),
        packages=dict(facts.vouched.packages),
        trees=facts.vouched.trees,
        complete=facts.vouched.is_complete,
        proven=sorted(facts.vouched.proven),
        unvouched=facts.vouched.faults,
        sync=_sync(checkout.lock) if checkout else [],
        listed=_install(checkout.lock) if checkout and checkout.lock.kind in _LISTS else [],
        cached=[_install(lock) for lock in checkout.lock.cached] if checkout else [],
        sources=list(facts.vouched.sources),
        overrides=bool(checkout and has_overrides(checkout.lock)),
        folder=str(checkout.workdir) if checkout else ".",
        tools=dict(pin.split("==", 1) for pin in labels.get(TOOLS_LABEL, "").split() if "==" in pin),
        family=facts.family,
        families=OS_RELEASE,
        user=facts.user,
        thorough=facts.thorough,
        checks=[name for name in INSIDE if name in names],
    )


def _sync(lock: Lock) -> list[str]:
    """A job's `uv sync` without local packages; nothing if there is no uv.lock to sync with."""
    if lock.kind != "uv.lock":
        return []
    # --no-install-local includes --no-install-project, and the other members of a workspace.
    return ["uv", "sync", "--frozen", "--no-install-local", *lock.uv_flags]


def _install(lock: Lock) -> list[str]:
    """How a job installs from the cache what the lock has."""
    if sync := _sync(lock):
        return [*sync[:3], "--offline", *sync[3:]]
    return ["uv", "pip", "install", "--offline", "--no-deps", *lock.uv_flags, "-r", lock.path.name]


def run_inside(
    subject: Subject, names: Collection[str], volume: str, on_check: Callable[[str], None]
) -> tuple[Check, ...]:
    """Run the checks of these names, which are on the volume, in one new container without a network.

    `on_check` is told which of them have ended, as far as the container says so.
    """
    mark = secrets.token_hex(8)  # nothing that a program prints is taken for the results
    results = "/tmp/builder-results.json"  # noqa: S108 - a path in the container
    script = f"sh {BUILDS}/{SCRIPT} {results} {mark}\necho\necho {mark}\ncat {results}"
    ended = {f"{mark} {name}": name for name in names}

    def read(line: str) -> None:
        if line in ended:
            on_check(ended[line])

    exited = subject.engine.run(
        subject.facts.image,
        script,
        volume=volume,
        target=BUILDS,
        workdir=f"{BUILDS}/{PROJECT}",
        seconds=SECONDS,
        on_line=read,
    )
    return tuple(_read(subject, [name for name in INSIDE if name in names], exited, mark))


def _read(subject: Subject, names: Collection[str], exited: ContainerExit, mark: str) -> Iterator[Check]:
    printed, _, text = exited.output.partition(f"\n{mark}\n")
    try:
        found = {check.name: check for check in parse_document(Results, text).checks}
    except MalformedError:
        found = {}
    lines = [line.strip() for line in printed.splitlines() if line.strip() and not line.startswith(mark)]
    tail = " / ".join(lines[-4:]) or f"exit code {exited.exit_code}"
    entry_point = shlex.join(subject.facts.config.entry_point or ())
    reason = f"ENTRYPOINT {entry_point} runs no job: {tail}" if entry_point else f"the image runs no checks: {tail}"
    if found and len(found) < len(names):
        reason = f"not run: {' / '.join(check.evidence for check in found.values())}: {tail}"
    for name in names:
        yield found.get(name) or Check(name=name, verdict="failed", evidence=reason, seconds=0.0)
