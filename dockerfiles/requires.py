"""Print what a build backend asks for beyond `[build-system] requires` (PEP 517 and 660), one requirement a line.

Runs while an image is built, in a folder with a minimal pyproject.toml and an environment that has the
backend: `python requires.py FOLDER hatchling.build`. A backend that cannot answer without the project's sources asks
for nothing here; the check `project-offline` of the finished image tells whether that was enough.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys


def main(folder: str, name: str) -> None:
    """Ask the backend `module:object` for its editable and wheel requirements."""
    os.chdir(folder)
    module, _, attributes = name.partition(":")
    try:
        backend = functools.reduce(getattr, filter(None, attributes.split(".")), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        sys.exit("no build backend %s: %s" % (name, error))
    for hook in ("get_requires_for_build_editable", "get_requires_for_build_wheel"):
        try:
            with contextlib.redirect_stdout(sys.stderr):  # setuptools says what it runs
                required: list[str] = getattr(backend, hook, list)()
        except (Exception, SystemExit) as error:  # setuptools ends the program
            print("%s of %s needs the project: %s" % (hook, name, error), file=sys.stderr)
            continue
        for requirement in required:
            print(requirement)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
