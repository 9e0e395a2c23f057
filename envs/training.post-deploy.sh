# Snakemake runs this in the conda environment that it has made of envs/training.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "13f1e9bf9f39533e1afc6dcc6af193360ad6ddc1635ece01997a11f803a669d6  envs/training.lock" | sha256sum --check --quiet - || {
    echo "envs/training.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --requirement envs/training.lock
