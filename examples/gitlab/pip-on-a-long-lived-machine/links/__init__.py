"""Links of a page."""
