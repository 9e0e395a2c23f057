# Snakemake runs this in the conda environment that it has made of envs/evaluation.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "375ededa9b1c1c33cdfdb49a1e744f61976d9159615f78c62359c3b58ff2b440  envs/evaluation.lock" | sha256sum --check --quiet - || {
    echo "envs/evaluation.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --requirement envs/evaluation.lock
