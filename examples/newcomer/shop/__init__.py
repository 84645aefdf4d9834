"""Names of hosts."""

import idna


def host(name: str) -> str:
    """The name as DNS has it."""
    return idna.encode(name).decode()
