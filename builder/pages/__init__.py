"""Static pages about a repository's images."""
