# Every target sets up its own .venv from nothing: Python 3.11 or newer, make and git are all it takes.
# With a C++ compiler on x86-64 Linux the native part is built too: faster convolutions on CPUs.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
SETUP := $(VENV)/set-up
DOCS := $(VENV)/set-up-docs
OLDEST := $(VENV)-oldest/set-up
QUICK := api_test or architecture_test or color_test or config_test or errors_test or files_test

.PHONY: demo test test-quick test-oldest check bench studio docs release-check setup clean

demo: setup  ## one picture from the examples, its report and its loss plot, in out/
	mkdir -p out
	$(RUN)/nst --content=example:coffee --style=example:night --iterations=100 \
	  --output=out/demo.png --report=out/demo.json --plot=out/demo-losses.png

test: setup  ## the tests
	$(RUN)/pytest --numprocesses=2 --dist=loadfile

test-quick: setup  ## lint, and the tests that run no optimizer: in less than 90 seconds
	$(RUN)/ruff check
	$(RUN)/pytest --numprocesses=2 --dist=loadfile -k '$(QUICK)'

test-oldest: $(OLDEST)  ## the tests with the oldest dependencies that are allowed
	$(VENV)-oldest/bin/pytest --numprocesses=2 --dist=loadfile

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

release-check:  ## wheel and sdist in dist/, each tried in an empty environment, offline
	PYTHON=$(PYTHON) .ci/release-check

setup: $(SETUP)

$(SETUP): pyproject.toml native/build.py native/convolution.cc
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nst_jax needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --editable '.[dev]'
	-$(RUN)/pip install --quiet --editable '.[cpu]' && $(RUN)/python native/build.py >/dev/null
	touch $@

$(OLDEST): pyproject.toml tests/oldest.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)) and "the oldest dependencies need Python 3.11 or 3.12: make PYTHON=python3.12 test-oldest")'
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/pip install --quiet --editable '.[dev]' --constraint tests/oldest.txt
	touch $@

$(DOCS): $(SETUP)
	$(RUN)/pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-oldest .xla_cache dist out
