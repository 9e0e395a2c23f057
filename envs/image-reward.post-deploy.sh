# Snakemake runs this in the conda environment that it has made of envs/image-reward.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "f1c17535be1bcb68e432e241a7f38ba56ad35c5b1d6dd83457ca1b87c9ba50a2  envs/image-reward.lock" | sha256sum --check --quiet - || {
    echo "envs/image-reward.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --require-hashes --requirement envs/image-reward.lock
