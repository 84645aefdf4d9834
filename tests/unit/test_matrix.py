"""A valid `matrix.toml` becomes cells."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from builder.errors import UsageError
from builder.matrix.file import built_in_matrix, parse_matrix
from builder.matrix.model import Matrix, Platform
from tests import cells
from tests.matrices import EXAMPLE, SMALL, changed


def example() -> Matrix:
    """The example, parsed."""
    return parse_matrix(EXAMPLE, source="matrix.toml")


def names(matrix: Matrix) -> list[str]:
    """The names of the cells, in order."""
    return [cell.name for cell in matrix.cells]


def test_cells_are_in_file_order_without_the_excluded_ones() -> None:
    """Broken: cells are missing, superfluous, or in another order."""
    assert names(example()) == ["3.12-bookworm-slim", "3.12-alpine", "3.13-bookworm-slim"]


def test_cell_has_the_settings_of_its_base() -> None:
    """Broken: an image is built from the wrong base, or without its system packages."""
    debian, alpine, _ = example().cells
    assert str(debian.image) == "docker.io/library/python:3.12-slim-bookworm"
    assert (debian.family, debian.libc, debian.packages) == ("debian", "2.36", ("git",))
    assert str(alpine.image) == "docker.io/library/python:3.12-alpine"
    assert (alpine.family, alpine.libc) == ("alpine", "1.2")


def test_matrix_has_the_settings_of_all_cells() -> None:
    """Broken: builder ignores the repository, uv version, groups or mirrors of the file."""
    matrix = example()
    assert matrix.repository == "registry.example.com/acme/ci"
    assert str(matrix.uv) == "ghcr.io/astral-sh/uv:0.13.8"
    assert (matrix.install.groups, matrix.install.extras, matrix.install.default_groups) == (("dev",), (), True)
    assert str(matrix.mirrors.locate(matrix.uv)) == "localhost:5000/astral-sh/uv:0.13.8"


def test_defaults_of_a_small_matrix() -> None:
    """Broken: the defaults differ from those in the documentation."""
    matrix = parse_matrix(SMALL, source="matrix.toml")
    assert str(matrix.uv) == f"ghcr.io/astral-sh/uv:{version('uv')}"
    assert (matrix.repository, matrix.link_mode, matrix.aliases) == (None, "copy", ())
    assert matrix.cells[0].platform == Platform.of_this_machine()


def test_built_in_matrix_has_one_cell() -> None:
    """Broken: a project without a matrix.toml gets an image other than its Python on bookworm-slim."""
    (cell,) = built_in_matrix("3.13").cells
    assert cell.name == "3.13-bookworm-slim"
    assert str(cell.image) == "docker.io/library/python:3.13-slim-bookworm"


@pytest.mark.parametrize("exclusion", ['{ python = "3.13" }', '{ base = "alpine" }'])
def test_exclusion_by_one_axis_excludes_all_its_cells(exclusion: str) -> None:
    """Broken: an exclusion that names one axis does not exclude every matching cell."""
    text = changed('{ python = "3.13", base = "alpine" }', exclusion, EXAMPLE)
    kept = {
        '{ python = "3.13" }': ["3.12-bookworm-slim", "3.12-alpine"],
        '{ base = "alpine" }': ["3.12-bookworm-slim", "3.13-bookworm-slim"],
    }
    assert names(parse_matrix(text, source="m")) == kept[exclusion]


@pytest.mark.parametrize(
    ("image", "libc"),
    [
        ("python:{python}-slim-bullseye", "2.31"),
        ("python:{python}-trixie", "2.41"),
        ("registry.example.com/ubuntu/noble:1", "2.39"),
    ],
)
def test_glibc_of_known_releases(image: str, libc: str) -> None:
    """Broken: a base gets wheels that need a newer glibc."""
    text = changed("python:{python}-slim-bookworm", image)
    assert parse_matrix(text, source="m").cells[0].libc == libc


@pytest.mark.parametrize(
    ("image", "family", "libc"),
    [
        ("docker.io/library/python:3.13", "debian", None),
        ("python:{python}-slim-trixie", "debian", "2.41"),
        ("docker.io/nvidia/cuda:12.8.1-runtime-ubuntu22.04", "debian", "2.35"),
        ("docker.io/library/ubuntu:noble", "debian", "2.39"),
        ("python:{python}-alpine", "alpine", "1.2"),
        ("registry.access.redhat.com/ubi9/python-312", "rhel", "2.34"),
        ("registry.access.redhat.com/ubi10-minimal:10.0", "rhel", "2.39"),
        ("cgr.dev/chainguard/python:latest-dev", "wolfi", "2.41"),
    ],
)
def test_family_by_the_name_of_the_image(image: str, family: str, libc: str | None) -> None:
    """Broken: bases that are known by name need a family, or get wheels for another libc."""
    named = "" if libc else 'libc = "2.36"\n'
    text = changed('"python:{python}-slim-bookworm"\nfamily = "debian"\n', f'"{image}"\n{named}')
    (cell,) = parse_matrix(text, source="m").cells
    assert (cell.family, cell.libc) == (family, libc or "2.36")
    assert cell.uv_platform.endswith("-musl") is (family == "alpine")


def test_libc_of_the_file_wins() -> None:
    """Broken: builder ignores the libc that the matrix names."""
    text = changed('family = "debian"', 'family = "debian"\nlibc = "2.17"')
    assert parse_matrix(text, source="m").cells[0].libc == "2.17"


def test_only_keeps_the_cells_that_match_any_selector() -> None:
    """Broken: --only selects the wrong cells."""
    matrix = example()
    assert names(matrix.only(["python=3.12"])) == ["3.12-bookworm-slim", "3.12-alpine"]
    chosen = matrix.only(["base=alpine", "python=3.13,base=bookworm-slim"])
    assert names(chosen) == ["3.12-alpine", "3.13-bookworm-slim"]
    assert names(matrix.only([])) == names(matrix)


def test_only_drops_the_aliases_of_other_cells() -> None:
    """Broken: --only moves an alias of a cell that is not selected."""
    text = EXAMPLE + '[aliases]\n"latest" = "3.13-bookworm-slim"\n"old" = "3.12-alpine"\n'
    assert parse_matrix(text, source="m").only(["base=alpine"]).aliases == (("old", "3.12-alpine"),)


@pytest.mark.parametrize("choice", ["python=3.11", "base=alpine,python=3.13"])
def test_only_that_matches_nothing_lists_the_cells(choice: str) -> None:
    """Broken: a mistyped --only silently selects nothing."""
    with pytest.raises(UsageError) as raised:
        example().only(["python=3.12", choice])
    assert "matches no cell of matrix.toml" in raised.value.what
    assert "3.12-bookworm-slim, 3.12-alpine, 3.13-bookworm-slim" in raised.value.hint


@pytest.mark.parametrize("choice", ["", "3.12", "python", "python=", "arch=arm64", "python=3.12,python=3.13"])
def test_invalid_only_shows_how_to_write_it(choice: str) -> None:
    """Broken: --only accepts a malformed selector."""
    with pytest.raises(UsageError) as raised:
        example().only([choice])
    assert "python=3.13,base=alpine" in raised.value.hint


@pytest.mark.parametrize(
    ("text", "machine"), [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64"), ("linux/arm64/v8", "aarch64")]
)
def test_platform_is_read_as_docker_writes_it(text: str, machine: str) -> None:
    """Broken: an image gets the wheels of another architecture."""
    (cell,) = parse_matrix(SMALL, source="m").on(Platform.from_str(text)).cells
    assert cell.platform.machine == machine


@pytest.mark.parametrize("text", ["", "linux", "linux/s390x", "windows/amd64", "linux/amd64/v8", "linux/arm64/v7"])
def test_other_platforms_are_rejected(text: str) -> None:
    """Broken: an unsupported platform is treated as a supported one."""
    with pytest.raises(UsageError, match="unsupported platform"):
        Platform.from_str(text)


@pytest.mark.parametrize(
    ("libc", "name"),
    [("2.17", "2_17"), ("2.26", "2_17"), ("2.28", "2_28"), ("2.30", "2_28"), ("2.36", "2_36"), ("2.99", "2_40")],
)
def test_uv_platform_of_glibc(libc: str, name: str) -> None:
    """Broken: uv is told of a newer glibc than the base has, or of a platform that it does not know."""
    assert cells.debian(libc=libc).uv_platform == f"x86_64-manylinux_{name}"


def test_uv_platform_of_musl() -> None:
    """Broken: wheels for glibc are installed in an Alpine image."""
    assert cells.alpine(architecture="arm64").uv_platform == "aarch64-unknown-linux-musl"
