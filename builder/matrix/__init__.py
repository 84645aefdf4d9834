"""matrix.toml: Python versions and base layers, and the cells made of them."""
