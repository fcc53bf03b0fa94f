# make setup | demo | check | test | fuzz | bench | check-kernels | fix | wheel | constraints | clean
# (`make help` explains)

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UNFINISHED := $(VENV)/.unfinished

# the first interpreter on the path that is new enough; PYTHON=... chooses another
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
# passed on to every `pip install`, for example an index that has a small build of torch
PIP_ARGS ?=
# what `make test` hands to pytest: one worker for each core
PYTEST_ARGS ?= --numprocesses auto --maxprocesses 8 --dist worksteal
# what `make bench` hands to every command, for example `--threads 2 --rounds 5`
BENCH_ARGS ?=
# what `make fuzz` hands on, for example `--seed 1`
FUZZ_ARGS ?= --inputs 2000 --seed 0
DEMO ?= fit --config configs/patchtst/etth1.yaml --config configs/trainer/demo.yaml \
	--model.network.value_activation tanh --run_dir demo --overwrite

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup demo check check-kernels fix test test-slow fuzz bench wheel constraints clean

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv with the project and all extras, every version pinned

# `.unfinished` lies in the environment from before its first package until after its last one, when
# it is renamed to `.ready`. An environment that was interrupted is therefore made anew.
$(READY): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "no Python 3.11 or newer was found; install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; \
		exit 1; fi
	@"$(PYTHON)" -c 'import sys; sys.version_info >= (3, 11) or sys.exit("$(PYTHON) is Python " \
		+ sys.version.split()[0] + ", and 3.11 or newer is needed; name another: make setup PYTHON=...")'
	@if [ -e $(UNFINISHED) ] || ! $(BIN)/python -c '' 2>/dev/null; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && rm -f $(READY) && touch $(UNFINISHED)
	@if [ ! -e $(BIN)/python ]; then echo "creating $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv $(VENV); fi
	@echo "installing the project and its pinned dependencies (a few minutes the first time)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS) hatchling editables
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS) \
		--no-build-isolation --editable '.[all]'
	@mv $(UNFINISHED) $(READY)
	@echo "building the CPU kernels (a minute or two; without a compiler plain torch is used)"
	@$(BIN)/python -c 'from tsattn.ops.build import build_all; build_all()' 2>/dev/null \
		|| echo "the CPU kernels were not built: $(BIN)/tsattn doctor --build says why"

demo: $(READY) ## train a forecaster on the shipped ETTh1 and draw a forecast, in the folder demo
	$(BIN)/tsattn $(DEMO)
	@cp demo/forecast.png forecast.png && echo "the forecast: forecast.png"

check: $(READY) ## style, types, layers, dependencies, spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .
	$(BIN)/codespell

fix: $(READY) ## let ruff mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test: $(READY) ## the suite, but for what test-slow runs
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-slow: $(READY) ## tests of half a minute and more: Triton's interpreter, Ray, killed studies
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m slow

# torch lowers itself to what the variable names, and the kernels are built for what torch says
check-kernels: $(READY) ## build the CPU kernels for older processors too, and test them
	@for capability in avx2 default; do \
		echo "kernels for $$capability"; \
		ATEN_CPU_CAPABILITY=$$capability $(BIN)/python -c 'from tsattn.ops.build import build_all; build_all()' \
		&& ATEN_CPU_CAPABILITY=$$capability $(BIN)/python -m pytest $(PYTEST_ARGS) tests/ops || exit 1; \
	done

fuzz: $(READY) ## 2,000 malformed CSV files and checkpoints through forecast and backtest
	$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

bench: $(READY) ## speed beside what people use today: an hour, on a quiet machine; tables in speed
	@mkdir -p speed
	$(BIN)/tsattn bench kernels --dtypes float32 bfloat16 $(BENCH_ARGS) \
		--overwrite --json speed/kernels.json --markdown > speed/kernels.md
	$(BIN)/tsattn bench auto $(BENCH_ARGS) --overwrite --json speed/auto.json --markdown > speed/auto.md
	$(BIN)/tsattn bench train $(BENCH_ARGS) --overwrite --json speed/train.json --markdown > speed/train.md
	@echo "the tables: speed/kernels.md, speed/auto.md, speed/train.md"

wheel: $(READY) ## build the wheel into dist
	$(BIN)/python -m build --wheel --no-isolation

constraints: $(READY) ## write constraints.txt anew from this environment
	$(BIN)/python -m pip freeze --all --exclude-editable --exclude pip > constraints.new
	{ sed -n '/^#/p' constraints.txt; sed 's/+.*//' constraints.new; } > constraints.tmp
	mv constraints.tmp constraints.txt && rm constraints.new

clean: ## remove what builds and tests leave behind; .venv, runs and data stay
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
