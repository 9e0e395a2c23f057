"""What a run is made of: one folder a role, one file a model."""
