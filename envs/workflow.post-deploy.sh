# Snakemake runs this in the conda environment that it has made of envs/workflow.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "ca5169c81c3b1526419352d4bd3d08bdcc5bef306bbf6ef489e371bdc0138ed1  envs/workflow.lock" | sha256sum --check --quiet - || {
    echo "envs/workflow.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --requirement envs/workflow.lock
