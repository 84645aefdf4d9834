"""Images: planned, rendered to a build context, built."""
