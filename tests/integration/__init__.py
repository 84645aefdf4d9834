"""Tests that start processes: uv, hadolint, shells and, where a fixture asks for it, the engine."""
