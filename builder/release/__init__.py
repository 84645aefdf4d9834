"""The images in a registry: their state, pushing, promotion, pruning, comparison."""
