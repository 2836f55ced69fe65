# make demo   from nothing to captioned photos
# make test   from nothing to a green test run (lint, types, tests)
# make lock   resolve the pinned dependencies anew

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-output
BIN := $(VENV)/bin
PINS := .ci/constraints.txt

.PHONY: demo test lint lock clean

demo: $(VENV)/.ready-demo
	@$(BIN)/python -m capexport.cli.demo $(OUT)

test: $(VENV)/.ready-test lint
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
	rm -rf $(VENV) $(OUT)

$(VENV)/.ready-demo: EXTRAS := convert,onnx,tflite,plot
$(VENV)/.ready-test: EXTRAS := dev
$(VENV)/.ready-%: pyproject.toml $(PINS)
	@echo "Setting up $(VENV) with $(EXTRAS), once ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(PINS) --editable '.[$(EXTRAS)]'
	@touch $@
