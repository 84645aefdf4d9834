"""The system packages that a job needs, which Python's full images have and its slim images lack."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.gitlab.adopt.job import Job, Line
from builder.gitlab.adopt.program import Use, read_inside, uses_below
from builder.gitlab.adopt.script import is_uv_installer

# By program, the Debian package. Full images are Debian's only; they have all of these.
_PACKAGES: Final[Mapping[str, str]] = {
    "git": "git", "hg": "mercurial", "svn": "subversion", "make": "make", "gcc": "gcc", "cc": "gcc", "g++": "g++",
    "c++": "g++", "curl": "curl", "wget": "wget", "unzip": "unzip", "ssh": "openssh-client", "scp": "openssh-client",
    "sftp": "openssh-client", "ssh-add": "openssh-client", "ssh-agent": "openssh-client",
    "ssh-keygen": "openssh-client", "ssh-keyscan": "openssh-client", "gpg": "gnupg", "patch": "patch", "file": "file",
    "pkg-config": "pkg-config", "autoconf": "autoconf", "automake": "automake", "libtoolize": "libtool",
    "mysql-config": "default-libmysqlclient-dev", "pg-config": "libpq-dev", "bzip2": "bzip2", "xz": "xz-utils",
    "ps": "procps", "pgrep": "procps", "pkill": "procps", "free": "procps", "top": "procps", "convert": "imagemagick",
    "identify": "imagemagick", "envsubst": "gettext-base", "xml2-config": "libxml2-dev", "xslt-config": "libxslt1-dev",
}  # fmt: skip
# Python programs that call git.
_GIT_USERS: Final = frozenset(
    {"pre-commit", "semantic-release", "cz", "commitizen", "gitlint", "bump2version", "bumpversion", "bump-my-version",
     "reuse", "darker", "diff-cover", "diff-quality", "towncrier", "check-manifest", "dvc", "nbdev-clean", "versioneer",
     "setuptools-scm", "hatch-vcs", "git-changelog", "gitchangelog", "cruft", "copier"}
)  # fmt: skip
_WITH_GIT: Final = re.compile(r"git\+(?:https?|ssh)://|\bmkdocs gh-deploy\b|\bmike deploy\b")
_BUILDS: Final = re.compile(
    r"pip3? (?:install|wheel) (?:.*\s)?(?:-e\s+)?[\"']?\./?(?:$|[\s\[\"'])|python[\d.]* (?:-m build\b|setup\.py\b)"
    r"|(?:poetry|pdm|flit|hatch|uv) (?:build|install|sync)\b"
)
_VERSION_FROM_GIT: Final = re.compile(
    r"setuptools[-_]scm|hatch-vcs|versioneer|versioningit|dunamai|poetry-dynamic|pbr\b"
)
_COMPILES: Final = re.compile(r"ext_modules|Extension\(|cythonize|mesonpy|scikit[-_]build|cffi_modules|pybind11")
_INSTALLED: Final[Mapping[str, re.Pattern[str]]] = {
    "debian": re.compile(r"(?:apt-get|apt|aptitude)\b[^&|;\n]*?\binstall\b(?P<names>[^&|;\n]*)"),
    "alpine": re.compile(r"\bapk\b[^&|;\n]*?\badd\b(?P<names>[^&|;\n]*)"),
}
_COMPILERS: Final = frozenset({"gcc", "g++", "build-essential"})


@dataclass(frozen=True, kw_only=True)
class Need:
    """A package, and the command in a line of a script that needs it."""

    package: str
    command: str
    line: Line


def needs_of(job: Job, folder: Path | None, present: Iterable[str] = ()) -> Iterator[Need]:
    """The packages that a job needs, each with the first command that needs it, besides those `present`.

    A job that installs a package itself does not need it.
    """
    present = {*present, *installed_packages(job)}
    for line in job.lines:
        if is_uv_installer(line.scalar.value):
            continue  # the image has uv
        for use in uses_below(line.scalar.value, folder):
            for package in _packages(use, folder):
                if package not in present and not (package in _COMPILERS and present & _COMPILERS):
                    present.add(package)
                    yield Need(package=package, command=use.via or use.command, line=line)


def installed_packages(job: Job, family: str = "debian") -> Iterator[str]:
    """The distribution's packages that the script of a job installs, without versions."""
    for line in job.lines:
        yield from packages_in(line.scalar.value, family)


def packages_in(script: str, family: str) -> Iterator[str]:
    """The distribution's packages that a script installs, without versions."""
    for match in _INSTALLED[family].finditer(re.sub(r"\\\n\s*", " ", script)):
        for word in match["names"].split():
            if re.fullmatch(r"[a-z0-9][a-z0-9+.-]+(?:=\S+)?", word):
                yield word.partition("=")[0]


def _packages(use: Use, folder: Path | None) -> Iterator[str]:
    if use.program in _PACKAGES:
        yield _PACKAGES[use.program]
    if use.program in _GIT_USERS or _WITH_GIT.search(use.command):
        yield "git"
    if folder and _BUILDS.search(use.command):
        text = "".join(read_inside(folder / name, folder) for name in ("setup.py", "setup.cfg", "pyproject.toml"))
        if _VERSION_FROM_GIT.search(text):
            yield "git"
        if _COMPILES.search(text):
            yield "g++"
