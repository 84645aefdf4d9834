"""An invalid `matrix.toml`: one message lists every fault with its key, what is wrong and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import MatrixError
from builder.matrix.file import parse_matrix, read_matrix
from tests.matrices import EXAMPLE, SMALL, changed

EXCLUDE_ALL = 'exclude = [{ base = "slim" }]\n' + SMALL


def message(text: str) -> str:
    """The error message for an invalid matrix."""
    with pytest.raises(MatrixError) as raised:
        parse_matrix(text, source="matrix.toml")
    assert raised.value.exit_code == 2
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        (SMALL + "packges = []\n", "bases.slim.packges", "unknown key (perhaps you meant 'packages'?)"),
        ("repositry = 'x'\n" + SMALL, "repositry", "perhaps you meant 'repository'?"),
        ("zzzzzz = 1\n" + SMALL, "zzzzzz", "unknown key; known keys: aliases, base, bases, ca, cache"),
        (SMALL + "[install]\ngroup = ['dev']\n", "install.group", "perhaps you meant 'groups'?"),
        (SMALL + "[install]\ndefault_groups = false\n", "install.default_groups", "you meant 'default-groups'?"),
        ("exclude = [{ pyhton = '3.12' }]\n" + SMALL, "exclude.0.pyhton", "perhaps you meant 'python'?"),
        (changed('["3.12"]', '["3.12", "3.12"]'), "python", "'3.12' is listed 2 times; list it once"),
        (changed('["slim"]', '["slim", "slim", "slim"]'), "base", "'slim' is listed 3 times; list it once"),
        (changed('["3.12"]', "[]"), "python", "empty; list at least one"),
        (changed('["slim"]', "[]"), "base", "empty; list at least one"),
        (changed('python = ["3.12"]\n', ""), "python", "missing; this key is required"),
        (changed('image = "python:{python}-slim-bookworm"\n', ""), "bases.slim.image", "missing; this key is required"),
        (changed('["3.12"]', '["three"]'), "python.0", "'three' is not a Python version; write \"3.13\""),
        (changed('["3.12"]', '["3.12-slim"]'), "python.0", "'3.12-slim' is not a Python version"),
        (changed('["3.12"]', '["2.7"]'), "python.0", "'2.7' is not a Python version"),
        (changed('["3.12"]', "[3.12]"), "python.0", 'write "3.12", in quotes; 3.12 is a number'),
        (changed('["3.12"]', '"3.12"'), "python", 'write a list: python = ["3.12"]'),
        (changed('["slim"]', '"slim alpine"'), "base", 'write a list: base = ["slim", "alpine"]'),
        ("exclude = { python = '3.12' }\n" + SMALL, "exclude", "write a list: exclude = [{ … }]"),
        (SMALL + "[install]\ngroups = 'dev'\n", "install.groups", 'write a list: groups = ["dev"]; or "all"'),
        (SMALL + "[profiles.lint]\nextras = 'tls'\n", "profiles.lint.extras", 'write a list: extras = ["tls"]; or'),
        (SMALL + "packages = 'git curl'\n", "bases.slim.packages", 'write a list: packages = ["git", "curl"]'),
        (SMALL + "[mirrors]\ndocker.io = 'x.example'\n", "mirrors.docker", 'goes in quotes: "docker.io" = …'),
        ("packages = ['git']\n" + SMALL, "packages", "unknown key here; it belongs in [install] or [bases.NAME]"),
        ("groups = ['dev']\n" + SMALL, "groups", "unknown key here; it belongs in [install]"),
        ("platforms = ['amd64']\n" + SMALL, "platforms.0", 'write "linux/amd64"'),
        ("platform = 'linux/aarch64'\n" + SMALL, "platform", 'write "linux/arm64"'),
        (
            changed('["3.12"]', '["3.11", "3.12"]').replace("{python}", "3.12"),
            "bases.slim.image",
            "the same for Python 3.11, 3.12; write {python} where the version goes",
        ),
        (changed('["slim"]', '["slm"]'), "base", "'slm' is not defined (perhaps you meant 'slim'?)"),
        (changed('["slim"]', '["slm"]'), "base", "[bases.slm]"),
        ("exclude = [{ python = '3.11' }]\n" + SMALL, "exclude.0", "matches no cell; fix it or remove it"),
        ("exclude = [{}]\n" + SMALL, "exclude.0", "empty; set python, base or profile"),
        (EXCLUDE_ALL, "exclude", "every cell is excluded; keep at least one"),
        (changed('"debian"', '"redhat"'), "bases.slim.family", "'debian', 'alpine', 'rhel' or 'wolfi', not 'redhat'"),
        (changed("-slim-bookworm", "-slim"), "bases.slim.libc", 'not known for \'python:{python}-slim\'; set it'),
        (changed('"debian"', '"debian"\nlibc = "two"'), "bases.slim.libc", "'two' is not a libc version; write"),
        ('uv = "latest"\n' + SMALL, "uv", "'latest' is not a uv version; write \"0.13.8\""),
        ('uv-image = "no image"\n' + SMALL, "uv-image", "'no image' is not an image reference"),
        ('platform = "linux/s390x"\n' + SMALL, "platform", "'linux/amd64' or 'linux/arm64', not 'linux/s390x'"),
        ('link-mode = "clone"\n' + SMALL, "link-mode", "not 'clone'"),
        ('repository = "acme/ci:1"\n' + SMALL, "repository", "has a tag or digest; write only the repository"),
        ('repository = "Acme/CI"\n' + SMALL, "repository", "use lower-case letters"),
        (
            SMALL + "[install]\nonly-groups = ['lint']\nextras = ['tls']\n",
            "install.only-groups",
            "leaves out everything else; remove install.groups and install.extras",
        ),
        (SMALL + "[aliases]\nlatest = '3.13-slim'\n", "aliases.latest", "perhaps you meant '3.12-slim'?"),
        (SMALL + "[aliases]\n'3.12-slim' = '3.12-slim'\n", "aliases.3.12-slim", "is already the name of a cell"),
        (SMALL + "[mirrors]\n'docker.io' = 'https://m.example'\n", "mirrors", "without a scheme"),
    ],
)  # fmt: skip
def test_fault_is_named_with_its_path(text: str, path: str, words: str) -> None:
    """Broken: a fault goes unnoticed, or its message does not say where and what it is."""
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
def test_shell_syntax_is_rejected(old: str, new: str) -> None:
    """Broken: the parser accepts a value with quotes, '$', a line break or shell syntax."""
    assert message(changed(old, new)).startswith("matrix.toml")


def test_all_faults_are_reported_at_once() -> None:
    """Broken: users fix one fault, run builder again, and get the next one."""
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
    error = message(text)
    assert error.startswith("matrix.toml has 6 errors:")
    for words in (
        "\n  python: '3.12' is listed 2 times",
        "\n  python.2: 'three' is not a Python version",
        "\n  base: 'apline' is not defined (perhaps you meant 'alpine'?)",
        "\n  uv: 'latest' is not a uv version",
        "\n  pyhton: unknown key (perhaps you meant 'python'?)",
        "\n  bases.slim.image: 'Python:3.13' is not an image reference",
    ):
        assert words in error


def test_family_that_nothing_tells() -> None:
    """Broken: system packages are installed with the wrong program, or wheels are for another libc."""
    text = changed('image = "python:{python}-slim-bookworm"\nfamily = "debian"', 'image = "example.com/own:1"')
    assert "bases.slim.family: missing, and the name 'example.com/own:1' does not tell it; write" in message(text)


def test_faults_between_keys_are_reported_at_once() -> None:
    """Broken: only the first of several contradictions between keys is reported."""
    text = changed("exclude = [{ ", 'exclude = [{ python = "3.9" }, {}, { ', EXAMPLE) + "[aliases]\nx = 'y'\n"
    error = message(text)
    assert error.startswith("matrix.toml has 3 errors:")
    assert "exclude.0: matches no cell" in error
    assert "exclude.1: empty" in error
    assert "aliases.x: 'y' is not a cell" in error


def test_name_too_long_for_a_tag() -> None:
    """Broken: builder builds an image although its tag is too long for any registry."""
    long = "s" * 120
    text = SMALL.replace("slim]", f"{long}]").replace('"slim"', f'"{long}"')
    assert "use at most 106 characters" in message(text)


@pytest.mark.parametrize("uv_image", ["ghcr.io/acme/uv:0.13.8", "ghcr.io/acme/uv@sha256:" + "0" * 64])
def test_uv_image_must_not_have_a_tag(uv_image: str) -> None:
    """Broken: a tag or digest of uv-image is silently dropped."""
    assert "uv-image: " in message(f'uv-image = "{uv_image}"\n' + SMALL)


@pytest.mark.parametrize("text", ["python = [", "python = 1\npython = 2\n", "= 3", "\x00"])
def test_invalid_toml(text: str) -> None:
    """Broken: a file that is not TOML causes a traceback."""
    assert message(text).startswith("matrix.toml is not TOML: ")


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_empty_file_lacks_both_axes(text: str) -> None:
    """Broken: builder accepts an empty matrix and builds nothing."""
    error = message(text)
    assert "python: missing" in error
    assert "base: missing" in error


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
    """Broken: a value of the wrong type causes a traceback."""
    assert message(text).startswith("matrix.toml")


def test_missing_file(tmp_path: Path) -> None:
    """Broken: a mistyped -f causes a traceback, or the built-in matrix is used."""
    with pytest.raises(MatrixError, match=r"cannot read .*missing\.toml: No such file") as raised:
        read_matrix(tmp_path / "missing.toml")
    assert "-f" in raised.value.hint


def test_file_that_is_not_text(tmp_path: Path) -> None:
    """Broken: a binary file causes a traceback."""
    path = tmp_path / "matrix.toml"
    path.write_bytes(b"python = ['\xff']")
    with pytest.raises(MatrixError, match=r"not UTF-8 text \(byte 11\)"):
        read_matrix(path)
