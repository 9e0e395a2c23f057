# Snakemake runs this in the conda environment that it has made of envs/diffusion.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "e30b700d70bfa3ad6677aeb78c1ea77785d32e705e2bcd4587791cbe02d1439e  envs/diffusion.lock" | sha256sum --check --quiet - || {
    echo "envs/diffusion.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --require-hashes --requirement envs/diffusion.lock
