"""Models that score how well an image fits its prompt."""
