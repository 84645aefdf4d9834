"""Verification: the checks that an image must pass, run in containers of the image."""
