"""The check `libraries`: what ELF files need, and where the dynamic loader looks for it."""

from __future__ import annotations

import importlib.machinery
import posixpath
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from builder.verify.probes import libraries
from builder.verify.probes.elf import Elf, Elves, read_elf
from builder.verify.probes.libraries import Loader, conf_folders, is_of_musl, musl_folders
from builder.verify.probes.packages import PACKAGES, package_of
from builder.verify.probes.shell import Failed
from builder.verify.script import Expectation, verify_script
from tests.unit.test_probes import EXPECTED, TABLE

KIND = (2, 1, 62)
SITE = Path(sysconfig.get_path("purelib"))


def elf_files() -> Iterator[Path]:
    """The compiled files of this environment, and the programs of this machine that are small."""
    yield from sorted(path for path in SITE.rglob("*") if ".so" in path.name and path.is_file())
    yield from (Path(sys.executable).resolve(), Path("/bin/sh").resolve(), Path("/usr/bin/env").resolve())


@pytest.mark.skipif(sys.platform != "linux", reason="ELF is what Linux has")
def test_reads_what_another_reader_reads() -> None:
    """Broken: a library that a file needs, or a folder that it names, is overlooked."""
    count = 0
    for path in elf_files():
        with path.open("rb") as file:
            dynamic: Any = ELFFile(file).get_section_by_name(".dynamic")
            tags = [] if dynamic is None else list(dynamic.iter_tags())
            needed = [tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"]
            runpath = [tag.runpath for tag in tags if tag.entry.d_tag == "DT_RUNPATH"]
            rpath = [tag.rpath for tag in tags if tag.entry.d_tag == "DT_RPATH"]
        found = read_elf(str(path))
        assert (found is None) == (dynamic is None)
        if found:
            count += 1
            assert (found.needed, ":".join(found.runpath), ":".join(found.rpath)) == (
                needed, "".join(runpath), "".join(rpath),
            )  # fmt: skip
    assert count > 3


def test_damaged_files(tmp_path: Path) -> None:
    """Broken: a file that only begins like an ELF file ends all checks of an image."""
    whole = Path(sys.executable).resolve().read_bytes()[:9000]
    for content in (b"", b"\x7fELF", whole[:64], whole[:70], whole[:200], whole, b"\x7fELF" + b"\xff" * 500):
        (tmp_path / "some.so").write_bytes(content)
        assert read_elf(str(tmp_path / "some.so")) is None
    assert read_elf(str(tmp_path)) is None


class Files(Elves):
    """Files that are not there."""

    def __init__(self, files: Mapping[str, Elf]) -> None:
        super().__init__()
        self.files = files

    def of(self, path: str) -> Elf | None:
        """The file of this path."""
        return self.files.get(posixpath.normpath(path))


def elf(*needed: str, rpath: Iterable[str] = (), runpath: Iterable[str] = (), soname: str = "") -> Elf:
    """A library."""
    return Elf(KIND, list(needed), soname, list(rpath), list(runpath), "")


def loader_of(files: Mapping[str, Elf], *, is_musl: bool = False) -> Loader:
    """The loader of a Python that needs `libpython.so`; with libraries in /lib."""
    program = Elf(KIND, ["libpython.so"], "", ["$ORIGIN/../lib"], [], "")
    loader = Loader.__new__(Loader)
    loader.elves = Files({"/py/bin/python": program, "/py/lib/libpython.so": elf(soname="libpython.so"), **files})
    loader.program, loader.kind, loader.is_musl = "/py/bin/python", KIND, is_musl
    loader.triplet, loader.folders, loader.present = "x86_64-linux-gnu", ["/lib"], {}
    list(loader._load(libraries.Loaded("/py/bin/python", program, ()), loader.present))
    return loader


def missing(path: str, files: Mapping[str, Elf], *, is_musl: bool = False) -> list[tuple[str, str]]:
    """What the loader does not find."""
    return [(each.path, each.library) for each in loader_of(files, is_musl=is_musl).load(path).missing]


FOUND: dict[str, dict[str, Elf]] = {
    "in the loader's own folders": {"/site/m.so": elf("liba.so"), "/lib/liba.so": elf()},
    "by RUNPATH": {"/site/m.so": elf("liba.so", runpath=["$ORIGIN/m.libs"]), "/site/m.libs/liba.so": elf()},
    "by ${ORIGIN}": {"/site/m.so": elf("liba.so", runpath=["/x", "${ORIGIN}/y"]), "/site/y/liba.so": elf()},
    "by $LIB": {"/site/m.so": elf("liba.so", rpath=["/opt/$LIB"]), "/opt/lib64/liba.so": elf()},
    "by RPATH of who asked": {
        "/site/m.so": elf("liba.so", rpath=["$ORIGIN/l"]), "/site/l/liba.so": elf("libb.so"), "/site/l/libb.so": elf(),
    },
    "by RPATH of the program": {"/site/m.so": elf("liba.so"), "/py/lib/liba.so": elf()},
    "loaded before": {"/site/m.so": elf("libpython.so", runpath=["/none"])},
    "loaded before by its own name": {
        "/site/m.so": elf("liba.so", "libb.so", runpath=["$ORIGIN"]),
        "/site/liba.so": elf(soname="liba.so.1"),
        "/site/libb.so": elf("liba.so.1"),
    },
    "by path": {"/site/m.so": elf("/opt/liba.so"), "/opt/liba.so": elf()},
    "of another machine": {"/site/m.so": elf("libz.so")._replace(kind=(1, 1, 3))},
    "each other": {"/site/m.so": elf("liba.so"), "/lib/liba.so": elf("libb.so"), "/lib/libb.so": elf("liba.so")},
}  # fmt: skip
LOST: dict[str, tuple[dict[str, Elf], list[tuple[str, str]]]] = {
    "nowhere": ({"/site/m.so": elf("liba.so")}, [("/site/m.so", "liba.so")]),
    "needed by what it needs": (
        {"/site/m.so": elf("liba.so"), "/lib/liba.so": elf("libb.so")}, [("/lib/liba.so", "libb.so")],
    ),
    "RUNPATH is not handed down": (
        {"/site/m.so": elf("liba.so", runpath=["/x"]), "/x/liba.so": elf("libb.so"), "/x/libb.so": elf()},
        [("/x/liba.so", "libb.so")],
    ),
    "RUNPATH takes the place of RPATH": (
        {"/site/m.so": elf("liba.so", rpath=["/x"], runpath=["/y"]), "/x/liba.so": elf()}, [("/site/m.so", "liba.so")],
    ),
    "only for another machine": (
        {"/site/m.so": elf("liba.so"), "/lib/liba.so": elf()._replace(kind=(2, 1, 183))}, [("/site/m.so", "liba.so")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("where", FOUND)
def test_found(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Broken: an image is rejected although the loader finds all libraries."""
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert missing("/site/m.so", FOUND[where]) == []


@pytest.mark.parametrize("why", LOST)
def test_not_found(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """Broken: an image passes in which a module cannot be imported."""
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    files, lost = LOST[why]
    assert missing("/site/m.so", files) == lost


def test_library_that_finds_its_own_by_who_loads_it() -> None:
    """Broken: numpy's libraries are said to lack each other, because only its modules have a search path."""
    libs = {"/site/libs/liba.so": elf("libb.so"), "/site/libs/libb.so": elf()}
    loader = loader_of({"/site/m.so": elf("liba.so", rpath=["$ORIGIN/x/../libs"]), **libs})
    alone = loader.load("/site/libs/liba.so")
    assert [str(each) for each in alone.missing] == ["/site/libs/liba.so needs libb.so"]
    assert libraries.missing_in([loader.load("/site/m.so"), alone]) == []
    without = loader_of({"/site/m.so": elf("libb.so"), **libs})
    lost = [without.load(path) for path in ("/site/m.so", "/site/libs/liba.so", "/site/libs/liba.so")]
    assert [each.path for each in libraries.missing_in(lost)] == ["/site/m.so", "/site/libs/liba.so"]


def test_library_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: an image whose LD_LIBRARY_PATH names the libraries is rejected."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/a:/opt/b")
    assert missing("/site/m.so", {"/site/m.so": elf("liba.so"), "/opt/b/liba.so": elf()}) == []


def test_musl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Broken: on Alpine, a library is looked for where glibc would look, or musl's own parts are missed."""
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    handed_down = {"/site/m.so": elf("liba.so", runpath=["/x"]), "/x/liba.so": elf("libb.so"), "/x/libb.so": elf()}
    assert missing("/site/m.so", handed_down, is_musl=True) == []
    own = {"/site/m.so": elf("libc.musl-x86_64.so.1", "libpthread.so.0", "libcrypto.so.3")}
    assert missing("/site/m.so", own, is_musl=True) == [("/site/m.so", "libcrypto.so.3")]
    assert not is_of_musl("libm")
    (tmp_path / "etc").mkdir()
    assert musl_folders(f"{tmp_path}/lib/ld-musl-x86_64.so.1") == ["/lib", "/usr/local/lib", "/usr/lib"]
    (tmp_path / "etc" / "ld-musl-x86_64.path").write_text("/a:/b\n/c\n")
    assert musl_folders(f"{tmp_path}/lib/ld-musl-x86_64.so.1") == ["/a", "/b", "/c"]


def test_program_without_its_loader() -> None:
    """Broken: a program for glibc passes on Alpine, where nothing can start it."""
    program = elf()._replace(interpreter="/lib/ld-none.so.1")
    assert missing("/venv/bin/tool", {"/venv/bin/tool": program}) == [("/venv/bin/tool", "/lib/ld-none.so.1")]


def test_folders_of_ldconfig(tmp_path: Path) -> None:
    """Broken: folders that an image adds to ld.so.conf are not searched, or it never ends."""
    (tmp_path / "d").mkdir()
    (tmp_path / "conf").write_text("include d/*.conf  # more\n/a\nhwcap 1 x\n\n")
    (tmp_path / "d" / "1.conf").write_text(f"/b=libc6\ninclude {tmp_path}/conf\n")
    assert list(conf_folders(str(tmp_path / "conf"), set())) == ["/b", "/a"]


@pytest.mark.parametrize("sources", [["one"], []])
def test_only_what_was_built_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sources: list[str]) -> None:
    """Broken: a package that was built against a library that is not there passes, or a wheel's optional part fails."""
    monkeypatch.setattr(libraries, "VENV", str(tmp_path))
    site = tmp_path / "lib" / "python3" / "site-packages"
    (site / "One-1.0.dist-info").mkdir(parents=True)
    (site / "One-1.0.dist-info" / "RECORD").write_text("one.so,,\nlost.so,,\none.py,,\n")
    any_module = next(path for path in elf_files() if path.name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)))
    content = any_module.read_bytes()
    assert b"libc.so.6\0" in content
    (site / "one.so").write_bytes(content.replace(b"libc.so.6\0", b"libq.so.6\0"))
    (site / "one.py").touch()
    monkeypatch.setattr(EXPECTED, "sources", sources)
    told = f"{site}/one.so needs libq.so.6"
    if sources:
        with pytest.raises(Failed, match=f"^{told}; add what is missing to the base's packages$"):
            libraries.libraries(EXPECTED, None)  # type: ignore[arg-type]
    else:
        assert libraries.libraries(EXPECTED, None).endswith(f"of which wheels lack libraries; {told}")  # type: ignore[arg-type]


def test_names_of_packages() -> None:
    """Broken: the table names something that is no library."""
    assert all(".so" in library and any(packages) for library, packages in PACKAGES.items())


def test_script_has_the_probe() -> None:
    """Broken: in an image, the check ends for want of a module of its own."""
    text = verify_script(Expectation(image="i", id="sha256:1", **TABLE))
    assert Path(libraries.__file__).name in text


@pytest.mark.parametrize(
    ("release", "package"),
    [
        ("ID=debian\n", "libpq5"),
        ("ID=ubuntu\nID_LIKE=debian\n", "libpq5"),
        ("ID=alpine\n", "libpq"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "libpq"),
        ("ID=wolfi\n", "so:libpq.so.5"),
        ("ID=arch\n", ""),
    ],
)
def test_package_of_each_family(tmp_path: Path, release: str, package: str) -> None:
    """Broken: users are told to add a package that their distribution does not have, or none."""
    path = tmp_path / "os-release"
    path.write_text(release, encoding="utf-8")
    assert package_of("libpq.so.5", str(path)) == package
