# make install | demo | test | test-fast | fuzz | rehearsal | lint | serve | docs | protos | bench-check | constraints | clean
#
#   PYTHON       the interpreter the environment is made with (3.11 or 3.12)
#   DATA         folder with one folder a data set, for bench-check
#   TORCH_INDEX  another package index for torch alone. On Linux the default wheel brings CUDA along;
#                without a GPU the small one is enough:
#                make install TORCH_INDEX=<the CPU index that PyTorch's installation page names>

PYTHON ?= python3
TORCH_INDEX ?=
DATA ?= data
TORCH := torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := -m pip --disable-pip-version-check --quiet

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: install demo test test-fast fuzz rehearsal lint serve docs protos bench-check constraints clean

export RAY_USAGE_STATS_ENABLED := 0

install: $(STAMP)

# torch comes first and alone, so that TORCH_INDEX names its wheel and nothing else.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null || { \
	  echo "Raycommend needs Python 3.11 or 3.12, but '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>/dev/null || echo not there). Try: make install PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "[1/3] making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	@echo "[2/3] installing $(TORCH)$(if $(TORCH_INDEX), from $(TORCH_INDEX)) (one large file)"
	@$(BIN)/python $(PIP) install --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	@echo "[3/3] installing Raycommend and $$(grep -c == constraints.txt) pinned packages"
	@$(BIN)/python $(PIP) install --constraint constraints.txt --editable ".[demo,dev]"
	@touch $@
	@echo "installed in $(VENV)"

demo: install
	@$(BIN)/recsys demo

# Two at a time: what starts Ray mostly waits, so everything else runs beside it and is shown after it.
WITH_RAY := ray or serve or chaos
test: install lint
	@mkdir -p build; \
	  $(BIN)/pytest -m "not ($(WITH_RAY))" >build/tests.log 2>&1 & others=$$!; \
	  trap 'kill $$others 2>/dev/null || true' EXIT; \
	  status=0; $(BIN)/pytest -m "$(WITH_RAY)" || status=$$?; \
	  wait $$others || status=$$?; \
	  cat build/tests.log; exit $$status

# What needs neither a cluster nor a service, and no patience.
test-fast: install
	$(BIN)/pytest -n auto --dist loadfile -q -m "not ($(WITH_RAY) or slow)"

# More than 10,000 requests made from the OpenAPI document, as many messages of gRPC, and eight times the
# damage to files that the tests do.
fuzz: install
	RAYCOMMEND_FUZZ_CASES=1500 $(BIN)/pytest tests/serve/test_fuzz.py tests/serve/grpc/test_fuzz.py tests/recsys/corrupted_files -s --timeout 3600

# Hosts on this machine that share no file, and what befalls them (root; about 15 minutes).
rehearsal: install
	@$(BIN)/python -m benchmarks.rehearsal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

serve: install
	@$(BIN)/recsys serve --config recipes/demo.yaml

# The documentation as a site, in site/; fetches nothing. (The variable turns an advertisement off.)
docs: install
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open site/index.html"

# Python of the gRPC messages, after a change of the protocol; it is committed.
protos: install
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. serve/protos/ranking.proto

# The benchmarks again, compared with benchmarks/expected.json.
bench-check: install
	@$(BIN)/python -m benchmarks.check $(DATA)

# Newest versions that pyproject.toml allows, resolved in an environment of their own. Run the tests after.
constraints:
	@$(PYTHON) -m venv --clear build/constraints
	@echo "resolving the newest versions (slow: installs everything once)"
	@build/constraints/bin/python $(PIP) install --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	@build/constraints/bin/python $(PIP) install --editable ".[demo,dev]"
	@{ grep '^#' constraints.txt; \
	  build/constraints/bin/python -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' \
	    | grep -Ev '^(nvidia-|cuda-|triton)'; } > constraints.new
	@mv constraints.new constraints.txt
	@rm -rf build/constraints
	@echo "wrote constraints.txt"

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
