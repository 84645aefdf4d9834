"""A CPython for arm64 on this machine: Debian's, run by Debian's QEMU; nothing is installed or registered."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path
from typing import Final

from tests.shared import Shared

_PYTHON: Final = (
    "python3.13-minimal", "libpython3.13-minimal", "libpython3.13-stdlib", "libc6", "libgcc-s1", "zlib1g",
    "libexpat1",
)  # fmt: skip
_SOURCES: Final = """\
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {uri} bookworm main
deb [arch=arm64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {uri} trixie main
"""


class NoEmulationError(Exception):
    """Nothing emulates here, for the reason in `str()`."""


def emulated_python(shared: Shared) -> list[str]:
    """The command line of the interpreter; raise NoEmulationError if it cannot be had here."""
    if platform.machine() != "x86_64":
        raise NoEmulationError("the packages are for x86_64")
    made = shared.once("emulation", _fetch)
    if not made:
        raise NoEmulationError("no packages from Debian")
    folder = Path(made)
    argv = [str(folder / "usr/bin/qemu-aarch64-static"), "-L", str(folder), str(folder / "usr/bin/python3.13")]
    done = subprocess.run([*argv, "-c", ""], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoEmulationError(f"QEMU: {done.stderr.strip()}")
    return argv


def _fetch(folder: Path) -> str:
    """Unpack the packages into the folder; return its path, or nothing if they cannot be fetched."""
    apt, root = folder / "apt", folder / "root"
    for path in (apt / "lists/partial", apt / "cache/archives/partial", root / "usr/lib"):
        path.mkdir(parents=True)
    (apt / "status").touch()
    (root / "lib").symlink_to("usr/lib")
    listed = "\n".join(path.read_text() for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")))
    uri = re.search(r"^URIs: *(\S+/debian)/?$", listed, re.MULTILINE)
    if not uri:
        return ""
    (apt / "sources.list").write_text(_SOURCES.format(uri=uri[1]))
    settings = {
        "Dir::Etc::sourcelist": apt / "sources.list", "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null", "Dir::State::lists": apt / "lists", "Dir::Cache": apt / "cache",
        "Dir::State::status": apt / "status", "APT::Architecture": "amd64", "APT::Sandbox::User": "root",
    }  # fmt: skip
    argv = ["apt-get", "--quiet", *(f"-o{name}={value}" for name, value in settings.items())]
    argv += ["-oAPT::Architectures::=amd64", "-oAPT::Architectures::=arm64"]
    packages = ["qemu-user-static", *(f"{name}:arm64" for name in _PYTHON)]
    for words in (["update"], ["download", *packages]):
        if subprocess.run([*argv, *words], cwd=folder, capture_output=True, check=False).returncode:
            return ""
    for path in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", path, root], check=True)
        path.unlink()
    return str(root)
