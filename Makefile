# Every target makes the virtual environment by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test cover check bench docs clean

demo: $(READY)
	$(BIN)/baffle train

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

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

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage* site dist
