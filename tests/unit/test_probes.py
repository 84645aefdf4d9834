"""The programs that check images from inside: what they report, and what they find in files."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from builder.contract import FOREIGN_VARIABLES, VARIABLES
from builder.matrix.facts import OS_RELEASE
from builder.verify.probes import files
from builder.verify.probes.files import Cache, Comparison, Hashes, files_below, record_faults, urlsafe
from builder.verify.probes.main import LANES, LATER, run_check
from builder.verify.probes.programs import has_other_mode, other_settings, program_faults
from builder.verify.probes.promises import (
    family_faults,
    fresh_for,
    keeps_answers,
    lacking,
    set_faults,
    user_faults,
    variable_faults,
)
from builder.verify.probes.report import Result, junit
from builder.verify.probes.shell import Expected, Failed, Shell
from builder.verify.script import INSIDE, Expectation, verify_script

TABLE: dict[str, Any] = {
    "variables": {name: [value] for name, value in VARIABLES.items()}, "foreign": FOREIGN_VARIABLES,
    "programs": {},
    "uv": "0.13.8", "python": "3.13.1", "interpreter": "",
    "packages": {"one": "1.0", "two": None}, "trees": {}, "complete": False,
    "proven": [], "unvouched": [], "sync": [], "listed": [], "cached": [], "sources": [], "overrides": False,
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


def test_programs(tmp_path: Path) -> None:
    """Broken: a program of builder's that somebody replaced, or one that hides the base's, is part of a good image."""
    own, shared, preload = tmp_path / "own" / "python", tmp_path / "bin" / "status", tmp_path / "ld.so.preload"
    for path in (own, shared):
        path.parent.mkdir()
        path.write_bytes(b"good")
        path.chmod(0o755)
    (shared.parent / "git").touch()
    programs = {str(own): hashlib.sha256(b"good").hexdigest(), str(shared): None}
    assert list(program_faults(programs, str(preload))) == []
    own.write_bytes(b"bad")
    (own.parent / "git").touch()
    shared.chmod(0o754)
    preload.write_bytes(b"/srv/evil.so")
    assert list(program_faults(programs, str(preload))) == [
        f"{shared} is closed to other users",
        f"{own} is not what builder wrote",
        f"{own.parent}/git belongs to nothing",
        f"{preload} is loaded into every program",
    ]
    shared.unlink()
    assert f"{shared} cannot be read: No such file or directory" in program_faults(programs, str(preload))


def test_links_to_folders_are_files(tmp_path: Path) -> None:
    """Broken: a package that is linked into the environment from elsewhere belongs to nothing, and nobody notices."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "__init__.py").touch()
    (tmp_path / "site" / "one").mkdir(parents=True)
    (tmp_path / "site" / "one" / "linked").symlink_to(tmp_path / "elsewhere")
    assert list(files_below(str(tmp_path / "site"))) == ["one/linked"]


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    """An environment with one file that is compared with another one with the same file."""
    for top in ("venv", "fresh"):
        site = tmp_path / top / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        (site / "__pycache__").mkdir(parents=True)
        (site / "six.py").touch()
    monkeypatch.setattr(files, "VENV", str(tmp_path / "venv"))
    return Comparison(str(tmp_path / "fresh"), Cache(EXPECTED))


@pytest.mark.parametrize(
    ("name", "is_stray"),
    [(f"six.{sys.implementation.cache_tag}.pyc", False), (f"six.{sys.implementation.cache_tag}.opt-1.pyc", True),
     ("six.cpython-37.pyc", True), (f"seven.{sys.implementation.cache_tag}.pyc", True)],
)  # fmt: skip
def test_bytecode_that_nobody_compares(compared: Comparison, name: str, is_stray: bool) -> None:
    """Broken: bytecode for `python -O`, or for another Python, is in the environment, made from who knows what."""
    path, venv = f"{compared.site}/__pycache__/{name}", Path(compared.fresh).with_name("venv")
    (venv / path).touch()
    assert (path in compared.paths(str(venv))) is is_stray


@pytest.mark.parametrize(
    ("mode", "is_wrong"), [(0o755, False), (0o777, False), (0o644, True), (0o754, True), (0o4755, True), (0o2755, True)]
)
def test_mode_of_a_program(tmp_path: Path, mode: int, is_wrong: bool) -> None:
    """Broken: a script of the environment that does not run, or runs as root for everybody, is what uv installs."""
    own, model, data = tmp_path / "own", tmp_path / "model", tmp_path / "data"
    for path, default in ((own, mode), (model, 0o755), (data, 0o644)):
        path.touch()
        path.chmod(default)
    assert has_other_mode(str(own), str(model)) is is_wrong
    assert not has_other_mode(str(data), str(data))
    assert not has_other_mode(str(tmp_path / "none"), str(tmp_path / "none"))


def test_settings_of_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an image leads uv or pip to another index, and nothing says so; or a password in an address is shown."""
    for name in [*os.environ]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    files = ("~/.pip/pip.conf", "~/none")
    assert other_settings(["UV_PYTHON"], files) == ""
    for name in ("UV_PYTHON", "UV_INDEX_URL", "PYTHONWARNINGS", "PYTHON_VERSION", "PATH"):
        monkeypatch.setenv(name, "https://jane:hunter2@index.example")
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip" / "pip.conf").touch()
    assert other_settings(["UV_PYTHON"], files) == "; also set: PYTHONWARNINGS, UV_INDEX_URL, ~/.pip/pip.conf"


def test_lock_that_lists_more() -> None:
    """Broken: an image that lacks a package of a requirements.txt passes, because its own record lacks it too."""
    would = "Would install 2 packages\n + shop==1.0 (from file:///builds/shop)\n + six==1.17.0\n"
    unknown = "cause: Because six was not found in the cache and you require six==1.17.0, we can conclude that"
    assert lacking(would) == ["six==1.17.0"]
    assert lacking(unknown) == ["six"]
    assert lacking("Checked 3 packages in 2ms\nWould make no changes") == []
