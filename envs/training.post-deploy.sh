# Snakemake runs this in the conda environment that it has made of envs/training.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "8fb5bb1f68ed0c672920fb8d209c16998d7b3147692f78b03fc677f95953a600  envs/training.lock" | sha256sum --check --quiet - || {
    echo "envs/training.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --require-hashes --requirement envs/training.lock
