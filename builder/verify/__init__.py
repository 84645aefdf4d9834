"""The checks that an image must pass."""
