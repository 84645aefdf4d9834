"""What runs builds and containers."""
