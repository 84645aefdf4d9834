"""Lock files, and which of their packages each cell installs."""
