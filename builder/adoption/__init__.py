"""From a `.gitlab-ci.yml` whose jobs install their dependencies to one whose jobs run on baked images."""
