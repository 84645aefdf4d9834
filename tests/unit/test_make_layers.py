"""The program that makes layers: which files are in which layer, and how a layer shows what is gone."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

SITE = "venv/lib/python3.12/site-packages"
Wheel = Mapping[str, bytes]


@pytest.fixture
def program(repository_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program as a module, with /opt/uv in a folder of the test."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = repository_root / "dockerfiles" / "make_layers.py"
    spec = importlib.util.spec_from_file_location("make_layers_under_test", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    top = str(tmp_path / "opt" / "uv")
    for name, below in (("UV", ""), ("VENV", "/venv"), ("CACHE", "/cache")):
        monkeypatch.setattr(module, name, top + below)
    monkeypatch.setattr(module, "CA_BUNDLE", str(tmp_path / "no-bundle.pem"))
    return module


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """The folder in place of /opt/uv."""
    folder = tmp_path / "opt" / "uv"
    folder.mkdir(parents=True)
    return folder


def write(path: Path, content: bytes = b"", mode: int = 0o644) -> Path:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def install(top: Path, name: str, wheel: Wheel, listed: Sequence[str] = ()) -> None:
    """Install a wheel as uv does: unpacked into the cache, found there by a link, its files linked and compiled.

    `listed` are further lines of its RECORD.
    """
    archive = top / "cache" / "archive-v0" / f"id-of-{name}"
    found = top / "cache" / "wheels-v7" / "pypi" / name / "1.0-py3-none-any"
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    for path, content in {**wheel, f"{info}/METADATA": b"Name"}.items():
        write(archive / path, content)
        target = top / SITE / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.hardlink_to(archive / path)
        if path.endswith(".py"):
            write(target.parent / "__pycache__" / f"{target.stem}.{sys.implementation.cache_tag}.pyc", b"code")
    found.parent.mkdir(parents=True)
    found.symlink_to(f"../../../archive-v0/id-of-{name}")
    lines = [f"{path},," for path in (*wheel, f"{info}/METADATA", f"{info}/RECORD", *listed)]
    write(top / SITE / info / "RECORD", "\n".join(lines).encode())
    write(top / "cache" / "CACHEDIR.TAG", b"tag")
    write(top / "cache" / "wheels-v7" / ".gitignore", b"*")
    write(top / "cache" / "interpreter-v4" / "python.msgpack", b"notes")


def run(
    program: Any, tmp_path: Path, layers: Mapping[str, Sequence[str]], installed: Callable[[Sequence[str]], None]
) -> dict[str, list[str]]:
    """Run a step that installs packages; return the names in each layer, relative to /opt/uv."""

    class Step(program.Step):  # type: ignore[misc]
        """A step whose scripts are functions."""

        def run(self, script: str, requirements: str) -> None:
            if script == "setup.sh":
                write(tmp_path / "opt/uv/venv/pyvenv.cfg")
                (tmp_path / "opt/uv" / SITE).mkdir(parents=True)
            else:
                alone = Path(requirements).name.split(".")[1:-1]
                installed(alone or [name for names in layers.values() for name in names])

    table = {
        "title": "install", "setup": "setup.sh", "script": "step.sh", "scope": str(tmp_path / "opt" / "uv"),
        "requirements": "packages/pylock.toml", "layers": layers,
    }  # fmt: skip
    output = tmp_path / "output"
    output.mkdir()
    program.make_packages(Step(str(tmp_path), table), str(output))
    prefix = str(tmp_path / "opt" / "uv").lstrip("/")
    made = {}
    for path in sorted(output.iterdir()):
        with tarfile.open(path) as tar:
            made[path.stem] = [os.path.relpath(name, prefix) for name in tar.getnames()]
    return made


def files(names: Sequence[str]) -> set[str]:
    """The names of packages' own files in the environment, without metadata and bytecode."""
    mine = (name.removeprefix(f"{SITE}/") for name in names if name.startswith("venv/") and name.endswith(".py"))
    return set(mine)


def test_every_file_is_in_its_packages_layer(program: Any, top: Path, tmp_path: Path) -> None:
    """Broken: a layer lacks files of its package, or has those of another."""
    wheels: dict[str, Wheel] = {"one": {"one/a.py": b"1"}, "two-b": {"two/b.py": b"2"}, "three": {"three.py": b"3"}}

    def installed(names: Sequence[str]) -> None:
        for name in names:
            install(top, name, wheels[name])

    made = run(program, tmp_path, {"k1": ["one"], "k2": ["three", "two-b"]}, installed)
    assert files(made["k1"]) == {"one/a.py"}
    assert files(made["k2"]) == {"two/b.py", "three.py"}
    assert made["k1"] == sorted(made["k1"])  # parents before their files
    assert "cache/wheels-v7/pypi/one/1.0-py3-none-any" in made["k1"]
    assert "cache/archive-v0/id-of-one/one/a.py" in made["k1"]
    assert f"{SITE}/one/__pycache__/a.{sys.implementation.cache_tag}.pyc" in made["k1"]
    assert f"{SITE}/two_b-1.0.dist-info/RECORD" in made["k2"]
    assert not set(made["k1"]) & {name for name in made["k2"] if name.endswith((".py", "RECORD", "none-any"))}


def test_markers_are_in_no_layer_of_packages(program: Any, top: Path, tmp_path: Path) -> None:
    """Broken: each layer has what belongs to the empty environment, and hides the right one."""
    made = run(program, tmp_path, {"k1": ["one"]}, lambda _: install(top, "one", {"one.py": b"1"}))
    assert not [name for name in made["k1"] if name.endswith(("CACHEDIR.TAG", ".gitignore", ".msgpack", "pyvenv.cfg"))]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cache/.lock", True),
        ("cache/wheels-v7/.git", True),
        ("venv/CACHEDIR.TAG", True),
        ("cache/interpreter-v4/a/b.msgpack", True),
        ("cache/archive-v0/x/.gitignore", False),
        (f"{SITE}/one/.gitignore", False),
        ("cache/archive-v0/x/one/.lock", False),
    ],
)
def test_what_is_a_marker(program: Any, top: Path, path: str, expected: bool) -> None:
    """Broken: a package's file that is named like one of uv's is in no layer."""
    assert program.is_marker(str(top / path)) is expected


def test_packages_that_write_one_file(program: Any, top: Path, tmp_path: Path) -> None:
    """Broken: of two packages that write one file, one layer has the other's, and its RECORD is wrong."""
    wheels: dict[str, Wheel] = {
        "one": {"shared.py": b"of one", "one.py": b"1"},
        "two": {"shared.py": b"of two", "two.py": b"2"},
        "three": {"three.py": b"3"},
    }
    asked: list[Sequence[str]] = []

    def installed(names: Sequence[str]) -> None:
        asked.append(names)
        for name in names:
            install(top, name, wheels[name])

    made = run(program, tmp_path, {"k1": ["one", "three"], "k2": ["two"]}, installed)
    assert asked == [["one", "three", "two"], ["one"], ["two"]]
    assert files(made["k1"]) == {"shared.py", "one.py", "three.py"}
    assert files(made["k2"]) == {"shared.py", "two.py"}
    for key, content in (("k1", b"of one"), ("k2", b"of two")):
        with tarfile.open(tmp_path / "output" / f"{key}.tar") as tar:
            (member,) = [entry for entry in tar if entry.name.endswith("site-packages/shared.py")]
            opened = tar.extractfile(member)
            assert opened
            assert opened.read() == content


def test_conflict_within_one_layer(program: Any, top: Path, tmp_path: Path) -> None:
    """Broken: a layer has one file twice, and its bytes depend on the order."""
    wheels: dict[str, Wheel] = {"a": {"shared.py": b"of a"}, "b": {"shared.py": b"of b", "b.py": b""}}

    def installed(names: Sequence[str]) -> None:
        for name in names:
            install(top, name, wheels[name])

    (names,) = run(program, tmp_path, {"k1": ["a", "b"]}, installed).values()
    assert len(names) == len(set(names))
    assert files(names) == {"shared.py", "b.py"}


def test_file_without_an_owner(program: Any, top: Path, tmp_path: Path) -> None:
    """Broken: a file that no RECORD lists is in no layer."""

    def installed(names: Sequence[str]) -> None:
        for name in names:
            install(top, name, {f"{name}.py": b""})
            if name == "one":
                write(top / SITE / "unlisted.txt", b"x")

    made = run(program, tmp_path, {"k1": ["one"], "k2": ["two"]}, installed)
    assert f"{SITE}/unlisted.txt" in made["k1"]
    assert f"{SITE}/unlisted.txt" not in made["k2"]
    assert files(made["k2"]) == {"two.py"}


def test_scripts_and_data(program: Any, top: Path, tmp_path: Path) -> None:
    """Broken: a script or a data file of a package is in no layer, or in all of them."""

    def installed(names: Sequence[str]) -> None:
        for name in names:
            install(top, name, {f"{name}.py": b""}, [f"../../../bin/{name},,", f"../../../share/{name}/data.txt,,"])
            write(top / "venv/bin" / name, b"#!python", 0o755)
            write(top / "venv/share" / name / "data.txt", b"data")

    made = run(program, tmp_path, {"k1": ["one"], "k2": ["two"]}, installed)
    assert {"venv/bin/one", "venv/share", "venv/share/one", "venv/share/one/data.txt"} <= set(made["k1"])
    assert not [name for name in made["k2"] if "/one" in name]


def test_empty_folder_of_a_package(program: Any, top: Path, tmp_path: Path) -> None:
    """Broken: an empty folder that a package brings along is in no layer."""

    def installed(names: Sequence[str]) -> None:
        for name in names:
            install(top, name, {f"{name}.py": b""})
            if name == "one":
                (top / "cache" / "archive-v0" / "id-of-one" / "empty").mkdir()
                (top / SITE / "empty").mkdir()

    made = run(program, tmp_path, {"k1": ["one"], "k2": ["two"]}, installed)
    assert {"cache/archive-v0/id-of-one/empty", f"{SITE}/empty"} <= set(made["k1"])
    assert f"{SITE}/empty" not in made["k2"]


def test_hard_links_are_kept(program: Any, top: Path, tmp_path: Path) -> None:
    """Broken: an image has each file twice, in the environment and in the cache."""
    run(program, tmp_path, {"k1": ["one"]}, lambda _: install(top, "one", {"one.py": b"x" * 1000}))
    with tarfile.open(tmp_path / "output" / "k1.tar") as tar:
        entries = {Path(entry.name).parent.name: entry for entry in tar if entry.name.endswith("one.py")}
    assert entries["site-packages"].islnk()
    assert entries["site-packages"].linkname == entries["id-of-one"].name
    assert (entries["id-of-one"].size, entries["site-packages"].size) == (1000, 0)


@pytest.mark.parametrize("what", ["listxattr", "no support"])
def test_attributes_that_cannot_be_read(
    program: Any, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Broken: layers cannot be made where the Python or the file system has no extended attributes."""
    if what == "listxattr":
        monkeypatch.delattr(os, "listxattr")
    else:

        def fail(path: str, **_: object) -> list[str]:
            raise OSError(95, "Operation not supported", path)

        monkeypatch.setattr(os, "listxattr", fail)
    made = run(program, tmp_path, {"k1": ["one"]}, lambda _: install(top, "one", {"one.py": b""}))
    assert files(made["k1"]) == {"one.py"}


def test_attributes(program: Any, top: Path, tmp_path: Path) -> None:
    """Broken: a program loses its capabilities, or a file gets attributes of the machine that it was made on."""
    path = write(top / "ping")
    try:
        os.setxattr(path, "user.note", b"n\xffte")
        os.setxattr(path, "trusted.overlay", b"x")
    except OSError:
        pytest.skip("no extended attributes here, or not root")
    program.write(str(tmp_path / "a.tar"), [str(path)], [], str(top))
    with tarfile.open(tmp_path / "a.tar") as tar:
        headers = dict(tar.getmembers()[-1].pax_headers)
    assert headers.pop("hdrcharset", "") in {"", "BINARY"}
    assert headers == {"SCHILY.xattr.user.note": "n\udcffte"}


def test_socket_is_left_out(program: Any, top: Path, tmp_path: Path) -> None:
    """Broken: a socket that a script left behind, which no tar can have, fails the build."""
    os.mknod(top / "socket", stat.S_IFSOCK | 0o600)
    program.write(str(tmp_path / "a.tar"), [str(top / "socket"), str(write(top / "a"))], [], str(top))
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert [Path(name).name for name in tar.getnames()] == ["uv", "a"]


def test_times_are_whole_seconds(program: Any, top: Path, tmp_path: Path) -> None:
    """Broken: bytecode, which notes its source's time in seconds, is stale in the image."""
    path = write(top / "a.py")
    os.utime(path, ns=(1_700_000_000_900_000_000, 1_700_000_000_900_000_000))
    program.write(str(tmp_path / "a.tar"), [str(path)], [], str(top))
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert (tar.getmembers()[-1].mtime, tar.getmembers()[-1].uname) == (1_700_000_000, "")


def changes(program: Any, folder: Path, change: Callable[[], None]) -> tuple[list[str], list[str]]:
    """What a change makes of a folder: paths that are new or different, and those that are gone, relative to it."""
    before = program.state(str(folder))
    change()
    after = program.state(str(folder))
    found = program.changed(before, after), program.removed(before, after)
    return tuple([os.path.relpath(path, folder) for path in paths] for paths in found)  # type: ignore[return-value]


def test_changes(program: Any, top: Path) -> None:
    """Broken: a file that a step changed, added or removed is not in its layer, or one that stayed is."""
    for name in ("same", "content", "mode", "gone", "folder/a", "folder/sub/b", "kept/a"):
        write(top / name, b"1")

    def change() -> None:
        (top / "content").write_bytes(b"2")
        (top / "mode").chmod(0o755)
        (top / "gone").unlink()
        (top / "kept" / "new").symlink_to("nowhere")
        for name in ("folder/sub/b", "folder/a"):
            (top / name).unlink()
        (top / "folder/sub").rmdir()
        (top / "folder").rmdir()

    changed, removed = changes(program, top, change)
    assert changed == ["content", "kept/new", "mode"]
    assert removed == ["folder", "gone"]


def test_mode_of_a_folder_is_a_change_of_it(program: Any, top: Path) -> None:
    """Broken: a folder that a step opened to other users is closed in the image."""
    write(top / "a" / "b")
    (top / "a").chmod(0o755)
    assert changes(program, top, lambda: (top / "a").chmod(0o777)) == (["a"], [])


def test_whiteouts(program: Any, top: Path, tmp_path: Path) -> None:
    """Broken: what a step removes is still in the image."""
    write(top / "a" / "kept")
    program.write(str(tmp_path / "a.tar"), [str(top / "a" / "kept")], [str(top / "a" / "gone")], str(top))
    with tarfile.open(tmp_path / "a.tar") as tar:
        names = [os.path.relpath("/" + entry.name, top) for entry in tar]
    assert names == [".", "a", "a/.wh.gone", "a/kept"]


def test_layer_below_is_unpacked(program: Any, top: Path, tmp_path: Path) -> None:
    """Broken: a package that is built from source does not find the system packages that were found in a registry."""
    write(top / "etc" / "gone")
    write(top / "etc" / "folder" / "a")
    packed = tmp_path / "below.tar"
    with tarfile.open(packed, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("usr/new", "etc/.wh.gone", "etc/.wh.folder"):
            entry = tarfile.TarInfo(str(top / name).lstrip("/"))
            entry.size, entry.mode = (4, 0o755) if name == "usr/new" else (0, 0o644)
            tar.addfile(entry, io.BytesIO(b"data"))
    program.unpack(str(packed))
    assert (top / "usr" / "new").read_bytes() == b"data"
    assert stat.S_IMODE((top / "usr" / "new").stat().st_mode) == 0o755
    assert [path.name for path in (top / "etc").iterdir()] == []


def test_main_makes_a_layer_of_all_that_changed(
    program: Any, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Broken: the program does not do what layers.json asks for, or a step finds what an earlier one left."""

    def played(step: Any, script: str, requirements: str) -> None:
        write(top / script.removesuffix(".sh"), requirements.encode())

    monkeypatch.setattr(program.Step, "run", played)  # no process in a unit test
    shared = {"setup": "", "scope": str(top), "requirements": ""}
    steps = [
        {**shared, "title": "first", "script": "one.sh", "layers": {"k1": []}},
        {**shared, "title": "second", "script": "two.sh", "layers": {"k2": []}},
    ]
    (tmp_path / "layers.json").write_text(json.dumps({"below": [], "steps": steps}))
    program.main(str(tmp_path), str(tmp_path / "output"))
    for key, name in (("k1", "one"), ("k2", "two")):
        with tarfile.open(tmp_path / "output" / f"{key}.tar") as tar:
            assert [Path(each).name for each in tar.getnames()] == ["uv", name]
    assert capsys.readouterr().out == "builder: first\nbuilder: second\n"


def test_public_certificates(program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: where a company's bundle has a certificate that only the base's pip still trusts, no image passes."""
    bundle = write(tmp_path / "bundle.pem", b"of the base")
    write(tmp_path / "ensurepip" / "__init__.py")
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pip/_vendor/certifi/cacert.pem", "of pip")
    write(tmp_path / "ensurepip" / "_bundled" / "pip-24.0-py3-none-any.whl", wheel.getvalue())
    monkeypatch.setattr(program, "CA_BUNDLE", str(bundle))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ensurepip", raising=False)
    program.write_public_certificates(str(tmp_path / "public.pem"))
    assert (tmp_path / "public.pem").read_bytes() == b"of the base\nof pip"
