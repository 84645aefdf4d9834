"""Runs the checks in an image, and reports what they found."""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List, Tuple

from builder.verify.probes import bytecode, files, libraries, promises, tools
from builder.verify.probes.report import Result, junit
from builder.verify.probes.shell import WITHOUT_NETWORK, Expected, Failed, Shell, Skipped

Check = Callable[[Expected, Shell], str]
# Checks that leave everything as they found it, each lane at the same time as the other.
LANES: Tuple[Tuple[Tuple[str, Check], ...], ...] = (
    (("files", files.files),),
    (
        ("contract", promises.contract),
        ("installed-set", promises.installed_set),
        ("second-environment", promises.second_environment),
        ("activated-environment", promises.activated_environment),
        ("bytecode", bytecode.bytecode),
        ("libraries", libraries.libraries),
        ("sync-frozen", promises.sync_frozen),
        ("python-version-file", promises.python_version_file),
        ("tools", tools.tools),
    ),
)
# Checks that come one after another. The last ones write to the environment.
LATER: Tuple[Tuple[str, Check], ...] = (
    ("any-user", promises.any_user),
    ("uv-pip", promises.uv_pip),
    ("project-offline", promises.project_offline),
)


def check_image(expected: str, output: str, mark: str = "") -> int:
    """Check the image that this runs in: `expected` and `output` are paths of JSON files; return the exit code.

    Next to the output, results are written as JUnit XML. With a mark, each check is told when it has ended.
    """
    with open(expected, encoding="utf-8") as file:
        table: Dict[str, Any] = json.load(file)
    results = run_all(Expected(table), mark)
    with open(output, "w", encoding="utf-8") as written:
        json.dump({"image": table["image"], "id": table["id"], "checks": results}, written, indent=2)
    with open(os.path.splitext(output)[0] + ".xml", "wb") as report:
        report.write(junit({table["image"]: results}))
    for each in results:
        print("%-20s %-8s %s" % (each["name"], each["verdict"], each["evidence"]))
    sys.stdout.flush()
    return int(any(each["verdict"] == "failed" for each in results))


def run_all(expected: Expected, mark: str = "") -> List[Result]:
    """Run all checks that are asked for."""

    def run(lane: Tuple[Tuple[str, Check], ...]) -> List[Result]:
        return [run_check(name, check, expected, job, mark) for name, check in chosen(lane, expected)]

    job = Shell(os.getcwd(), expected.folder)
    os.environ.update(WITHOUT_NETWORK, UV_NO_PROGRESS="1")
    with ThreadPoolExecutor(len(LANES)) as pool:
        lanes = list(pool.map(run, LANES))
    return [each for lane in lanes for each in lane] + run(LATER)


def chosen(checks: Tuple[Tuple[str, Check], ...], expected: Expected) -> List[Tuple[str, Check]]:
    """Those of the checks that are asked for."""
    return [(name, check) for name, check in checks if name in expected.checks]


def run_check(name: str, check: Check, expected: Expected, job: Shell, mark: str = "") -> Result:
    """Run a check; whatever goes wrong in it is a verdict. With a mark, print it with the name at the end."""
    started = time.monotonic()
    try:
        verdict, evidence = "passed", check(expected, job)
    except Failed as failure:
        verdict, evidence = "failed", str(failure)
    except Skipped as reason:
        verdict, evidence = "skipped", str(reason)
    except Exception as error:
        verdict, evidence = "failed", "%s: %s" % (type(error).__name__, error)
    if mark:
        os.write(1, ("%s %s\n" % (mark, name)).encode())  # in one piece, whatever the other lane prints
    return {"name": name, "verdict": verdict, "evidence": evidence, "seconds": round(time.monotonic() - started, 3)}
