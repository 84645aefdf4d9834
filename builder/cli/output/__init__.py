"""Output: as text, as JSON, and live on a terminal."""
