"""The command line: parses arguments, prints results and exits. No other package imports click."""

from __future__ import annotations

from builder.cli.main import main

__all__ = ["main"]
