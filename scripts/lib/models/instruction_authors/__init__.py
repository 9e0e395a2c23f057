"""Who writes the instructions."""
