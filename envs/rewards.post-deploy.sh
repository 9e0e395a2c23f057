# Snakemake runs this in the conda environment that it has made of envs/rewards.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "4375e75720acfc42c1d9ea1262109c2f454828a5818dec6c6afc9cf6638f9f82  envs/rewards.lock" | sha256sum --check --quiet - || {
    echo "envs/rewards.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --requirement envs/rewards.lock
