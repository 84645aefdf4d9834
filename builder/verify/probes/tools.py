"""The tools that the matrix names work without a network, by their names and by `uvx`, for any user."""

from __future__ import annotations

import os
import shlex
from typing import Dict, List

from builder.contract import PROGRAMS, TOOLS
from builder.verify.probes.shell import UNKNOWN_USER, Expected, Failed, Shell


def tools(expected: Expected, job: Shell) -> str:
    """See the module."""
    if not expected.tools:
        return "nothing to check: the matrix names no tools"
    found = programs()
    for name in sorted(expected.tools):
        if name not in found:
            raise Failed("%s has no program in %s" % (name, PROGRAMS))
    try_all(expected, found, job)
    told = ", ".join("%s %s" % pair for pair in sorted(expected.tools.items()))
    if os.getuid():
        return "%s, without a network" % told
    with job.as_user(UNKNOWN_USER) as other:
        if other.run("true").code:
            return "%s, without a network; nothing runs as another user here" % told
        try:
            try_all(expected, found, other)
        except Failed as failure:
            raise Failed("as uid %d: %s" % (UNKNOWN_USER, failure)) from failure
    return "%s, without a network, as uid %d too" % (told, UNKNOWN_USER)


def programs() -> Dict[str, str]:
    """A program of each tool, by the tool's name: the one that is called like it, if there is one."""
    found: Dict[str, str] = {}
    for program in sorted(os.listdir(PROGRAMS) if os.path.isdir(PROGRAMS) else []):
        target = os.path.realpath(os.path.join(PROGRAMS, program))
        name = os.path.relpath(target, TOOLS).split(os.sep)[0]
        if name not in found or program == name:
            found[name] = program
    return found


def try_all(expected: Expected, found: Dict[str, str], job: Shell) -> None:
    """Run each tool both ways; raise Failed if uv has another version of it, or if it says nothing."""
    listing = job.require("uv tool list 2>/dev/null").output.splitlines()
    for name, version in sorted(expected.tools.items()):
        if "%s v%s" % (name, version) not in listing:
            said = [line for line in listing if line.startswith(name + " ")]
            raise Failed("uv tool list says %s, not %s v%s" % ("".join(said) or "nothing", name, version))
        own = os.path.join(PROGRAMS, found[name])
        for command in ([own], ["uvx", "--offline", "--from", name, found[name]]):
            succeeds(command, job)


def succeeds(command: List[str], job: Shell) -> None:
    """Run a program in one of the ways that all programs know; raise Failed if none works."""
    words = " ".join(map(shlex.quote, command))
    ended = job.run("%s --version || %s --help" % (words, words))
    if ended.code:
        raise Failed("%s: %s" % (words, ended.tail))
