"""The configuration: one file a stage."""
