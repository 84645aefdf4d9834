"""The script that checks an image from inside: POSIX sh and the image's own Python, and all that they need.

It is the same one in `builder verify`, which runs it in a container, and in a job of a pipeline, whose image it is.
`sh verify.sh results.json` runs the checks in the current folder, the checkout, and writes the results there, and as
JUnit XML to results.xml. It ends with exit code 1 if a check failed. A second argument is printed before the name of
each check that has ended, at once, for somebody who watches.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from builder.contract import VENV
from builder.verify.probes.main import LANES, LATER
from builder.verify.probes.report import Result, junit

INSIDE: Final = tuple(name for checks in (*LANES, LATER) for name, _ in checks)
_END: Final = "END-OF-A-FILE-OF-BUILDER"
_PACKAGE: Final = Path(__file__).parents[1]
_DUMB: Final = f"{VENV}/bin/python ran no check; what it printed is above"
_START: Final = """
import sys
sys.path[:0] = [sys.argv[1]]
from builder.verify.probes.main import check_image
sys.exit(check_image(sys.argv[1] + "/expected.json", sys.argv[2], sys.argv[3]))
"""


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What the script expects of an image, as it can be told before.

    `programs` are paths of builder's own programs, with the SHA-256 of their contents, or None if any will do.
    `interpreter` is the Python that uv installed, such as `cpython-3.13.2`, empty if it is the base's own.
    `packages` maps names to versions, or to None if any will do; `trees` maps wheels (`six-1.17.0`) to the digests that
    their files may have, and is `complete` if the cache may have no other wheels. `proven` are the wheels that are not
    compared again, and `stdlib` if its bytecode is not. `unvouched` are faults found outside. `sync` is a job's `uv
    sync`, empty without a uv.lock; `listed` installs what a lock of another kind lists, empty without one. `cached` are
    those with what is only cached; `sources` are the packages that were built from source, by name. `overrides` says
    that the project has some. `folder` is that of the lock, relative to the checkout; `tools` are those of the matrix,
    with versions; `user` is the one that the matrix names. `family` is that of its distribution, empty if unknown, and
    `families` are all by ids of os-release(5). A `thorough` check compiles all bytecode again.
    """

    image: str
    id: str
    variables: Mapping[str, Sequence[str]]
    foreign: Sequence[str]
    programs: Mapping[str, str | None]
    uv: str
    python: str
    interpreter: str
    packages: Mapping[str, str | None]
    trees: Mapping[str, Sequence[str]]
    complete: bool
    proven: Sequence[str]
    unvouched: Sequence[str]
    sync: Sequence[str]
    listed: Sequence[str]
    cached: Sequence[Sequence[str]]
    sources: Sequence[str]
    overrides: bool
    folder: str
    tools: Mapping[str, str]
    user: str
    families: Mapping[str, str]
    family: str
    thorough: bool
    checks: Sequence[str]


def verify_script(expected: Expectation) -> str:
    """Return the script's text."""
    files = {path.relative_to(_PACKAGE.parent).as_posix(): path.read_text(encoding="utf-8") for path in _modules()}
    fault: Result = {"name": "contract", "verdict": "failed", "evidence": _DUMB, "seconds": 0.0}
    table = json.dumps(asdict(expected), indent=1, sort_keys=True) + "\n"
    without_python = {"image": expected.image, "id": expected.id, "checks": [fault]}
    return "\n".join(
        [
            "#!/bin/sh",
            f"# Checks the image {shlex.quote(expected.image)}; written by builder.",
            'output="${1:-results.json}"',
            'here="$(mktemp -d)" || exit 1',
            'mkdir -p "$here/builder/verify/probes"',
            *(_file(f'"$here/{name}"', text) for name, text in files.items()),
            _file('"$here/expected.json"', table),
            f'{VENV}/bin/python -I -S -B -c {shlex.quote(_START)} "$here" "$output" "${2:-}"',
            "status=$?",
            'rm -rf "$here"',
            'if [ ! -s "$output" ]; then',
            "status=1",
            _file('"$output"', json.dumps(without_python) + "\n"),
            _file('"${output%.json}.xml"', junit({expected.image: [fault]}).decode() + "\n"),
            "fi",
            "exit $status",
            "",
        ]
    )


def _modules() -> list[Path]:
    return [_PACKAGE / "contract.py", _PACKAGE / "tree.py", *sorted((_PACKAGE / "verify" / "probes").glob("*.py"))]


def _file(path: str, text: str) -> str:
    return f"cat > {path} <<'{_END}'\n{text}{_END}"
