"""What runs in Snakemake's own process, apart from jobs."""
