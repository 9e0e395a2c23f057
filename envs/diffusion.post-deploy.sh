# Snakemake runs this in the conda environment that it has made of envs/diffusion.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "e676a57875ad43b07f3580a6ce1632518e5d401aaf47dcd92dca6cf6b3b2269e  envs/diffusion.lock" | sha256sum --check --quiet - || {
    echo "envs/diffusion.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --requirement envs/diffusion.lock
