# Every target sets up its own .venv from nothing: Python 3.11 or newer, make and git are all it takes.
# With a C++ compiler on x86-64 Linux the native part is built too: faster convolutions on CPUs.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
SETUP := $(VENV)/set-up
DOCS := $(VENV)/set-up-docs

.PHONY: demo test check bench studio docs setup clean

demo: setup  ## one picture from the examples, its report and its loss plot, in out/
	mkdir -p out
	$(RUN)/nst --content=example:coffee --style=example:night --iterations=100 \
	  --output=out/demo.png --report=out/demo.json --plot=out/demo-losses.png

test: setup  ## the tests
	$(RUN)/pytest --numprocesses=2 --dist=loadfile

check: setup  ## what a change must pass: lint, format, types, tests
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/mypy
	$(RUN)/pytest --numprocesses=2 --dist=loadfile

bench: setup  ## this machine's seconds per evaluation
	$(RUN)/nst-bench

studio: setup  ## a page on which people make pictures
	$(RUN)/nst-studio --open

docs: $(DOCS)  ## the site, out/site/docs/index.html; this runs the tutorial
	$(RUN)/sphinx-build -W --keep-going -c docs . out/site

setup: $(SETUP)

$(SETUP): pyproject.toml native/build.py native/convolution.cc
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nst_jax needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --editable '.[dev]'
	-$(RUN)/pip install --quiet --editable '.[cpu]' && $(RUN)/python native/build.py >/dev/null
	touch $@

$(DOCS): $(SETUP)
	$(RUN)/pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) .xla_cache out
