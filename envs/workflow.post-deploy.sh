# Snakemake runs this in the conda environment that it has made of envs/workflow.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "5ec8d750d9b2051c316b866349b3244218a9608047d01824883f0c4716a08c72  envs/workflow.lock" | sha256sum --check --quiet - || {
    echo "envs/workflow.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --require-hashes --requirement envs/workflow.lock
