"""What the program that works on root file systems is told to do, and what it answers: see `builder.rootfs.inside`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program to run with a folder as its root, as root or as `uid:gid` or the name of a user there.

    `bring` are files and folders of this machine to copy in, by path there; `secrets` are files that are kept in memory
    where mounts are allowed. Regular files in the folder `take_from` are moved to the folder `take_to` afterwards.
    With `output`, stdout and stderr are written to that file, stderr to `output` followed by `.err`; `attached`, the
    program has this process's own, its stdin and its terminal. After `seconds` it is stopped, with exit code 124.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    workdir: str = "/"
    user: str = ""
    network: bool = True
    seconds: float | None = None
    bring: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    take_from: str = ""
    take_to: str = ""
    output: str = ""
    attached: bool = False


@dataclass(frozen=True, kw_only=True)
class Task:
    """Run the program in a root file system made of `trees`, the lowest first, and of layers, in the folder `target`.

    A layer is a file, and the path that it is unpacked at. The folder is removed afterwards.

    Or `unpack` the files of layers, by new folder, each of which becomes a tree: see `builder.rootfs.stack`. With
    `alone`, they may go over any others; without `owners`, all files belong to this user. `report` is the file for the
    answer.
    """

    report: str
    target: str = ""
    kind: Literal["run", "unpack", "remove", "probe"] = "run"
    trees: Sequence[str] = ()
    layers: Sequence[tuple[str, str]] = ()
    program: Program | None = None
    unpack: Mapping[str, Sequence[str]] = field(default_factory=dict)
    alone: bool = False
    owners: bool = True

    def to_table(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Task:
        """From `to_table`."""
        program = table["program"]
        return cls(**{**table, "program": Program(**program) if program else None})
