# Snakemake runs this in the conda environment that it has made of envs/workflow.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "024faf2549282845275614a12d8f3d6a1b040966ef7285388b99fac95fd157a5  envs/workflow.lock" | sha256sum --check --quiet - || {
    echo "envs/workflow.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --requirement envs/workflow.lock
