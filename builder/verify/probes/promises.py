"""The promises to jobs that are tried by doing what jobs do. Each function returns evidence, or raises Failed."""

from __future__ import annotations

import json
import os
import platform
import pwd
import re
import shlex
import tempfile
from typing import Any, Dict, List

from builder.contract import CACHE, PATH_FIRST, PROGRAMS, SELECTION, VENV
from builder.verify.probes.programs import other_settings
from builder.verify.probes.shell import (
    JOB_SETTINGS,
    UNKNOWN_USER,
    Expected,
    Failed,
    Shell,
    Skipped,
    scratch_folder,
    succeeded,
    sync_command,
)

OTHER_PYTHON = "3.7"  # no image has it
UV = "/usr/local/bin/uv"
SITES = "sitecustomize", "usercustomize"
# How uv's log says for how long an answer in the cache needs no network, in seconds; and for how long it should.
FRESH = re.compile("lifetime found via .*: ([0-9]+)s$", re.MULTILINE)
LONG = 86400 * 365
# How `uv pip install --dry-run --offline` says what an environment lacks, and what the cache lacks too.
LACKING = re.compile(r"^ \+ (\S+==\S+)$", re.MULTILINE)
UNKNOWN = re.compile(r"Because (\S+) was not found in the cache")
LASTING_UV = "0.8.1"  # the first uv that heeds `cache-control` of an index
# Where a job's Python comes from and looks for modules, as JSON.
LOOK = """
import importlib.util, json, os, platform, sys, sysconfig
found = [importlib.util.find_spec(name) for name in %r]
print(json.dumps({"executable": sys.executable, "prefix": sys.prefix, "base": sys.base_prefix, "path": sys.path,
    "version": platform.python_version(), "threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "implementation": sys.implementation.name, "custom": [spec.origin for spec in found if spec and spec.origin]}))
""" % (SITES,)


def contract(expected: Expected, job: Shell) -> str:
    """The variables and the paths are those of the contract, and uv and Python are what they say they are."""
    faults = list(variable_faults(expected))
    names = "command -v uv; command -v python"
    found = [*job.run(names).output.splitlines(), "nothing", "nothing"]
    locked = "uv" in expected.packages  # then it comes before the image's own on PATH, and jobs use it
    promised = (VENV + "/bin/uv" if locked else UV, VENV + "/bin/python")
    faults += ["%s is %s" % (os.path.basename(own), path) for path, own in zip(found, promised) if path != own]
    version = job.run("uv --version")
    said = [*version.output.split(), "", ""][:2] if not version.code else ["", ""]
    wanted = (expected.packages["uv"] or said[1]) if locked else expected.uv
    if said != ["uv", wanted]:
        faults.append("uv --version says %s, not %s" % (version.tail, wanted))
    faults += python_faults(expected, job) + user_faults(expected) + family_faults(expected)
    if faults:
        raise Failed("; ".join(faults[:5]))
    other = other_settings([*expected.variables, *JOB_SETTINGS])
    return "%d variables, and the paths; uv %s; ran on %s%s" % (len(expected.variables) + 1, wanted, here(), other)


def here() -> str:
    """Where this runs: the kind of machine, and in a job of GitLab its runner."""
    runner = os.environ.get("CI_RUNNER_DESCRIPTION")
    return platform.machine() + (", runner %s" % runner if runner else "")


def variable_faults(expected: Expected) -> List[str]:
    """Say which variables are not as promised, and which must not be set."""
    faults = []
    for name, values in sorted(expected.variables.items()):
        value = os.environ.get(name)
        if value not in values:
            faults.append("%s is %s, not %s" % (name, value or "not set", " or ".join(values)))
    path = os.environ.get("PATH", "")
    first = ":".join(PATH_FIRST + ((PROGRAMS,) if expected.tools else ()))
    if not path.startswith(first + ":"):
        faults.append("PATH does not begin with %s: %s" % (first, path))
    faults += ["%s is set: %s" % (name, os.environ[name]) for name in expected.foreign if os.environ.get(name)]
    return faults


def family_faults(expected: Expected, path: str = "/etc/os-release") -> List[str]:
    """Say if the distribution is of another family than the matrix says, as far as os-release(5) tells."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.strip().partition("=") for line in file]
    except OSError:
        return []
    ids = [word for name, _, value in lines if name in ("ID", "ID_LIKE") for word in value.strip("\"'").split()]
    found = [expected.families[word] for word in ids if word in expected.families]
    if not expected.family or not found or expected.family in found:
        return []
    return ["/etc/os-release says %s, which is of the family %s, not %s" % (ids[0], found[0], expected.family)]


def user_faults(expected: Expected) -> List[str]:
    """Say what is wrong with the user that the matrix names, if it is not root: jobs need its home."""
    if expected.user in ("", "0", "root"):
        return []
    try:
        user = pwd.getpwuid(int(expected.user)) if expected.user.isdigit() else pwd.getpwnam(expected.user)
    except KeyError:
        return [] if expected.user.isdigit() else ["there is no user %s" % expected.user]
    if not os.path.isdir(user.pw_dir):
        return ["%s, the home of %s, is missing" % (user.pw_dir, user.pw_name)]
    is_closed = os.getuid() == user.pw_uid and not os.access(user.pw_dir, os.W_OK | os.X_OK)
    return ["%s may not write to %s, its home" % (user.pw_name, user.pw_dir)] if is_closed else []


def python_faults(expected: Expected, job: Shell) -> List[str]:
    """Say what is wrong with the Python that a job gets, and where it looks for modules."""
    ended = job.run("python -c %s" % shlex.quote(LOOK))
    try:
        told = json.loads(ended.last_line)
        faults = ["python is %s" % told["executable"]] if told["prefix"] != VENV else []
        if expected.python and not (told["version"] + ".").startswith(expected.python + "."):
            faults.append("python is %s, not %s" % (told["version"], expected.python))
        name = told["implementation"] + "-" + told["version"] + ("+freethreaded" if told["threaded"] else "")
        faults += ["python is %s, not %s" % (name, expected.interpreter)] * (expected.interpreter not in ("", name))
        homes = (told["base"], VENV)
        outside = [path for path in told["path"] if path and not path.startswith(homes)]
        faults += ["python looks for modules in %s" % path for path in outside[:1]]
        # What is in the environment is checked file by file; Debian's own Python brings one along.
        custom = [path for path in told["custom"] if not path.startswith(VENV) and job.run("dpkg -S " + path).code]
        return faults + ["python runs %s at each start" % path for path in custom]
    except (ValueError, KeyError, TypeError):
        return ["python does not work: %s" % ended.tail]


def sync_frozen(expected: Expected, job: Shell) -> str:
    """A job's sync leaves the environment unchanged."""
    return job.require(unchanged(sync_command(expected) or reinstall(""))).last_line


def project_offline(expected: Expected, job: Shell) -> str:
    """The project itself installs without a network, because its build backend is in the cache."""
    if not expected.sync:
        raise Skipped("there is no uv.lock to sync with")
    whole = [word for word in expected.sync if word != "--no-install-local"]
    if not keeps_answers(job.run("uv --version").output):
        whole.append("--offline")
        said = succeeded(job.run_in_copy(" ".join(map(shlex.quote, whole)))).last_line
        return "%s; this uv needs --offline for that, %s or later does not" % (said, LASTING_UV)
    ended = succeeded(job.run_in_copy("RUST_LOG=uv_client=trace " + " ".join(map(shlex.quote, whole))))
    seconds = fresh_for(ended.output)
    if seconds < LONG:
        raise Failed("the index's answers in the cache are fresh for %d seconds: later, uv asks it again" % seconds)
    return ended.last_line


def keeps_answers(said: str) -> bool:
    """Whether a uv that says this of its version keeps the index's answers for as long as it is told to."""
    numbers = re.findall("[0-9]+", said)[:3]
    return [int(number) for number in numbers] >= [int(number) for number in LASTING_UV.split(".")]


def fresh_for(log: str) -> int:
    """For how many seconds all answers of the index that uv took from its cache were fresh, as its log says."""
    return min(map(int, FRESH.findall(log)), default=LONG)


def second_environment(expected: Expected, job: Shell) -> str:
    """A second environment installs from the cache alone; and so do those of jobs that need what is only cached."""
    evidence = from_cache(expected, job) if expected.packages else "0 packages from the cache, without a network"
    for command in expected.cached:
        with_group = " ".join(map(shlex.quote, command))
        with tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch:
            os.chmod(scratch, 0o777)
            fresh = os.path.join(scratch, "second")
            if command[1] == "pip":
                with_group = "uv venv --quiet %s\n%s --python %s" % (fresh, with_group, fresh)
            ended = job.run(with_group, {"UV_LINK_MODE": "symlink", "UV_PROJECT_ENVIRONMENT": fresh})
        if ended.code:
            raise Failed("%s: %s" % (" ".join(command), ended.tail))
    return evidence + "".join("; %s too" % " ".join(command[4:]) for command in expected.cached)


def from_cache(expected: Expected, job: Shell) -> str:
    """Install what is in the environment into another one; with links, that takes a hundredth of the time."""
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch:
        os.chmod(scratch, 0o777)
        fresh = os.path.join(scratch, "second")
        sync = sync_command(expected)
        script = sync or "uv venv --quiet %s\n%s" % (fresh, reinstall("--python %s" % fresh))
        variables = {"UV_LINK_MODE": "symlink", "UV_PROJECT_ENVIRONMENT": fresh}
        ended = job.require(script + "\nls -d %s/lib/*/site-packages/*.dist-info | wc -l" % fresh, variables)
    count = ended.last_line.strip()
    if not count.isdigit():
        raise Failed("wc -l printed %r in the image" % count)
    if int(count) < len(expected.packages):
        raise Failed("%s of %d packages are in the second environment" % (count, len(expected.packages)))
    return "%s packages from the cache, without a network" % count


def activated_environment(expected: Expected, job: Shell) -> str:
    """An environment that somebody makes and activates wins, and UV_SYSTEM_PYTHON still reaches the image's."""
    if not expected.packages:
        return "nothing to check: the selection is empty"
    name = shlex.quote(expected.first)
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch:
        fresh = os.path.join(scratch, "own")
        lines = [
            "python -m venv --without-pip %s" % fresh,
            "set +u",  # the script that Python 3.12.1 writes reads OSTYPE, which sh does not set
            ". %s/bin/activate" % fresh,
            "UV_LINK_MODE=symlink " + reinstall(""),
            located(name, fresh),
            located(name, VENV, "UV_SYSTEM_PYTHON=1"),
        ]
        job.require("\n".join(lines))
    return "uv pip install uses an environment that was activated, and UV_SYSTEM_PYTHON=1 still %s" % VENV


def python_version_file(expected: Expected, job: Shell) -> str:
    """A `.python-version` file with another version does not replace the environment."""
    lines = [
        "echo %s > .python-version" % OTHER_PYTHON,
        unchanged(sync_command(expected) or reinstall("")) + " || exit 1",  # `set -e` lets a chain of && fail
        "python -c 'import sys; print(sys.prefix, sys.version.split()[0])'",
    ]
    python = succeeded(job.run_in_copy("\n".join(lines))).last_line
    if not python.startswith(VENV + " "):
        raise Failed("python is %s" % python)
    return "with %s in .python-version, python is still %s" % (OTHER_PYTHON, python)


def uv_pip(expected: Expected, job: Shell) -> str:
    """Uv pip shows the environment and installs into it, with UV_SYSTEM_PYTHON too."""
    if not expected.packages:
        return "nothing to check: the selection is empty"
    name = shlex.quote(expected.first)
    lines = [
        "uv pip show %s" % name,
        located(name, VENV, "UV_SYSTEM_PYTHON=1"),
        "uv pip uninstall %s" % name,
        "if uv pip show --quiet %s; then echo %s is still installed; exit 1; fi" % (name, name),
        "UV_SYSTEM_PYTHON=1 %s" % reinstall(""),
        located(name, VENV),
    ]
    job.require("\n".join(lines))
    return "uv pip show and uv pip install use %s, with UV_SYSTEM_PYTHON=1 too" % VENV


def located(name: str, environment: str, setting: str = "") -> str:
    """A command that fails unless the package is in the environment; it prints where it is instead."""
    show = 'found="$(%s uv pip show %s 2>&1 || :)"; echo "$found"; echo "$found" | grep -q "^Location: %s/"'
    return show % (setting, name, environment)


def installed_set(expected: Expected, job: Shell) -> str:
    """The installed packages and versions are those of the selection, and are compatible."""
    listing = job.require("uv pip list --format json 2>/dev/null").output
    try:
        installed = {each["name"].lower().replace("_", "-"): each["version"] for each in json.loads(listing)}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Failed("unexpected output of uv pip list in the image: %.200s" % listing) from None
    faults = set_faults(expected, installed)
    if expected.listed:  # the selection that the image has recorded may lack some of the lock
        dry = job.run(" ".join(map(shlex.quote, [*expected.listed, "--dry-run", "--color", "never"]))).output
        faults += ["%s is not installed, but in the lock" % package for package in lacking(dry)]
    if faults:
        raise Failed("; ".join(faults[:5]))
    return "%d packages as locked; %s" % (len(expected.packages), compatibility(expected, job))


def lacking(said: str) -> List[str]:
    """The packages of the lock that uv would install, as it says; not those from the checkout itself."""
    return LACKING.findall(said) + UNKNOWN.findall(said)


def set_faults(expected: Expected, installed: Dict[str, Any]) -> List[str]:
    """Say which packages are missing, too many, or of another version; pip is part of any environment."""
    faults = [] if "pip" in installed else ["pip is missing"]
    for name in sorted(set(installed) | set(expected.packages)):
        is_locked = name in expected.packages
        locked, version = expected.packages.get(name), installed.get(name)
        if (name != "pip" or is_locked) and (not is_locked or version is None or locked not in (None, version)):
            said = (locked or "in any version") if is_locked else "not at all"
            faults.append("%s %s, locked %s" % (name, version or "is missing", said))
    return faults


def compatibility(expected: Expected, job: Shell) -> str:
    """What `uv pip check` says; raise Failed if it finds a conflict that the project does not allow."""
    ended = job.run("uv pip check")
    if not ended.code:
        return ended.last_line
    if expected.overrides:
        return "uv pip check, which does not know the project's overrides, reports: %s" % ended.tail
    raise Failed(ended.tail)


def any_user(expected: Expected, job: Shell) -> str:
    """What jobs do passes for a user who is not root and not in the passwd file."""
    if os.getuid():
        return "all checks ran as uid %d" % os.getuid()
    with job.as_user(UNKNOWN_USER) as other:
        started = other.run("true")
        if started.code:
            raise Skipped("not possible here: nothing runs as uid %d: %s" % (UNKNOWN_USER, started.tail))
        try_as(expected, other)
    return "sync-frozen, second-environment and uv-pip pass for uid %d" % UNKNOWN_USER


def try_as(expected: Expected, other: Shell) -> None:
    """Do what jobs do; raise Failed if that fails, or if the user may not write."""
    for name, check in (("sync-frozen", sync_frozen), ("second-environment", second_environment), ("uv-pip", uv_pip)):
        try:
            check(expected, other)
        except Failed as failure:  # noqa: PERF203
            raise Failed("%s as uid %d: %s" % (name, UNKNOWN_USER, failure)) from failure
    script = "[ -w %s ] && [ -w %s ]" % (CACHE, VENV)
    if other.run(script).code:
        raise Failed("uid %d may not write to %s and %s" % (UNKNOWN_USER, CACHE, VENV))


def unchanged(command: str) -> str:
    """A script that runs the command and fails if it changed a file of the environment."""
    # One chain of &&, because `set -e` has no effect in a command whose exit status is tested.
    return (
        'before="$(mktemp)" && %s && changed=$(find %s -newer "$before" | head -n 3) && rm "$before" && '
        '{ [ -z "$changed" ] || { echo "changed: $changed"; exit 1; }; }' % (command, VENV)
    )


def reinstall(options: str) -> str:
    """A command that installs the selection recorded in the image, from the cache."""
    return "uv pip install --offline --no-deps %s --requirements %s" % (options, SELECTION)
