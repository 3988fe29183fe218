"""What several suites share: optional parts, processes, clusters."""
