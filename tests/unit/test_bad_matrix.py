"""A wrong `matrix.toml`: every fault in one message, with its path, what is wrong and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import MatrixError
from builder.matrix.file import parse_matrix, read_matrix
from tests.matrices import EXAMPLE, SMALL, changed

EXCLUDE_ALL = 'exclude = [{ base = "slim" }]\n' + SMALL


def message(text: str) -> str:
    """What a wrong matrix is answered with."""
    with pytest.raises(MatrixError) as raised:
        parse_matrix(text, source="matrix.toml")
    assert raised.value.exit_code == 2
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        (SMALL + "packges = []\n", "bases.slim.packges", "unknown key (perhaps you meant 'packages'?)"),
        ("repositry = 'x'\n" + SMALL, "repositry", "perhaps you meant 'repository'?"),
        ("zzzzzz = 1\n" + SMALL, "zzzzzz", "unknown key; known here: aliases, base, bases, cache"),
        (SMALL + "[install]\ngroup = ['dev']\n", "install.group", "perhaps you meant 'groups'?"),
        (SMALL + "[install]\ndefault_groups = false\n", "install.default_groups", "you meant 'default-groups'?"),
        ("exclude = [{ pyhton = '3.12' }]\n" + SMALL, "exclude.0.pyhton", "perhaps you meant 'python'?"),
        (changed('["3.12"]', '["3.12", "3.12"]'), "python", "'3.12' is there 2 times; name it once"),
        (changed('["slim"]', '["slim", "slim", "slim"]'), "base", "'slim' is there 3 times; name it once"),
        (changed('["3.12"]', "[]"), "python", "empty; name at least one"),
        (changed('["slim"]', "[]"), "base", "empty; name at least one"),
        (changed('python = ["3.12"]\n', ""), "python", "missing; it is required"),
        (changed('image = "python:{python}-slim-bookworm"\n', ""), "bases.slim.image", "missing; it is required"),
        (changed('["3.12"]', '["three"]'), "python.0", "'three' is not a Python version; write \"3.13\""),
        (changed('["3.12"]', '["3.12-slim"]'), "python.0", "'3.12-slim' is not a Python version"),
        (changed('["3.12"]', '["2.7"]'), "python.0", "'2.7' is not a Python version"),
        (changed('["3.12"]', "[3.12]"), "python.0", "valid string, not 3.12"),
        (changed('["3.12"]', '"3.12"'), "python", "not '3.12'"),
        (changed('["slim"]', '["slm"]'), "base", "'slm' has no definition (perhaps you meant 'slim'?)"),
        (changed('["slim"]', '["slm"]'), "base", "[bases.slm]"),
        ("exclude = [{ python = '3.11' }]\n" + SMALL, "exclude.0", "excludes no cell"),
        ("exclude = [{}]\n" + SMALL, "exclude.0", "names no axis; write python, base or both"),
        (EXCLUDE_ALL, "exclude", "every cell is excluded; leave at least one"),
        (changed('"debian"', '"redhat"'), "bases.slim.family", "'debian' or 'alpine', not 'redhat'"),
        (changed("-slim-bookworm", "-slim"), "bases.slim.libc", 'not known for \'python:{python}-slim\'; write it'),
        (changed('"debian"', '"debian"\nlibc = "two"'), "bases.slim.libc", "'two' is not a libc version; write"),
        ('uv = "latest"\n' + SMALL, "uv", "'latest' is not a uv version; write \"0.13.8\""),
        ('uv-image = "no image"\n' + SMALL, "uv-image", "'no image' is not an image reference"),
        ('platform = "linux/s390x"\n' + SMALL, "platform", "'linux/amd64' or 'linux/arm64', not 'linux/s390x'"),
        ('link-mode = "clone"\n' + SMALL, "link-mode", "not 'clone'"),
        ('repository = "acme/ci:1"\n' + SMALL, "repository", "has a tag or digest; write the repository alone"),
        ('repository = "Acme/CI"\n' + SMALL, "repository", "use lower-case letters"),
        (SMALL + "[aliases]\nlatest = '3.13-slim'\n", "aliases.latest", "perhaps you meant '3.12-slim'?"),
        (SMALL + "[aliases]\n'3.12-slim' = '3.12-slim'\n", "aliases.3.12-slim", "is the name of a cell already"),
        (SMALL + "[mirrors]\n'docker.io' = 'https://m.example'\n", "mirrors", "without a scheme"),
    ],
)  # fmt: skip
def test_fault_is_named_with_its_path(text: str, path: str, words: str) -> None:
    """Broken: a fault gets through, or its message does not say where and what it is."""
    lines = message(text).splitlines()
    assert any(line.removeprefix("matrix.toml:").strip().startswith(f"{path}: ") for line in lines), lines
    assert words in "\n".join(lines)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('["slim"]', '["sl im"]'),
        ('["slim"]', '["-slim"]'),
        ('["slim"]', '["slim\\n"]'),
        ('["slim"]', "['sl$im']"),
        ('["slim"]', "['sl\"im']"),
        ('["3.12"]', '["3.12\\n"]'),
        ('["3.12"]', '["3.12; touch /tmp/x"]'),
        ('"python:{python}-slim-bookworm"', '"python:3.12-bookworm\\nRUN touch /tmp/x"'),
        ('"python:{python}-slim-bookworm"', "'python:$(id)-bookworm'"),
        ('"debian"', '"debian"\npackages = ["git; touch /tmp/x"]'),
        ('"debian"', '"debian"\npackages = ["git\\nRUN id"]'),
        ('"debian"', '"debian"\npackages = ["$(id)"]'),
        ('"debian"', '"debian"\npackages = ["`id`"]'),
        ('"debian"', '"debian"\npackages = [\'git"\']'),
        ('"debian"', '"debian"\npackages = ["-o=x"]'),
        ('"debian"', '"debian"\nlibc = "2.36\\n"'),
        ('"debian"', '"debian"\nlibc = "٢.٣٦"'),
        ('"debian"', '"debian"\n[aliases]\n"a b" = "3.12-slim"'),
    ],
)
def test_shell_syntax_gets_nowhere(old: str, new: str) -> None:
    """Broken: a value with quotes, '$', a line break or shell syntax gets past the parser."""
    assert message(changed(old, new)).startswith("matrix.toml")


def test_all_faults_come_at_once() -> None:
    """Broken: people mend one fault, run again, and find the next."""
    text = """\
python = ["3.12", "3.12", "three"]
base = ["slim", "apline"]
uv = "latest"
pyhton = []
[bases.slim]
image = "Python:{python}"
[bases.alpine]
image = "python:{python}-alpine"
family = "alpine"
"""
    said = message(text)
    assert said.startswith("matrix.toml has 7 faults:")
    for words in (
        "\n  python: '3.12' is there 2 times",
        "\n  python.2: 'three' is not a Python version",
        "\n  base: 'apline' has no definition (perhaps you meant 'alpine'?)",
        "\n  uv: 'latest' is not a uv version",
        "\n  pyhton: unknown key (perhaps you meant 'python'?)",
        "\n  bases.slim.image: 'Python:3.13' is not an image reference",
        "\n  bases.slim.family: missing; it is required",
    ):
        assert words in said


def test_faults_between_keys_come_at_once() -> None:
    """Broken: of several faults between right keys only the first is told."""
    text = changed("exclude = [{ ", 'exclude = [{ python = "3.9" }, {}, { ', EXAMPLE) + "[aliases]\nx = 'y'\n"
    said = message(text)
    assert said.startswith("matrix.toml has 3 faults:")
    assert "exclude.0: excludes no cell" in said
    assert "exclude.1: names no axis" in said
    assert "aliases.x: 'y' is not a cell" in said


def test_name_too_long_for_a_tag() -> None:
    """Broken: a base whose tags no registry takes is found out after the build."""
    long = "s" * 120
    text = SMALL.replace("slim]", f"{long}]").replace('"slim"', f'"{long}"')
    assert "at most" in message(text)


@pytest.mark.parametrize("uv_image", ["ghcr.io/acme/uv:0.13.8", "ghcr.io/acme/uv@sha256:" + "0" * 64])
def test_uv_image_takes_no_tag(uv_image: str) -> None:
    """Broken: a tag or digest of uv-image is dropped without a word."""
    assert "uv-image: " in message(f'uv-image = "{uv_image}"\n' + SMALL)


@pytest.mark.parametrize("text", ["python = [", "python = 1\npython = 2\n", "= 3", "\x00"])
def test_no_toml(text: str) -> None:
    """Broken: a file that is not TOML is answered by a traceback."""
    assert message(text).startswith("matrix.toml is not TOML: ")


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_empty_file_misses_both_axes(text: str) -> None:
    """Broken: an empty matrix builds nothing, and says nothing."""
    said = message(text)
    assert "python: missing" in said
    assert "base: missing" in said


@pytest.mark.parametrize(
    "text",
    [
        "python = 3\nbase = 4\n",
        "python = [[]]\nbase = [{}]\n",
        "bases = 1\n" + SMALL.split("\n[")[0],
        "python = [nan]\nbase = [1979-05-27]\n",
    ],
)
def test_wrong_shapes(text: str) -> None:
    """Broken: a value of another type than expected is answered by a traceback."""
    assert message(text).startswith("matrix.toml")


def test_file_that_is_not_there(tmp_path: Path) -> None:
    """Broken: a mistyped -f is answered by a traceback, or by the built-in matrix."""
    with pytest.raises(MatrixError, match=r"cannot read .*missing\.toml: No such file") as raised:
        read_matrix(tmp_path / "missing.toml")
    assert "-f" in raised.value.hint


def test_file_that_is_no_text(tmp_path: Path) -> None:
    """Broken: a binary file is answered by a traceback."""
    path = tmp_path / "matrix.toml"
    path.write_bytes(b"python = ['\xff']")
    with pytest.raises(MatrixError, match=r"not UTF-8 text \(byte 11\)"):
        read_matrix(path)
