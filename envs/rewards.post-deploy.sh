# Snakemake runs this in the conda environment that it has made of envs/rewards.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "580cbaa3b0d3db628f6b51e62cadd40dc5e8e4b2b3d42b3d40128abf2f537567  envs/rewards.lock" | sha256sum --check --quiet - || {
    echo "envs/rewards.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --require-hashes --requirement envs/rewards.lock
