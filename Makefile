# make demo   from nothing to captioned photos
# make test   from nothing to a green test run (lint, types, tests)
# make lock   resolve the pinned dependencies anew, with the hashes of their files
# make sbom   say what the pinned dependencies are, and their licences

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-output
BIN := $(VENV)/bin
TOOLS := .venv-tools
PIP := -m pip --quiet --disable-pip-version-check
RUNTIME := onnxruntime-web@$(shell sed -n 's/.*"onnxruntime-web": "\(.*\)".*/\1/p' capexport/web/package.json)

# TensorFlow without its bytecode takes three times as long to import, in each of many processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint lock sbom clean

demo: $(VENV)/.ready-demo
	@$(BIN)/python -m capexport.cli.demo $(OUT)

# Two processes for two cores: threads of their own would only wait for each other.
test: $(VENV)/.ready-test lint node_modules/.ready
	OPENBLAS_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 \
	    $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Versions that are pinned already stay where they can. hatchling and editables build this project itself.
COMPILE := $(TOOLS)/bin/uv pip compile --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
    --no-annotate --no-header --quiet --output-file
lock: $(TOOLS)/.ready
	printf 'hatchling\neditables\n' | $(COMPILE) .ci/requirements-test.txt pyproject.toml - --extra dev
	printf 'hatchling\neditables\n' | $(COMPILE) .ci/requirements-demo.txt pyproject.toml - --extra convert \
	    --extra onnx --extra tflite --extra plot --constraint .ci/requirements-test.txt
	printf 'uv\ncyclonedx-bom\npip-licenses\n' | $(COMPILE) .ci/requirements-tools.txt -

# Of a fresh environment, for one that is in use may have more in it.
sbom: $(TOOLS)/.ready
	$(MAKE) VENV=.venv-sbom .venv-sbom/.ready-test
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	    --output-file .ci/sbom.cdx.json .venv-sbom/bin/python
	$(TOOLS)/bin/pip-licenses --python .venv-sbom/bin/python --format markdown --with-urls --with-system \
	    --ignore-packages capexport pip --output-file .ci/licences.md
	rm -rf .venv-sbom

clean:
	rm -rf $(VENV) $(TOOLS) $(OUT) node_modules

# What the page of `capexport web` runs on; without npm the tests that need it say so and are skipped.
node_modules/.ready: capexport/web/package.json
	@if command -v npm > /dev/null; then \
	    npm install --silent --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --prefix . \
	        --fetch-timeout=30000 --fetch-retries=1 $(RUNTIME) && \
	    touch $@ || echo "$(RUNTIME) cannot be installed here."; \
	else echo "npm is not here; the tests of onnxruntime-web are skipped."; fi

# Each file that pip fetches has a hash in the list; this project itself has none, and so comes after them. pyspark is
# published as source alone. Python compiles what is imported, which is a tenth of what is installed.
INSTALL := install --no-compile --require-hashes --only-binary :all: --no-binary pyspark --requirement
$(VENV)/.ready-%: pyproject.toml .ci/requirements-%.txt
	@echo "Setting up $(VENV) for make $*, once ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP) $(INSTALL) .ci/requirements-$*.txt
	@$(BIN)/python $(PIP) install --no-compile --no-deps --no-build-isolation --editable .
	@touch $@

$(TOOLS)/.ready: .ci/requirements-tools.txt
	@$(PYTHON) -m venv --clear $(TOOLS)
	@$(TOOLS)/bin/python $(PIP) $(INSTALL) .ci/requirements-tools.txt
	@touch $@
