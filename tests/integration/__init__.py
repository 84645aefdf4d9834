"""Tests that start processes: uv, hadolint, shells and, if a fixture asks for it, the engine."""
