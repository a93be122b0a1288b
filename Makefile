# One command each, from a bare clone: every target makes the environment it needs.
PYTHON ?= python3
WORKERS ?= 2
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# One thread: at toy size a second one makes every step slower.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help demo reproduce test check bench format

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r name text; do \
	  printf '  make %-10s %s\n' "$$name" "$$text"; done

demo: $(STAMP) ## the paper on this machine, base and stages 1 to 4: runs/demo/report.html (ARGS="…" goes to the command)
	$(BIN)/videosafety demo $(ARGS)

reproduce: $(STAMP) ## bases from scratch on several seeds, stages, ablations, baselines: the committed results (hours)
	$(BIN)/videosafety reproduce $(ARGS)

test: $(STAMP) ## all tests; VIDEOSAFETY_TEST_DATA=DIR adds the ones on real clips
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: $(STAMP) ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP) ## speed and memory, one table per file of benchmarks/
	@set -e; for file in benchmarks/*.py; do \
	  [ -e "$$file" ] || { echo "no benchmark yet: benchmarks/ is empty"; break; }; \
	  echo "== $$file"; $(BIN)/python "$$file" $(ARGS); done

format: $(STAMP) ## rewrite the code in the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Made again only when pyproject.toml changes; an environment that was left half made is made anew.
$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "videosafety needs Python 3.11 or later, and '$(PYTHON)' is not here: install it, or make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "videosafety needs Python 3.11 or later, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1): make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv --clear $(VENV) || { \
	  echo "'$(PYTHON)' cannot make an environment: install its venv package (Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "installing into $(VENV) (minutes and a few GB the first time)"
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[local,dev]'
	@touch $@
