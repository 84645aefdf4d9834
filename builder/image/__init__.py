"""From a selection to a built image."""
