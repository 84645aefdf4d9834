"""What GitLab reads and runs."""
