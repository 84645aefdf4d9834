"""matrix.toml: Python versions and base layers, and the cells that they make."""
