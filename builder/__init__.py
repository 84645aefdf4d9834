"""Bakes a Python project's locked dependencies, uv and a warm cache into the images that its CI jobs run on."""

__version__ = "0.1.0"
