"""Models that rate responses."""
