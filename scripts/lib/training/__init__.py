"""DPO: data, trainer, processes, checkpoints."""
