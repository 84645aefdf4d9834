"""Adapt an existing .gitlab-ci.yml so that its jobs run on baked images."""
