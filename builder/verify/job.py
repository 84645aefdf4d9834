"""Jobs on the image that is verified: scripts that share a container, each with an outcome of its own."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.contract import BUILDS, PROJECT
from builder.engine.protocol import Engine
from builder.layer.assemble import AssembledImage
from builder.verify.checkout import Checkout
from builder.verify.search import BuildInputs

SECONDS: Final = 600  # a job that takes longer fails


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The image that is verified, in the engine; `content` is the image as it was assembled, or saved to an archive.

    `selection` maps its packages to versions, or to None if any version will do.
    """

    engine: Engine
    image: str
    volume: str
    checkout: Checkout | None
    inputs: BuildInputs
    selection: Mapping[str, str | None]
    content: AssembledImage | Path | None

    @property
    def sync(self) -> str | None:
        """A job's `uv sync` without local packages; None if there is no uv.lock to sync with."""
        if self.checkout is None or self.checkout.lock.kind != "uv.lock":
            return None
        # --no-install-local includes --no-install-project, and the other members of a workspace.
        return shlex.join(["uv", "sync", "--frozen", "--offline", "--no-install-local", *self.checkout.lock.uv_flags])

    def in_copy(self, name: str, script: str) -> str:
        """A script that writes to the checkout, made to work on a copy of it: other scripts use the checkout too."""
        copy = shlex.quote(f"{BUILDS}/{name}")
        inside = f"{copy}/{self.checkout.workdir}" if self.checkout else copy
        return f"cp -a {BUILDS}/{PROJECT} {copy}\ncd {inside}\n{script}"


@dataclass(frozen=True, kw_only=True)
class ScriptResult:
    """How a script ended: its exit code, what it printed on stdout and stderr, and the seconds that it took."""

    exit_code: int
    output: str
    seconds: float

    @property
    def tail(self) -> str:
        """The last words of a script that failed."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return " / ".join(lines[-4:]) or f"exit code {self.exit_code}"


def run_scripts(subject: Subject, scripts: Mapping[str, str], *, user: str | None = None) -> dict[str, ScriptResult]:
    """Run scripts by name, one after another, each by a shell of its own, in one new container without a network."""
    mark = secrets.token_hex(8)  # nothing that a script prints is taken for the end of it
    lines = ["now() { cut -d ' ' -f 1 /proc/uptime; }"]
    for name, script in scripts.items():
        lines += [
            f'echo "{mark} begin {name} $(now)"',
            f"status=0; sh -euc {shlex.quote(script)} 2>&1 || status=$?",
            f'echo; echo "{mark} end {name} $(now) $status"',
        ]
    exited = subject.engine.run(
        subject.image,
        "\n".join(lines),
        volume=subject.volume,
        target=BUILDS,
        workdir=subject.checkout.path if subject.checkout else f"{BUILDS}/{PROJECT}",
        user=user,
        seconds=SECONDS,
    )
    return {name: _result(name, mark, exited.output, exited.exit_code) for name in scripts}


def _result(name: str, mark: str, output: str, exit_code: int) -> ScriptResult:
    """The part of the output that is the script's; all of it, as a failure, if the script did not come to its end."""
    form = rf"^{mark} begin {name} (?P<begin>\S*)\n(?P<output>.*?)^{mark} end {name} (?P<end>\S*) (?P<status>\d+)$"
    found = re.search(form, output, re.MULTILINE | re.DOTALL)
    if found is None:
        return ScriptResult(exit_code=exit_code or 1, output=output.replace(mark, "builder:"), seconds=0.0)
    return ScriptResult(
        exit_code=int(found["status"]), output=found["output"].strip(), seconds=_elapsed([found["begin"], found["end"]])
    )


def _elapsed(clock: Sequence[str]) -> float:
    try:
        begin, end = map(float, clock)
    except ValueError:  # the image has no `cut`
        return 0.0
    return round(end - begin, 3)
