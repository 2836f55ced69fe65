# make demo   from nothing to captioned photos
# make test   from nothing to a green test run (lint, types, tests)
# make lock   resolve the pinned dependencies anew

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-output
BIN := $(VENV)/bin
PINS := .ci/constraints.txt
RUNTIME := onnxruntime-web@$(shell sed -n 's/.*"onnxruntime-web": "\(.*\)".*/\1/p' capexport/web/package.json)

.PHONY: demo test lint lock clean

demo: $(VENV)/.ready-demo
	@$(BIN)/python -m capexport.cli.demo $(OUT)

test: $(VENV)/.ready-test lint node_modules/.ready
	$(BIN)/python -m pytest

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# backports-strenum: its newest release refuses Python 3.11, an older one does not.
lock: $(VENV)/.ready-test
	$(BIN)/python -m pip install --quiet uv
	echo 'backports-strenum<1.3' | $(BIN)/uv pip compile pyproject.toml --extra dev --universal --constraint - \
	    --python-version 3.11 --fork-strategy fewest --no-annotate --no-header --quiet --output-file $(PINS)

clean:
	rm -rf $(VENV) $(OUT) node_modules

# What the page of `capexport web` runs on; without npm the tests that need it say so and are skipped.
node_modules/.ready: capexport/web/package.json
	@if command -v npm > /dev/null; then \
	    npm install --silent --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --prefix . \
	        --fetch-timeout=30000 --fetch-retries=1 $(RUNTIME) && \
	    touch $@ || echo "$(RUNTIME) cannot be installed here."; \
	else echo "npm is not here; the tests of onnxruntime-web are skipped."; fi

$(VENV)/.ready-demo: EXTRAS := convert,onnx,tflite,plot
$(VENV)/.ready-test: EXTRAS := dev
$(VENV)/.ready-%: pyproject.toml $(PINS)
	@echo "Setting up $(VENV) with $(EXTRAS), once ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(PINS) --editable '.[$(EXTRAS)]'
	@touch $@
