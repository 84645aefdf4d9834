"""A job as a CI runner runs it: `sh -c` in a new container, its checkout on a volume, the network on."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from builder.errors import BuilderError
from builder.process import run
from builder.secret import PROXY_ARGS

BEGIN: Final = "bench: begin"
READY: Final = "bench: ready"

_CA_BUNDLE: Final = "/run/ca-certificates.crt"
_CA_VARIABLES: Final = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
_PASSED_ON: Final = (*PROXY_ARGS, "PIP_INDEX_URL")  # so that pip uses the same index as this machine


@dataclass(frozen=True, kw_only=True)
class Job:
    """A shell script on an image; `volumes` maps names to where they are mounted."""

    image: str
    script: str
    workdir: str
    volumes: Mapping[str, str]

    def run(self) -> dict[str, float]:
        """Run to the end; return when each mark was printed, in seconds after `docker run`.

        A mark counts when it arrives here, so that the time to remove the container does not count.
        Raises BuilderError with the end of the job's output if it fails.
        """
        name = f"builder-bench-{secrets.token_hex(6)}"
        argv = ["docker", "run", "--rm", "--name", name, "--label", "io.gitlab.prebuilt=bench", *self._options()]
        marks: dict[str, float] = {}
        output: list[str] = []
        started = time.monotonic()
        process = subprocess.Popen(
            [*argv, self.image, "sh", "-c", f"set -eu\n{self.script}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
        try:
            for line in process.stdout or ():
                output.append(line)
                if line.strip() in {BEGIN, READY}:
                    marks[line.strip()] = time.monotonic() - started
            status = process.wait()
        finally:
            if process.poll() is None:  # interrupted
                run(["docker", "rm", "--force", "--volumes", name])
                process.wait()
        if status or READY not in marks:
            raise BuilderError(
                f"a job failed with exit code {status}: {''.join(output[-15:])}", hint=f"its script: {self.script}"
            )
        return marks

    def _options(self) -> Iterator[str]:
        for volume, target in self.volumes.items():
            yield f"--volume={volume}:{target}"
        yield f"--workdir={self.workdir}"
        if os.environ.get("SSL_CERT_FILE"):
            yield f"--volume={os.environ['SSL_CERT_FILE']}:{_CA_BUNDLE}:ro"
            yield from (f"--env={variable}={_CA_BUNDLE}" for variable in _CA_VARIABLES)
        yield from (f"--env={variable}" for variable in _PASSED_ON if os.environ.get(variable))
