# Snakemake runs this in the conda environment that it has made of envs/image-reward.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "5d509921313054d1682aae17b0a0912223bf3f245cce857f8613fd0e132a0f58  envs/image-reward.lock" | sha256sum --check --quiet - || {
    echo "envs/image-reward.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --requirement envs/image-reward.lock
