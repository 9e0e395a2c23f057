# Snakemake runs this in the conda environment that it has made of envs/training.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "86c23aef0beae0b98bdb99f1d9cd066cf96c45e65611bd4ec66962c7b9b5f52b  envs/training.lock" | sha256sum --check --quiet - || {
    echo "envs/training.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --require-hashes --requirement envs/training.lock
