# Snakemake runs this in the conda environment that it has made of envs/evaluation.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "a233c03ff639868b1c86802e1e425148db3aaeef974ca0c3e662f557794c8750  envs/evaluation.lock" | sha256sum --check --quiet - || {
    echo "envs/evaluation.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --require-hashes --requirement envs/evaluation.lock
