"""Bakes a Python project's locked dependencies, uv and a warm cache into the images that its CI jobs run on."""


def __getattr__(name: str) -> str:
    """Return `__version__`, looked up when it is first needed: the version of the installed distribution `prebuilt`."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 -- slower than the rest of --help

    try:
        return version("prebuilt")
    except PackageNotFoundError:
        return "0.0.0+not.installed"  # run from a checkout
