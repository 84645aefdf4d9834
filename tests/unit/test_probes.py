"""The programs that check images from inside: what they report, and what they find in files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from builder.contract import FOREIGN_VARIABLES, VARIABLES
from builder.matrix.facts import OS_RELEASE
from builder.verify.probes.files import Hashes, record_faults, urlsafe
from builder.verify.probes.main import LANES, LATER, run_check
from builder.verify.probes.promises import (
    family_faults,
    fresh_for,
    keeps_answers,
    set_faults,
    user_faults,
    variable_faults,
)
from builder.verify.probes.report import Result, junit
from builder.verify.probes.shell import Expected, Failed, Shell
from builder.verify.script import INSIDE, Expectation, verify_script

TABLE: dict[str, Any] = {
    "variables": {name: [value] for name, value in VARIABLES.items()}, "foreign": FOREIGN_VARIABLES,
    "uv": "0.13.8", "python": "3.13.1", "interpreter": "", "packages": {"one": "1.0", "two": None}, "trees": {},
    "complete": False, "proven": [], "unvouched": [], "sync": [], "cached": [], "sources": [], "overrides": False,
    "folder": ".", "tools": {}, "user": "", "family": "debian", "families": OS_RELEASE, "thorough": False,
    "checks": list(INSIDE),
}  # fmt: skip
EXPECTED = Expected(TABLE)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('ID=debian\nVERSION_ID="12"\n', ""),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'\n", ""),
        ('ID="rhel"\nID_LIKE="fedora"\n', "/etc/os-release says rhel, which is of the family rhel, not debian"),
        ("ID=alpine\n", "/etc/os-release says alpine, which is of the family alpine, not debian"),
        ("ID=nixos\n", ""),
    ],
)
def test_family_is_that_of_the_distribution(text: str, fault: str, tmp_path: Path) -> None:
    """Broken: an image whose family is wrong in the matrix has wheels for another libc, and passes."""
    path = tmp_path / "os-release"
    path.write_text(text, encoding="utf-8")
    assert "; ".join(family_faults(EXPECTED, str(path))) == fault
    assert family_faults(EXPECTED, str(tmp_path / "missing")) == []


@pytest.mark.parametrize(
    ("user", "fault"),
    [("", ""), ("0", ""), ("987654", ""), ("nobody-has-this-name", "there is no user nobody-has-this-name")],
)
def test_user_without_a_home(user: str, fault: str) -> None:
    """Broken: jobs of an image with a user of its own cannot write to their home, and it passes."""
    assert "; ".join(user_faults(Expected({**TABLE, "user": user}))) == fault


RESULTS: list[Result] = [
    {"name": "files", "verdict": "failed", "evidence": "six.py <is> \x1b[31m gone\nmore", "seconds": 1.5},
    {"name": "contract", "verdict": "passed", "evidence": "fine", "seconds": 0.25},
    {"name": "project-offline", "verdict": "skipped", "evidence": "no lock", "seconds": 0},
]


@pytest.mark.parametrize(
    ("installed", "faults"),
    [
        ({"one": "1.0", "two": "7", "pip": "24"}, []),
        ({"one": "1.1", "two": "7", "pip": "24"}, ["one 1.1, locked 1.0"]),
        ({"one": "1.0", "pip": "24"}, ["two is missing, locked in any version"]),
        ({"one": "1.0", "two": "7", "pip": "24", "six": "1"}, ["six 1, locked not at all"]),
        ({"one": "1.0", "two": "7"}, ["pip is missing"]),
    ],
)
def test_installed_set(installed: dict[str, str], faults: list[str]) -> None:
    """Broken: a package too many, too few or of another version is not named."""
    assert set_faults(EXPECTED, installed) == faults


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an image passes whose variables are not those of the contract."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    for name in FOREIGN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/opt/uv/venv/bin:/usr/local/lib/prebuilt/bin:/bin")
    assert variable_faults(EXPECTED) == []
    monkeypatch.setenv("PYTHONPATH", "/x")
    monkeypatch.delenv("UV_CACHE_DIR")
    monkeypatch.setenv("PATH", "/opt/uv/venv/bin:/bin")
    assert variable_faults(EXPECTED) == [
        "UV_CACHE_DIR is not set, not /opt/uv/cache",
        "PATH does not begin with /opt/uv/venv/bin:/usr/local/lib/prebuilt/bin: /opt/uv/venv/bin:/bin",
        "PYTHONPATH is set: /x",
    ]


def test_freshness() -> None:
    """Broken: an image passes whose builds ask the index again ten minutes later, or in a year."""
    said = "TRACE Freshness lifetime found via cache-control max age setting: %ds\n"
    assert fresh_for(said % 365000000 + said % 600 + "Built shop\n") == 600
    assert fresh_for("Built shop\n") >= 365 * 86400


@pytest.mark.parametrize(
    ("said", "keeps"),
    [("uv 0.8.1", True), ("uv 0.13.8 (x86_64-unknown-linux-gnu)", True), ("uv 1.0.0", True), ("uv 0.8.0", False),
     ("uv 0.7.22 (1 2)", False)],
)  # fmt: skip
def test_uv_that_keeps_answers(said: str, keeps: bool) -> None:
    """Broken: an image with an older uv cannot be built, or one with a newer uv passes although jobs ask the index."""
    assert keeps_answers(said) is keeps


def test_record(tmp_path: Path) -> None:
    """Broken: a file that a RECORD denies, does not list, or lists in vain is not named."""
    names = ("a.py", "b.py", "c.py", "one-1.0.dist-info/RECORD")
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    info = tmp_path / "one-1.0.dist-info"
    info.mkdir()
    rows = [f"a.py,sha256={urlsafe(hashes['a.py'])},4", f"b.py,sha256={urlsafe(hashes['a.py'])},4", "d.py,,"]
    (info / "RECORD").write_text("\n".join([*rows, "one-1.0.dist-info/RECORD,,", ""]))
    assert list(record_faults(str(tmp_path), "one-1.0", hashes)) == [
        f"{tmp_path}/b.py is not the file of its wheel",
        f"{tmp_path}/d.py is missing",
        f"{tmp_path}/c.py is not in its wheel",
    ]
    (info / "RECORD").unlink()
    with pytest.raises(Failed, match="RECORD cannot be read"):
        list(record_faults(str(tmp_path), "one-1.0", hashes))


def test_hashes(tmp_path: Path) -> None:
    """Broken: a file has another hash than its content, or a link to it is not the same file."""
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to("a")
    hashes = Hashes()
    assert hashes.of(str(tmp_path / "a")) == hashes.of(str(tmp_path / "b")) == hashlib.sha256(b"x").hexdigest()
    with pytest.raises(Failed, match="cannot be read"):
        hashes.of(str(tmp_path / "none"))


def test_junit() -> None:
    """Broken: GitLab cannot read the report, or reads a failed check as one that passed."""
    suites = ElementTree.fromstring(junit({"x:1": RESULTS}))  # noqa: S314 - written here
    (suite,) = suites
    assert suite.attrib == {
        "name": "x:1", "tests": "3", "failures": "1", "errors": "0", "skipped": "1", "time": "1.750",
    }  # fmt: skip
    assert [(case.attrib["name"], [child.tag for child in case]) for case in suite] == [
        ("files", ["failure"]), ("contract", ["system-out"]), ("project-offline", ["skipped"]),
    ]  # fmt: skip
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.text == "six.py <is> ?[31m gone\nmore"


def test_any_fault_in_a_check_is_a_verdict() -> None:
    """Broken: an image that is broken in a way that nobody thought of ends the checks with a traceback."""

    def odd(_: Expected, __: Shell) -> str:
        raise RecursionError("deep")

    result = run_check("files", odd, EXPECTED, Shell("/", "."))
    assert (result["verdict"], result["evidence"]) == ("failed", "RecursionError: deep")


def test_checks_have_different_names() -> None:
    """Broken: a check counts for another one, because they have the same name."""
    names = [name for checks in (*LANES, LATER) for name, _ in checks]
    assert sorted(set(names)) == sorted(names)


def test_script_is_valid(tmp_path: Path) -> None:
    """Broken: the script cannot be read by a shell, or a value in it becomes a command."""
    image = "x'; touch evil; '"
    text = verify_script(Expectation(image=image, id="$(touch evil)", **TABLE))
    assert text.startswith("#!/bin/sh\n# Checks the image 'x'\"'\"'; touch evil")
    heredocs = text.split("<<'END-OF-A-FILE-OF-BUILDER'\n")
    assert all("\nEND-OF-A-FILE-OF-BUILDER\n" in each for each in heredocs[1:])
    assert len(heredocs) == text.count("\nEND-OF-A-FILE-OF-BUILDER\n") + 1
