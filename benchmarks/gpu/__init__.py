"""`make gpu-check`: what the workflow's models cost on this machine's GPU, in ten minutes.

Weights are random and of the real sizes, made on the device one model after the other. Nothing is
downloaded, and neither Snakemake nor vLLM is needed. One file a section; `__main__` runs them.
"""
