# Snakemake runs this in the conda environment that it has made of envs/workflow.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "b1cbd86d1c88b0fe8bf8793c160f272a277488fa138af112f1254f335896b8c3  envs/workflow.lock" | sha256sum --check --quiet - || {
    echo "envs/workflow.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --require-hashes --requirement envs/workflow.lock
