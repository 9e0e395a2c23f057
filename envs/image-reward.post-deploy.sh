# Snakemake runs this in the conda environment that it has made of envs/image-reward.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "1b5983507deb9719dbde5263e2d2183d745840bddc129476c56be9a71b5faf94  envs/image-reward.lock" | sha256sum --check --quiet - || {
    echo "envs/image-reward.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --requirement envs/image-reward.lock
