"""Lock files, and what one cell installs from them."""
