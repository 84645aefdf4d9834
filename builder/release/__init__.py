"""The registry: what it has, what is pushed, which tags move."""
