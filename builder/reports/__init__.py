"""Reports of a run in the formats that GitLab and GitHub show by themselves."""
