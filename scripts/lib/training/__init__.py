"""What trains a model on the pairs: the trainer, its processes, its checkpoints."""
