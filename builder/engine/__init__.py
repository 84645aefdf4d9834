"""Engines, which run builds and containers."""
