"""The JSON Schema of `matrix.toml` in docs/ agrees with the parser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tomli

from builder.errors import MatrixError
from builder.matrix.file import BUILT_IN, parse_matrix
from builder.matrix.schema import schema
from tests.matrices import EXAMPLE, SMALL, changed


@pytest.fixture
def validator(repository_root: Path) -> Any:
    """A validator of the schema in docs/."""
    written = json.loads((repository_root / "docs" / "matrix.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(written)
    return jsonschema.Draft202012Validator(written)


def test_schema_has_not_drifted(repository_root: Path) -> None:
    """Broken: the published schema differs from the parser; run `builder schema > docs/matrix.schema.json`."""
    assert (repository_root / "docs" / "matrix.schema.json").read_text(encoding="utf-8") == schema()


@pytest.mark.parametrize(
    "text",
    [
        EXAMPLE,
        SMALL,
        BUILT_IN.format(python="3.13"),
        EXAMPLE + '[aliases]\n"latest" = "3.13-bookworm-slim"\n',
        changed('groups = ["dev"]', 'groups = "all"\ndefault-groups = false', EXAMPLE),
    ],
    ids=["example", "small", "built-in", "aliases", "all-groups"],
)
def test_valid_file_validates(validator: Any, text: str) -> None:
    """Broken: editors mark a valid file as invalid."""
    parse_matrix(text, source="matrix.toml")
    validator.validate(tomli.loads(text))


def test_matrix_of_the_repository_validates(validator: Any, repository_root: Path) -> None:
    """Broken: the project's own matrix is invalid for editors or for the parser."""
    text = (repository_root / "matrix.toml").read_text(encoding="utf-8")
    parse_matrix(text, source="matrix.toml")
    validator.validate(tomli.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        "pyhton = []\n" + SMALL,
        SMALL + "packges = []\n",
        SMALL + "[install]\ngroup = []\n",
        changed('python = ["3.12"]\n', ""),
        changed('["3.12"]', "[3.12]"),
        changed('["3.12"]', '["three"]'),
        changed('["slim"]', '["sl im"]'),
        changed('"debian"', '"redhat"'),
        changed('"debian"', '"debian"\npackages = ["git; id"]'),
        'link-mode = "clone"\n' + SMALL,
    ],
)
def test_invalid_file_does_not_validate(validator: Any, text: str) -> None:
    """Broken: editors accept a file that the parser rejects."""
    with pytest.raises(MatrixError):
        parse_matrix(text, source="matrix.toml")
    assert not validator.is_valid(tomli.loads(text))
