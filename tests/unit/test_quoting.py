"""Values in a Dockerfile stay data (tests/integration/test_quoting.py runs them in a real shell)."""

from __future__ import annotations

import shlex

import pytest

from builder.errors import BuilderError
from builder.image.render import dockerfile_quoted, shell_quoted

HOSTILE = [
    "a b",
    "'",
    '"',
    "$HOME",
    "${HOME}",
    "$(id)",
    "`id`",
    "; touch /tmp/x",
    "a\\",
    "\\n",
    "#",
    "&&",
    "*",
    "",
    "ü",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_shell_reads_the_value_back(value: str) -> None:
    """Broken: a value in a RUN becomes several words, or another value."""
    assert shlex.split(shell_quoted(value)) == [value]


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("plain", '"plain"'),
        ("a b", '"a b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("$HOME", r'"\$HOME"'),
        ("${HOME}", r'"\${HOME}"'),
        ("back\\slash", r'"back\\slash"'),
        ("end\\", r'"end\\"'),
        ("ü", '"ü"'),
    ],
)
def test_dockerfile_value_is_one_word_without_expansion(value: str, quoted: str) -> None:
    """Broken: a value in LABEL or ENV is expanded, cut, or ends its instruction."""
    assert dockerfile_quoted(value) == quoted


@pytest.mark.parametrize("quote", [shell_quoted, dockerfile_quoted])
@pytest.mark.parametrize("value", ["a\nRUN touch /tmp/x", "a\r\nEOF", "\0"])
def test_line_break_is_refused(quote: object, value: str) -> None:
    """Broken: a line break starts a new instruction."""
    assert callable(quote)
    with pytest.raises(BuilderError, match="cannot be written to a Dockerfile"):
        quote(value)
