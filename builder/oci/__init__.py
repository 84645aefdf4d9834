"""Registries and images as the OCI specifications define them."""
