"""An existing .gitlab-ci.yml, changed so that its jobs run on baked images."""
