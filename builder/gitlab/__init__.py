"""YAML for GitLab: jobs, child pipelines, and changes to an existing file."""
