"""Sessions: nox -l lists them."""

import nox

nox.options.sessions = ["lint", "tests"]


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style."""
    session.install("-r", "requirements.txt")
    session.run("ruff", "check", "moon", "tests", "noxfile.py")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests."""
    session.install("-r", "requirements.txt")
    session.run("pytest", "-q", env={"PYTHONPATH": "."})
