# Every target makes the virtual environment by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The lowest versions of what is admitted, on the oldest Python: same bits there.
OLDEST ?= python3.11
LOWEST := .venv-lowest
EXACT := tests/test_lowest.py tests/test_golden_runs.py tests/independent tests/kernels tests/directions tests/optimizers \
	tests/aggregators tests/test_bits.py tests/test_keys.py tests/test_noise_specification.py tests/test_packing.py \
	tests/test_reconstruction.py tests/test_probes.py tests/test_parameters.py tests/test_messages.py tests/test_ledger.py \
	tests/test_old_ledger.py tests/test_snapshots.py tests/secure/test_ring.py tests/secure/test_golden.py tests/baselines/test_fedzo_points.py

.PHONY: demo test lowest cover check bench docs clean

demo: $(READY)
	$(BIN)/baffle train

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

lowest: $(LOWEST)/.ready
	BAFFLE_LOWEST=1 NUMBA_CACHE_DIR=$(LOWEST)/numba $(LOWEST)/bin/python -m pytest $(EXACT)

# Apart from the tests, which take up to three times as long when their lines are counted.
cover: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache

bench: $(READY)
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

docs: $(READY)
	$(BIN)/mkdocs build --strict --quiet

# torch comes first and by its exact version: any looser request may fetch another build of it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,onnx,ray,network,private,dev,docs]'
	touch $(READY)

$(LOWEST)/.ready: pyproject.toml constraints-lowest.txt
	$(OLDEST) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable . numba hypothesis pytest
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage* site dist
