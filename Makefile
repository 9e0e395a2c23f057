# `make help` lists the targets. PYTHON: a Python 3.11. TORCH_INDEX: PyTorch's CPU package index,
# where yours has no CPU build of torch.
# LOCK: what `make install` installs. envs/cpu.lock: this machine has no GPU; envs/gpu.lock: it has; envs/head.lock: it only submits to Slurm.
# Without it, what .venv was made of.
SHELL := /bin/bash
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
BEGUN := $(VENV)/installing

# The lock that .venv was made of, or began to be; one that was made before its name was kept says
# it by its torch.
MADE_OF := $(shell cat $(INSTALLED) 2>/dev/null || cat $(BEGUN) 2>/dev/null)
ifneq ($(wildcard $(INSTALLED)),)
TORCH := $(notdir $(wildcard $(VENV)/lib/python3*/site-packages/torch-*.dist-info))
MADE_OF := $(or $(MADE_OF),$(if $(findstring +cpu,$(TORCH)),envs/cpu.lock,$(if $(TORCH),envs/gpu.lock,envs/head.lock)))
endif
LOCK ?= $(or $(MADE_OF),envs/cpu.lock)

# What only plans, submits and reads runs in the environment that is active (conda, a venv, a
# module: what `snakemake` is on the PATH), where it can; otherwise, as all else, in .venv.
define FIND_ACTIVE
program=$$(command -v snakemake) && folder=$${program%/*} \
&& { test ! "$$folder" -ef $(BIN) || test ! -e $(INSTALLED); } \
&& "$$folder/python" -c 'import sys; from importlib.metadata import version; \
packages = ["huggingface_hub", "orjson", "pydantic", "rich"]; \
[version(name) for name in packages]; \
sys.exit([int(part) for part in version("snakemake").split(".")[:2]] < [9, 27])' 2>/dev/null \
&& echo "$$folder"
endef
ifneq ($(filter plan fetch verify resume tables,$(MAKECMDGOALS)),)
ACTIVE := $(shell $(FIND_ACTIVE))
endif
HERE := $(or $(ACTIVE),$(BIN))
READY := $(if $(ACTIVE),,$(INSTALLED))

GPU_TESTS := $(addprefix tests/test_,$(addsuffix .py,every_model image_scorers armorm generate_images \
	rank_images generate_responses rank_responses train_dpo)) -k "not vllm and not snakemake and not zero"
DEMO := $(BIN)/snakemake --profile profiles/local --configfile demo/config.yaml
RANDOM_RUN := $(BIN)/snakemake --profile profiles/local --configfile demo/random.yaml
TABLES := tables $(shell sed -nE 's/^rule ([a-z_]+_(table|figure)):$$/\1/p' rules/*.smk)
.DELETE_ON_ERROR:
.PHONY: help install gpu-check demo claims demo-models random other world tables test test-fast test-avx2 \
	test-gpu test-slurm jobs lint bench bench-scorers parity plan fetch verify envs-lock envs-check docs \
	resume clean clean-all other-lock

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

# pip compiles file after file, which takes as long as the rest; compileall uses all cores, and
# fails where a package has files of Python 2.
install: $(INSTALLED) ## Make .venv from a lock (Python 3.11): LOCK=envs/cpu.lock, envs/gpu.lock or envs/head.lock

# Made of another lock, it is made anew: pip takes a CPU build of torch for what a GPU's lock asks.
AFRESH := $(and $(MADE_OF),$(filter-out $(MADE_OF),$(LOCK)))

$(INSTALLED): $(LOCK) envs/sitecustomize.py $(if $(AFRESH),other-lock)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	|| { echo "make: $(PYTHON) is not Python 3.11. Name one: \
	make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing $(LOCK) into $(VENV): some minutes"
	@$(PYTHON) -m venv $(if $(AFRESH),--clear) $(VENV)
	@echo $(LOCK) >$(BEGUN)
	@$(BIN)/pip install --quiet --require-hashes -r envs/pip.lock 2>&1 | { grep -v '^WARNING: Location' || true; }
	@$(BIN)/pip install --quiet --no-deps --require-hashes --no-compile $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r $(LOCK) 2>&1 | { grep -v '^WARNING: Location' || true; }; \
	test $${PIPESTATUS[0]} = 0 || { echo "make: the installation failed. If pip found no torch==2.13.0+cpu: make $(MAKECMDGOALS) TORCH_INDEX=<the CPU index that pytorch.org's 'Get started' page names>"; exit 1; }
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true
	@cp envs/sitecustomize.py "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/"
	@mv $(BEGUN) $@

demo-models: $(INSTALLED) ## Build the tiny random checkpoints and their benchmarks
	$(BIN)/python demo/build_models.py --output demo/models
	$(BIN)/python demo/build_benchmarks.py --output demo/benchmarks

demo: $(INSTALLED) ## Run the whole pipeline on this machine, in a small world where it learns
	$(BIN)/python demo/build_world.py --output demo/world/benchmarks
	$(DEMO)
	$(DEMO) -- report
	@$(BIN)/python demo/story.py demo/config.yaml

claims: $(INSTALLED) ## The paper's claims in the small world: three seeds with their controls (36 minutes on two cores)
	$(BIN)/python demo/build_world.py --output demo/world/benchmarks
	$(BIN)/python demo/claims.py

random: demo-models ## Run the whole pipeline with tiny random models (noise: shows that everything works)
	$(RANDOM_RUN)
	@$(BIN)/python demo/story.py demo/random.yaml
	@echo "The models are tiny and random: this shows that every stage works, not how well."

# As an endpoint has to be there while the run goes on, demo/serve.py runs the command.
other: demo-models ## Run the whole pipeline with another cast: other models than the paper's in every role, tiny and random
	$(BIN)/python demo/build_models.py --output demo/models --only flux siglip qwen2.5-vl idefics3 text-reward
	$(BIN)/python demo/serve.py demo/models/llava-v1.6-mistral -- $(BIN)/snakemake --profile profiles/local --configfile demo/other.yaml
	@$(BIN)/python demo/story.py demo/other.yaml

world: $(INSTALLED) ## Train the small world's checkpoints that are missing (hours on one core; goes on where it was ended): make world ARGS="--only vae"
	$(BIN)/python demo/train_world.py $(ARGS)

tables: $(READY) ## Make tables and figures anew from kept results, and run nothing else: make tables RUN="--profile profiles/local --configfile my.yaml"
	"$(HERE)/snakemake" $(or $(RUN),$(wordlist 2,99,$(DEMO))) --allowed-rules $(TABLES) -- tables

# In the order of tests/conftest.py, the longest first: xdist would begin the files with fewest
# tests last, and a run killed twenty times is one test.
test: demo-models ## Pass all tests but those on a Slurm cluster
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: demo-models ## Pass the tests that take seconds: in less than three minutes on two cores
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

# PyTorch and oneDNN take the widest vectors that the processor has; most machines have no AVX-512.
test-avx2: demo-models ## Pass the tests of float32 arithmetic as on a processor with AVX2
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/python -m pytest -m "numeric and not slow" -n 2

# What needs other software than torch, transformers, diffusers, peft, trl and pydantic is left out,
# so that it also runs in the python of a GPU machine without network (docs/gpu.md).
test-gpu: demo-models ## Pass the tests of models, of the rules that load them and of training on this machine's GPU
	TEST_DEVICE=cuda $(BIN)/python -m pytest -n 4 $(GPU_TESTS)

test-slurm: demo-models ## Pass the tests on a throw-away Slurm cluster (as root it installs Slurm's packages)
	$(BIN)/python tests/slurm/cluster.py --install
	$(BIN)/python -m pytest -n 4 --dist worksteal tests/slurm

lint: $(INSTALLED) ## Style, formatting, types, and Snakemake's own linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	PYTHONPATH=scripts $(BIN)/lint-imports
	$(BIN)/mypy scripts demo benchmarks envs docs
	$(BIN)/mypy --allow-untyped-defs --allow-incomplete-defs --allow-untyped-calls \
		--cache-dir .mypy_cache/tests tests
	$(BIN)/snakemake --lint

bench: demo-models ## Measure the graph, the demo, what keeping things whole costs, and each stage against the bare libraries; beside another commit: make bench AGAINST=v1.0
	$(BIN)/python benchmarks/graph.py $(if $(AGAINST),--against $(AGAINST))
	$(BIN)/python benchmarks/demo.py $(if $(AGAINST),--against $(AGAINST))
	PYTHONPATH=scripts $(BIN)/python benchmarks/kept.py
	$(BIN)/python benchmarks/pairs.py
	PYTHONPATH=scripts:demo:tests $(BIN)/python benchmarks/report_page.py
	$(BIN)/python benchmarks/data_sets.py
	PYTHONPATH=scripts $(BIN)/python benchmarks/stream.py
	PYTHONPATH=scripts $(BIN)/python benchmarks/training.py
	PYTHONPATH=scripts:demo $(BIN)/python benchmarks/throughput.py --models larger
	PYTHONPATH=scripts:demo $(BIN)/python benchmarks/throughput.py --models tiny

# Any Python that has torch will do, as on a machine that is bare but for its GPU: PYTHON=python3.
gpu-check: $(if $(filter file,$(origin PYTHON)),$(INSTALLED)) ## Ten minutes on a GPU: seconds and peaks of all models, byte equality, rates: make gpu-check ARGS="--only pictures"
	PYTHONPATH=scripts:demo:benchmarks:$$PYTHONPATH $(if $(filter file,$(origin PYTHON)),$(BIN)/python,$(PYTHON)) -m gpu $(ARGS)

bench-scorers: $(INSTALLED) ## Score released answers with ours and the references' scripts: make bench-scorers GOLDEN=folder REFERENCES=folder
	PYTHONPATH=scripts $(BIN)/python benchmarks/scorers.py $(if $(GOLDEN),--golden $(GOLDEN)) \
		$(if $(REFERENCES),--references $(REFERENCES)) $(if $(VECTORS),--vectors $(VECTORS))

.venv-image-reward/installed: envs/image-reward.txt envs/sitecustomize.py
	$(PYTHON) -m venv .venv-image-reward
	.venv-image-reward/bin/pip install --quiet --no-deps --require-hashes $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r envs/image-reward.txt 2>&1 | { grep -v '^WARNING: Location' || true; }; \
	test $${PIPESTATUS[0]} = 0
	cp envs/sitecustomize.py "$$(.venv-image-reward/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/"
	touch $@

parity: $(INSTALLED) .venv-image-reward/installed ## Compare the native ImageReward with the original package (full size)
	$(BIN)/python benchmarks/image_reward_parity.py --package-python .venv-image-reward/bin/python

plan: $(READY) ## Jobs, GPU-hours, costs, storage, downloads and licences: make plan CONFIG=config.yaml ARGS="--prompts-per-topic 900"
	@"$(HERE)/python" scripts/plan.py --configfile $(or $(CONFIG),config.yaml) $(if $(RUN),--run $(RUN)) $(ARGS)

fetch: $(READY) ## Download the models and benchmark data of a configuration, for nodes without network: make fetch CONFIG=config.yaml ARGS=--dry-run
	@"$(HERE)/python" scripts/fetch.py --configfile $(or $(CONFIG),config.yaml) $(ARGS)

verify: $(READY) ## Hold a run against its own records, without a GPU: make verify RUN=results/paper (without RUN: the demo)
	@"$(HERE)/python" scripts/verify.py $(or $(RUN),results/demo)

envs-lock: $(INSTALLED) ## Write the locks of envs/*.yaml, from the package index's metadata
	$(BIN)/python envs/locks.py

envs-check: $(INSTALLED) ## Resolve every pin set against the package index; fail on a conflict or a lock that does not fit
	$(BIN)/python envs/locks.py --check

docs: $(INSTALLED) ## Write docs/configuration.md, docs/config.schema.json and docs/models.md from the code
	PYTHONPATH=scripts $(BIN)/python docs/make_configuration.py
	PYTHONPATH=scripts $(BIN)/python docs/make_schema.py
	PYTHONPATH=scripts:demo $(BIN)/python docs/make_models.py

resume: $(READY) ## Go on after a crash, as the same command does: make resume RUN="--profile slurm" (without RUN: the demo)
	"$(HERE)/snakemake" --rerun-incomplete $(or $(RUN),$(wordlist 2,99,$(DEMO)))

jobs: ## Your Slurm jobs with their rule, topic, shard and model
	@squeue --me --format="%.10i %.10P %.8T %.10M %.20R %k"

# No other results: those of `make claims` (results/claims) and of `make world` took long as well.
# .snakemake stays: it is of all runs in this folder, and holds the environments of --sdm conda.
clean: ## Remove the results of the demo and of the random run, what was built for them, and caches
	rm -rf results/demo results/random demo/models demo/benchmarks demo/world/benchmarks
	rm -rf .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find benchmarks demo docs envs scripts tests -name __pycache__ -prune -exec rm -rf {} +

clean-all: clean ## ... and .venv, .venv-image-reward, and .snakemake with its conda environments
	rm -rf $(VENV) .venv-image-reward .snakemake
