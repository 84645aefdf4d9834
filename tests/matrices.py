"""Texts of matrix files."""

from __future__ import annotations

# Two Pythons, two bases, and one of everything else.
EXAMPLE = """\
repository = "registry.example.com/acme/ci"
python = ["3.12", "3.13"]
base = ["bookworm-slim", "alpine"]
exclude = [{ python = "3.13", base = "alpine" }]
uv = "0.13.8"

[install]
groups = ["dev"]
extras = []

[bases.bookworm-slim]
image = "docker.io/library/python:{python}-slim-bookworm"
family = "debian"
packages = ["git"]

[bases.alpine]
image = "docker.io/library/python:{python}-alpine"
family = "alpine"
packages = ["git"]

[mirrors]
"docker.io" = "localhost:5000"
"ghcr.io" = "localhost:5000"
"""

SMALL = """\
python = ["3.12"]
base = ["slim"]

[bases.slim]
image = "python:{python}-slim-bookworm"
family = "debian"
"""


def changed(old: str, new: str, text: str = SMALL) -> str:
    """The text with its only occurrence of `old` replaced."""
    assert text.count(old) == 1
    return text.replace(old, new)
