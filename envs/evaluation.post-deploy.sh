# Snakemake runs this in the conda environment that it has made of envs/evaluation.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "27ceb9d0b973155662a13c1acfabe63cf45dbddbc610752fd5b86b09e9ddba53  envs/evaluation.lock" | sha256sum --check --quiet - || {
    echo "envs/evaluation.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --require-hashes --requirement envs/evaluation.lock
