"""A matrix in `[tool.builder]` of a pyproject.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import MatrixError
from builder.lock.discovery import find_matrix
from builder.matrix.file import read_matrix
from tests.matrices import SMALL

EMBEDDED = "[project]\nname = 'shop'\n\n[tool.builder]\n" + SMALL.replace("[bases", "[tool.builder.bases")


def write(folder: Path, text: str, name: str = "pyproject.toml") -> Path:
    """Write a file."""
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_table_is_a_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: `[tool.builder]` is not found from a folder below, or read otherwise than a matrix.toml."""
    write(tmp_path, EMBEDDED)
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")
    path = find_matrix()
    assert path == Path("../pyproject.toml")
    matrix = read_matrix(path)
    assert [cell.name for cell in matrix.cells] == ["3.12-slim"]
    assert matrix.cells == read_matrix(write(tmp_path, SMALL, "matrix.toml")).cells


def test_two_matrices_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: one of two matrices is ignored, and nobody knows which."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, EMBEDDED)
    write(tmp_path, SMALL, "matrix.toml")
    with pytest.raises(MatrixError, match=r"two matrices: matrix.toml, and \[tool.builder\] in pyproject.toml"):
        find_matrix()


def test_faults_name_the_table(tmp_path: Path) -> None:
    """Broken: a fault in the table does not say where it is, or a file without a table is taken for an empty one."""
    with pytest.raises(MatrixError, match=r"pyproject.toml \[tool.builder\]:\n  python: missing"):
        read_matrix(write(tmp_path, EMBEDDED.replace('python = ["3.12"]', "")))
    with pytest.raises(MatrixError, match="has no table"):
        read_matrix(write(tmp_path, "[project]\nname = 'shop'\n"))


def test_other_pyproject_is_no_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a pyproject.toml without the table, or one that is no TOML, is taken for a matrix."""
    monkeypatch.chdir(tmp_path)
    for text in ("[project]\nname = 'builder'\n", "[tool.builder", "[tool]\nbuilder = 1\n"):
        write(tmp_path, text)
        assert find_matrix() is None
