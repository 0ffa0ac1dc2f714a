# make demo, make test: each makes what it needs first. `make help` lists the rest.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
DEMO ?= demo
JOBS ?= 2
PYTEST_ARGS ?=

# Where there is no GPU, this CPU build of PyTorch is installed first: an open version
# range would bring gigabytes of CUDA.
TORCH_VERSION ?= 2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

RUN := $(VENV)/bin/python
# Each stamp is made last, so a half-made environment never counts as done.
APP := $(VENV)/.installed-app
DEV := $(VENV)/.installed-dev
DOCS := $(VENV)/.installed-docs
SIMULATED := $(DEMO)/simulated
# The dataset appears whole or not at all, so one of its files stands for all.
DATA := $(SIMULATED)/dataset_description.json

.DELETE_ON_ERROR:
.PHONY: help demo test lint docs wheel neurodesk clean

help:
	@echo "make demo    simulate an example dataset, quantify it, compare with the truth"
	@echo "make test    run the tests (PYTEST_ARGS='-k motion' for some)"
	@echo "make lint    check style, format, import arrows and types"
	@echo "make docs    build the documentation into site/"
	@echo "make wheel   build the package into dist/"
	@echo "make neurodesk  put the recipe for Neurodesk with its files into dist/neurodesk/"
	@echo "make clean   remove what these made ($(VENV), $(DEMO), site, dist)"

demo: $(APP) $(DATA)
	$(VENV)/bin/asl-app $(SIMULATED) $(DEMO)/derivatives participant -w $(DEMO)/work
	@echo
	@$(RUN) -m asl_bids_app.demo.compare $(DEMO)/derivatives $(SIMULATED)/derivatives/truth
	@echo
	@echo "Maps:    $(CURDIR)/$(DEMO)/derivatives/sub-*/perf/*_cbf.nii.gz and *_att.nii.gz"
	@echo "Reports: $(CURDIR)/$(DEMO)/derivatives/sub-*.html"

test: $(DEV)
	$(RUN) -m pytest -n $(JOBS) --dist worksteal -m "not slow and not slurm and not container and not gpu" $(PYTEST_ARGS)

lint: $(DEV)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports
	$(RUN) -m mypy

docs: $(DOCS)
	$(RUN) docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

wheel: $(APP)
	$(RUN) -m pip wheel --no-deps --wheel-dir dist .

neurodesk: wheel
	rm -rf dist/neurodesk
	mkdir -p dist/neurodesk/asl-app
	cp container/neurodesk/*.yaml container/install.sh container/requirements.lock \
	  container/build.lock container/torch-cpu.lock dist/asl_bids_app-*.whl dist/neurodesk/asl-app/

clean:
	rm -rf $(VENV) $(SIMULATED) $(DEMO)/derivatives $(DEMO)/work site dist build

$(DATA): $(wildcard asl_bids_app/demo/*.py) | $(APP)
	rm -rf $(SIMULATED)
	$(RUN) -m asl_bids_app.demo $(SIMULATED)

$(APP): setup.cfg pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON): Python 3.11 or newer is needed (make PYTHON=/path/to/python)" >&2; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || rm -rf $(VENV)
	@test -d $(VENV) || "$(PYTHON)" -m venv $(VENV) >/dev/null 2>&1 || \
	  { rm -rf $(VENV); "$(PYTHON)" -m virtualenv -q $(VENV) 2>/dev/null; } || \
	  { rm -rf $(VENV); echo "error: $(PYTHON) can't make a virtual environment. On Debian and Ubuntu:" \
	    "sudo apt-get install $$("$(PYTHON)" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; \
	    exit 1; }
	@command -v nvidia-smi >/dev/null 2>&1 || { echo "no GPU: PyTorch $(TORCH_VERSION) for the CPU"; \
	  $(RUN) -m pip install -q "torch==$(TORCH_VERSION)+cpu" 2>/dev/null || \
	  $(RUN) -m pip install -q "torch==$(TORCH_VERSION)+cpu" --extra-index-url $(TORCH_CPU_INDEX) || \
	  $(RUN) -m pip install -q "torch==$(TORCH_VERSION)"; }
	$(RUN) -m pip install -q -e .
	@touch $@

$(DEV): $(APP)
	$(RUN) -m pip install -q -e '.[test,train]'
	@touch $@

$(DOCS): $(APP)
	$(RUN) -m pip install -q -e '.[docs]'
	@touch $@
