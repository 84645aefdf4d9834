#!/opt/uv/venv/bin/python -I
"""The Python that `uv pip install --system` finds: the baked environment, which says that it is no environment.

With `--system` or UV_SYSTEM_PYTHON, uv takes the first `python` on PATH that is outside of virtual environments. That
is this one, behind the environment's own `python`. uv asks it for its folders with `python … -c PROGRAM`; whatever
else it is started for is left to the environment's Python.
"""

import os
import sys


def main() -> None:
    """Run PROGRAM with the prefixes of an installation whose packages are those of the environment."""
    arguments = sys.argv[1:]
    if "-c" not in arguments:
        os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606
    place = arguments.index("-c") + 1
    sys.base_prefix, sys.base_exec_prefix = sys.prefix, sys.exec_prefix
    import sysconfig  # noqa: PLC0415 -- it remembers the prefixes

    # Debian's Python would name folders below /usr/local.
    sysconfig.get_default_scheme = lambda: "posix_prefix"
    sysconfig.get_preferred_scheme = lambda key: "posix_" + key
    sys.argv[:] = ["-c", *arguments[place + 1 :]]
    exec(arguments[place], {"__name__": "__main__"})  # noqa: S102 -- as `python -c` does


main()
