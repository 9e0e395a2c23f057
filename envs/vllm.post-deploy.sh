# Snakemake runs this in the conda environment that it has made of envs/vllm.yaml: all packages as in the lock.
# Made by `make envs-lock`.
set -eu
echo "ffc660eb899ce2e86fa51692362a73128bfa504916ca3e7b00777032579ac1de  envs/vllm.lock" | sha256sum --check --quiet - || {
    echo "envs/vllm.lock is missing or has been edited: run snakemake in the repository's root, after make envs-lock" >&2
    exit 1
}
python -m pip install --quiet --no-deps --require-hashes --requirement envs/vllm.lock
