"""A run on Slurm: checks before, a watch while, what is left after."""
