# Snakemake runs this in the conda environment that it has made of envs/vllm.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "1f48f7fe5c2fc15b436863f327f9e86968d62307f1bf9ff3ba19a777918d5bb0  envs/vllm.lock" | sha256sum --check --quiet - || {
    echo "envs/vllm.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --requirement envs/vllm.lock
