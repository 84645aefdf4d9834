"""The artifacts that a cell gets from a lock: markers, wheel tags, fallbacks, and what must not get into an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from builder.errors import LockError
from builder.lock.model import Selection
from builder.lock.select import select
from builder.matrix.model import Cell
from builder.matrix.schema import Install
from tests import locks
from tests.cells import alpine, debian
from tests.locks import package, pure

COMMIT = "c0ffee" * 6 + "c0ff"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def selected(folder: Path, cell: Cell, *packages: Mapping[str, Any], **more: Any) -> Selection:
    """The selection of the cell from a lock of these packages."""
    return select(locks.read(folder, *packages, **more), cell)


def filenames(selection: Selection) -> list[str]:
    """The files that are installed."""
    return [each.filename for each in selection.packages]


def refusal(folder: Path, cell: Cell, *packages: Mapping[str, Any], **more: Any) -> str:
    """The error message if the lock does not cover the cell."""
    with pytest.raises(LockError) as raised:
        selected(folder, cell, *packages, **more)
    assert raised.value.exit_code == 2
    return str(raised.value)


def test_name_in_another_form(tmp_path: Path) -> None:
    """Broken: a lock whose names are not normalized is refused, though uv installs from it."""
    (one,) = select(locks.read(tmp_path, {**pure("one-two"), "name": "One_Two"}), debian()).packages
    assert one.name == "one-two"


def test_repository_that_uv_cannot_read(tmp_path: Path) -> None:
    """Broken: a package from Mercurial is planned as if it came from git."""
    vcs = {"type": "hg", "url": "https://hg.invalid/one", "commit-id": "a" * 40}
    with pytest.raises(LockError, match="repository of type 'hg'; uv installs from git only"):
        select(locks.read(tmp_path, {"name": "one", "vcs": vcs}), debian())


@pytest.mark.parametrize(
    ("marker", "cell", "is_selected"),
    [
        ("sys_platform == 'win32'", debian(), False),
        ("os_name == 'posix' and platform_system == 'Linux'", debian(), True),
        ("python_version < '3.11'", debian("3.10"), True),
        ("python_version < '3.11'", debian("3.11"), False),
        ("python_version >= '3.9'", debian("3.10"), True),
        ("python_full_version >= '3.12.4'", debian("3.12"), True),
        ("python_full_version >= '3.12.4'", debian("3.12.1"), False),
        ("python_full_version >= '3.12.4'", debian("3.12.4"), True),
        ("platform_machine == 'aarch64'", debian(architecture="arm64"), True),
        ("platform_machine == 'aarch64'", debian(), False),
        ("platform_python_implementation == 'PyPy'", debian(), False),
        ("implementation_name == 'cpython'", alpine("3.14"), True),
    ],
)
def test_markers_are_evaluated_for_the_cell(tmp_path: Path, marker: str, cell: Cell, is_selected: bool) -> None:
    """Broken: an image gets a package for another platform or Python, or lacks one that it needs."""
    selection = selected(tmp_path, cell, pure("always"), pure("maybe", marker=marker))
    assert [each.name for each in selection.packages] == ["always", *(["maybe"] if is_selected else [])]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("cell", "platform"),
    [
        (debian, "manylinux_2_17_x86_64"),
        (alpine, "musllinux_1_2_x86_64"),
    ],
)
def test_wheel_of_python_and_libc(tmp_path: Path, python: str, cell: Any, platform: str) -> None:
    """Broken: a cell gets a wheel for another Python or libc."""
    tags = [
        f"cp3{minor}-cp3{minor}-{libc}"
        for minor in range(9, 16)
        for libc in ("manylinux_2_17_x86_64", "musllinux_1_2_x86_64", "win_amd64", "macosx_11_0_arm64")
    ]
    interpreter = "cp" + python.replace(".", "")
    selection = selected(tmp_path, cell(python), package("fast", "1.0", *tags))
    assert filenames(selection) == [f"fast-1.0-{interpreter}-{interpreter}-{platform}.whl"]


@pytest.mark.parametrize(
    ("cell", "tags", "best"),
    [
        # the architecture
        (debian(), ["py3-none-manylinux_2_17_aarch64", "py3-none-manylinux_2_17_x86_64"], 1),
        (debian(architecture="arm64"), ["py3-none-manylinux_2_17_aarch64", "py3-none-manylinux_2_17_x86_64"], 0),
        (alpine(architecture="arm64"), ["py3-none-musllinux_1_1_x86_64", "py3-none-musllinux_1_1_aarch64"], 1),
        # the names that manylinux had before PEP 600
        (debian(), ["py3-none-any", "cp312-cp312-manylinux1_x86_64"], 1),
        (debian(), ["py3-none-any", "cp312-cp312-manylinux2010_x86_64"], 1),
        (debian(), ["py3-none-any", "cp312-cp312-manylinux2014_x86_64"], 1),
        (debian(architecture="arm64"), ["py3-none-any", "cp312-cp312-manylinux2014_aarch64"], 1),
        (debian(), ["py3-none-any", "cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64"], 1),
        # the newest libc that a wheel may ask for
        (debian(libc="2.36"), ["py3-none-manylinux_2_39_x86_64", "py3-none-manylinux_2_28_x86_64"], 1),
        (debian(libc="2.39"), ["py3-none-manylinux_2_39_x86_64", "py3-none-manylinux_2_28_x86_64"], 0),
        (debian(libc="2.31"), ["py3-none-manylinux_2_34_x86_64", "py3-none-any"], 1),
        (alpine(libc="1.1"), ["py3-none-musllinux_1_2_x86_64", "py3-none-any"], 1),
        (alpine(libc="1.2"), ["py3-none-musllinux_1_1_x86_64", "py3-none-musllinux_1_2_x86_64"], 1),
        # abi3 of this Python or an older one; a wheel for exactly this Python is better
        (debian("3.13"), ["cp39-abi3-manylinux_2_17_x86_64", "py3-none-any"], 0),
        (debian("3.13"), ["cp39-abi3-manylinux_2_17_x86_64", "cp313-cp313-manylinux_2_17_x86_64"], 1),
        (debian("3.11"), ["cp312-abi3-manylinux_2_17_x86_64", "py3-none-any"], 1),
        (debian("3.13"), ["cp38-abi3-manylinux_2_17_x86_64", "cp311-abi3-manylinux_2_17_x86_64"], 1),
        # free-threaded wheels are for another interpreter
        (debian("3.13"), ["cp313-cp313t-manylinux_2_17_x86_64", "py3-none-any"], 1),
        # Alpine has no glibc, and Debian has no musl
        (alpine(), ["cp312-cp312-manylinux_2_17_x86_64", "py3-none-any"], 1),
        (debian(), ["cp312-cp312-musllinux_1_1_x86_64", "py3-none-any"], 1),
        (debian(), ["py2.py3-none-any", "py3-none-linux_x86_64"], 1),
    ],
)
def test_best_wheel(tmp_path: Path, cell: Cell, tags: list[str], best: int) -> None:
    """Broken: a cell gets a wheel that it cannot load, or not the best one."""
    assert filenames(selected(tmp_path, cell, package("fast", "1.0", *tags))) == [f"fast-1.0-{tags[best]}.whl"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_order_in_the_lock_does_not_matter(tmp_path: Path, order: tuple[int, int]) -> None:
    """Broken: the order of packages in a lock changes the image."""
    tags = ["py3-none-any", "cp312-cp312-manylinux_2_17_x86_64"]
    names = ["zebra", "ant"]
    selection = selected(tmp_path, debian(), *(package(names[n], "1.0", *(tags[m] for m in order)) for n in order))
    assert filenames(selection) == [f"{name}-1.0-{tags[1]}.whl" for name in ("ant", "zebra")]


def test_sdist_if_no_wheel_fits(tmp_path: Path) -> None:
    """Broken: a package with an sdist but no usable wheel is rejected, or its sdist is built despite a usable wheel."""
    fast = package("fast", "1.0", "cp312-cp312-manylinux_2_17_x86_64", with_sdist=True)
    (on_alpine,) = selected(tmp_path, alpine(), fast).packages
    (on_debian,) = selected(tmp_path, debian(), fast).packages
    assert (on_alpine.artifact, on_alpine.filename) == ("sdist", "fast-1.0.tar.gz")
    assert on_debian.artifact == "wheel"


@pytest.mark.parametrize("suffix", [".tar.bz2", ".tgz", ".tar.xz"])
def test_sdist_with_an_old_suffix(tmp_path: Path, suffix: str) -> None:
    """Broken: an sdist that uv installs, but that has a suffix which PEP 625 forbids, makes the whole lock unusable."""
    url = f"{locks.FILES}/old-1.0{suffix}"
    old = {"name": "old", "version": "1.0", "sdist": {"url": url, "hashes": {"sha256": locks.fake_hash("old")}}}
    (on_debian,) = selected(tmp_path, debian(), old).packages
    assert (on_debian.artifact, on_debian.filename) == ("sdist", f"old-1.0{suffix}")
    assert on_debian.source == old["sdist"]


def test_neither_wheel_nor_sdist(tmp_path: Path) -> None:
    """Broken: a package that the cell cannot install fails only in the build, or the error does not name it."""
    error = refusal(tmp_path, alpine("3.13"), package("fast", "1.0", "cp313-cp313-manylinux_2_17_x86_64"))
    assert "does not cover the cell 3.13-alpine" in error
    assert "'fast'" in error
    assert "exclude the cell" in error


@pytest.mark.parametrize("marker", ["sys_platform == 'never'", "sys_platform == 'darwin'", "'gpu' in extras"])
def test_entry_without_a_file_for_other_cells(tmp_path: Path, marker: str) -> None:
    """Broken: an entry without any file, as uv writes them for other platforms, makes builder refuse the whole lock."""
    selection = selected(tmp_path, debian(), pure("one"), package("gpu", marker=marker), extras=["gpu"])
    assert filenames(selection) == ["one-1.0-py3-none-any.whl"]


@pytest.mark.parametrize("more", [{}, {"marker": "sys_platform == 'linux'"}])
def test_entry_without_a_file_for_this_cell(tmp_path: Path, more: Mapping[str, Any]) -> None:
    """Broken: an image lacks a package that the lock has no file of, or the error gives only its number in the lock."""
    error = refusal(tmp_path, debian(), pure("one"), package("gpu", "2.0", **more))
    assert "does not cover the cell 3.12-bookworm-slim: the lock has no file of package 'gpu' 2.0" in error
    assert "packages[" not in error


def test_every_fault_of_a_cell_is_reported(tmp_path: Path) -> None:
    """Broken: users make one package installable, run builder again, and get the next fault."""
    on_macos = package("apple", "1.0", "cp312-cp312-macosx_11_0_arm64")
    error = refusal(tmp_path, debian(), on_macos, package("gpu", "2.0"), pure("picky", requires_python="<3.9"))
    assert [line.split("'")[1] for line in error.splitlines()[1:-1]] == ["apple", "gpu", "<3.9"]


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (["cp312-cp312-macosx_11_0_arm64", "cp313-cp313-macosx_10_13_x86_64"], "only macOS"),
        (["cp312-cp312-macosx_11_0_arm64", "cp312-cp312-win_amd64"], "only Windows and macOS"),
        (["cp312-cp312-manylinux_2_17_aarch64"], "only aarch64"),
        (["cp312-cp312-manylinux2014_ppc64le", "cp312-cp312-linux_s390x"], "only ppc64le and s390x"),
        (["cp312-cp312-musllinux_1_2_x86_64"], "only musl"),
        (["cp312-cp312-manylinux_2_39_x86_64"], "they need manylinux_2_39_x86_64 or newer, and the base has 2.36"),
        (["cp310-cp310-manylinux_2_17_x86_64", "cp311-cp311-manylinux_2_17_x86_64"], "only cp310 to cp311"),
        (["cp313-abi3-manylinux_2_17_x86_64"], "only cp313"),
        (["cp312-cp312t-manylinux_2_17_x86_64"], "only cp312t, which is free-threaded"),
        (["cp312-cp312-ios_13_0_arm64_iphoneos", "cp312-cp312-wasi_0_0_0_wasm32"], "only WASI and iOS"),
        (["py2-none-any"], "only py2"),
    ],
)
def test_what_the_wheels_are_for(tmp_path: Path, tags: list[str], words: str) -> None:
    """Broken: users have to look through the lock to see why no wheel fits a cell."""
    error = refusal(tmp_path, debian(), package("fast", "1.0", *tags))
    assert error.splitlines()[0].endswith(f"no wheel found for package 'fast' 1.0, and no sdist available: {words}")


@pytest.mark.parametrize("python", ["3.9", "3.9.18"])
def test_python_outside_requires_python(tmp_path: Path, python: str) -> None:
    """Broken: builder makes an image for a Python that the lock does not support."""
    error = refusal(tmp_path, debian(python), pure("one"), requires_python=">=3.10")
    assert f"{python}-bookworm-slim: Python 3.9 is outside requires-python '>=3.10'" in error
    assert "remove that Python from the matrix" in error


def test_package_outside_its_requires_python(tmp_path: Path) -> None:
    """Broken: the error does not name the package that does not support the cell's Python."""
    error = refusal(tmp_path, debian("3.10"), pure("picky", requires_python=">=3.11"))
    assert "Python 3.10 is outside requires-python '>=3.11' for package 'picky'" in error


def test_minor_version_stands_for_its_newest_patch(tmp_path: Path) -> None:
    """Broken: `requires-python = ">=3.12.4"` excludes the cell 3.12, whose image has a newer patch release."""
    assert selected(tmp_path, debian("3.12"), pure("one"), requires_python=">=3.12.4").packages


def test_environment_that_the_lock_excludes(tmp_path: Path) -> None:
    """Broken: builder installs a lock that is only for other platforms."""
    error = refusal(tmp_path, debian(), pure("one"), environments=["sys_platform == 'darwin'"])
    assert "3.12-bookworm-slim" in error
    assert "lock again" in error


def test_ambiguous_package(tmp_path: Path) -> None:
    """Broken: the order of two versions in the lock decides which one is installed."""
    error = refusal(tmp_path, debian(), pure("one", "1.0"), pure("one", "2.0"))
    assert "one 1.0 and one 2.0 are both selected for package 'one'" in error


def test_forked_versions_follow_their_markers(tmp_path: Path) -> None:
    """Broken: with a different version for each Python, a cell gets the wrong one."""
    fork = [
        pure("one", "1.0", marker="python_version < '3.12'"),
        pure("one", "2.0", marker="python_version >= '3.12'"),
    ]
    assert [each.version for each in selected(tmp_path, debian("3.11"), *fork).packages] == ["1.0"]
    assert [each.version for each in selected(tmp_path, debian("3.12"), *fork).packages] == ["2.0"]


def test_version_control_source(tmp_path: Path) -> None:
    """Broken: a package from git is not installed from its locked commit."""
    vcs = {"type": "git", "url": "https://git.invalid/acme/lib.git", "commit-id": COMMIT, "subdirectory": "py"}
    (each,) = selected(tmp_path, debian(), {"name": "lib", "vcs": vcs}).packages
    assert (each.artifact, each.version, each.size) == ("vcs", None, None)
    assert each.source == vcs


def test_archive_source(tmp_path: Path) -> None:
    """Broken: a package from an archive URL is installed without its hash."""
    archive = {
        "url": f"{locks.FILES}/lib-main.zip",
        "hashes": {"sha256": locks.fake_hash("lib")},
        "size": 12,
        "subdirectory": "py",
    }
    (each,) = selected(tmp_path, debian(), {"name": "lib", "version": "1.0", "archive": archive}).packages
    assert (each.artifact, each.filename, each.size) == ("archive", "lib-main.zip", 12)
    assert each.source == archive


def by_url(name: str) -> dict[str, Any]:
    """A package from a URL."""
    return {"name": "lib", "archive": {"url": f"{locks.FILES}/{name}", "hashes": {"sha256": locks.fake_hash(name)}}}


@pytest.mark.parametrize("url", ["lib-1.0%2Bcpu-cp312-cp312-manylinux_2_28_x86_64.whl?a=b", "lib-1.0-py3-none-any.whl"])
def test_wheel_by_url(tmp_path: Path, url: str) -> None:
    """Broken: a wheel by URL counts as built from source, or is no longer installed from its URL."""
    (each,) = selected(tmp_path, debian(), by_url(url)).packages
    assert (each.artifact, each.is_wheel) == ("archive", True)
    assert each.filename.startswith("lib-1.0")
    assert each.source == by_url(url)["archive"]


@pytest.mark.parametrize(
    ("cell", "words"), [(alpine("3.12"), "only glibc"), (debian("3.13"), "only cp312"), (debian(libc="2.17"), "_2_28_")]
)
def test_wheel_by_url_for_other_cells(tmp_path: Path, cell: Cell, words: str) -> None:
    """Broken: a wheel by URL is planned for a cell that cannot install it, and the build fails."""
    error = refusal(tmp_path, cell, by_url("lib-1.0%2Bcpu-cp312-cp312-manylinux_2_28_x86_64.whl"))
    assert "no wheel found for package 'lib', and no sdist available: " in error
    assert words in error


@pytest.mark.parametrize("url", ["lib-main.zip", "archive/refs/heads/main.tar.gz"])
def test_source_by_url(tmp_path: Path, url: str) -> None:
    """Broken: a source tree by URL counts as a wheel."""
    (each,) = selected(tmp_path, alpine(), by_url(url)).packages
    assert not each.is_wheel


def test_download_size(tmp_path: Path) -> None:
    """Broken: the plan shows a wrong download size, or one that ignores unknown sizes."""
    known, unknown = pure("known"), {**pure("unknown"), "wheels": [locks.wheel("unknown", "1.0", size=None)]}
    assert selected(tmp_path, debian(), known, pure("other")).download_size == 2000
    assert selected(tmp_path, debian(), known, unknown).download_size is None


def test_credentials_are_removed(tmp_path: Path) -> None:
    """Broken: user name or password in a URL of the lock get into the image."""
    url = "https://jane:hunter2@files.invalid"
    one = {**pure("one", index="https://jane:hunter2@index.invalid/simple")}
    one["wheels"][0]["url"] = f"{url}/one-1.0-py3-none-any.whl"
    selection = selected(
        tmp_path,
        debian(),
        one,
        {"name": "two", "vcs": {"type": "git", "url": f"{url}/two.git", "commit-id": COMMIT}},
        {"name": "three", "archive": {"url": f"{url}/three.zip", "hashes": {"sha256": locks.fake_hash("three")}}},
        {"name": "four", "version": "1.0", "sdist": {**locks.sdist("four", "1.0"), "url": f"{url}/four-1.0.tar.gz"}},
    )
    assert len(selection.packages) == 4
    assert "hunter2" not in repr(selection)
    assert "jane" not in repr(selection)
    assert [each.source["url"].partition("/")[2] for each in selection.packages] == [
        "/files.invalid/four-1.0.tar.gz",
        "/files.invalid/one-1.0-py3-none-any.whl",
        "/files.invalid/three.zip",
        "/files.invalid/two.git",
    ]


def test_files_next_to_the_lock_are_not_selected(tmp_path: Path) -> None:
    """Broken: the image build tries to install a file that exists only in a checkout."""
    wheel = {"path": "dist/here-1.0-py3-none-any.whl", "hashes": {"sha256": locks.fake_hash("here")}}
    local = {"name": "here", "version": "1.0", "wheels": [wheel]}
    assert [each.name for each in selected(tmp_path, debian(), local, pure("one")).packages] == ["one"]


def test_groups_and_extras(tmp_path: Path) -> None:
    """Broken: builder ignores install.groups, install.extras or install.default-groups of the matrix."""
    packages = [
        pure("always"),
        pure("tester", marker="'test' in dependency_groups"),
        pure("writer", marker="'docs' in dependency_groups"),
        pure("speaker", marker="'tls' in extras"),
    ]
    top = {"dependency_groups": ["docs", "test"], "default_groups": ["test"], "extras": ["tls"]}

    def names(**install: Any) -> list[str]:
        lock = locks.read(tmp_path, *packages, install=Install.model_validate(install), **top)
        return [each.name for each in select(lock, debian()).packages]

    assert names() == ["always", "tester"]
    assert names(groups=("docs",)) == ["always", "tester", "writer"]
    assert names(**{"default-groups": False}) == ["always"]
    assert names(groups="all", extras="all") == ["always", "speaker", "tester", "writer"]
    assert names(extras=("tls",), **{"default-groups": False}) == ["always", "speaker"]


@pytest.mark.parametrize(
    ("install", "words"),
    [
        ({"groups": ("tset",)}, "has no group 'tset' (perhaps you meant 'test'?)"),
        ({"extras": ("tls",)}, "has no extra 'tls'"),
    ],
)
def test_unknown_group_or_extra(tmp_path: Path, install: Mapping[str, Any], words: str) -> None:
    """Broken: a mistyped group is silently ignored."""
    with pytest.raises(LockError) as raised:
        locks.read(tmp_path, pure("one"), dependency_groups=["test"], install=Install.model_validate(install))
    assert words in raised.value.what
    assert "fix install." in raised.value.hint


@pytest.mark.parametrize("install", [{"packages": ("api",)}, {"only-groups": ("test",)}])
def test_choice_that_a_pylock_cannot_make(tmp_path: Path, install: Mapping[str, Any]) -> None:
    """Broken: install.packages or install.only-groups is silently ignored."""
    with pytest.raises(LockError, match="does not say what belongs to a workspace member"):
        locks.read(tmp_path, pure("one"), dependency_groups=["test"], install=Install.model_validate(install))


def test_malformed_url(tmp_path: Path) -> None:
    """Broken: a malformed URL in a lock causes a traceback."""
    one = pure("one")
    one["wheels"][0]["url"] = "https://[::1/one-1.0-py3-none-any.whl"
    assert "is not a URL" in refusal(tmp_path, debian(), one)
