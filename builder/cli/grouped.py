"""Commands whose `--help` has its options in groups."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import click

_CELLS: Final = "Which cells, matrix and lock"
_OUTPUT: Final = "Output"
_OTHERS: Final = "Options"
_GROUPS: Final = {
    **dict.fromkeys(
        (
            "matrix",
            "lock",
            "only",
            "platform",
            "mirrors",
            "branch",
            "locked",
            "packages",
            "all_packages",
            "only_groups",
        ),
        _CELLS,
    ),
    **dict.fromkeys(("as_json", "progress", "log_dir", "timings", "quiet", "verbose", "output", "help"), _OUTPUT),
}


class GroupedCommand(click.Command):
    """A command with its own options first in `--help`, then those that choose cells, then those about output."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click."""
        groups: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                groups[_GROUPS.get(parameter.name or "", _OTHERS)].append(record)
        for title in (_OTHERS, _CELLS, _OUTPUT):
            if groups[title]:
                with formatter.section(title):
                    formatter.write_dl(groups[title])
