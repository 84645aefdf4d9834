"""What a project that is new to builder begins with: a matrix, and a pipeline that includes the component."""
