"""The command line: reads arguments, prints and exits; the stages do the work. The only `import click`."""

from __future__ import annotations

from builder.cli.main import main

__all__ = ["main"]
