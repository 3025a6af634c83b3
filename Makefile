# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what it needs in .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.facetpu-ready

# The pipeline, a target a step: make align PHOTOS=photos CROPS=crops
PHOTOS ?= photos
CROPS ?= crops
RECORDS ?= records
CONFIG ?= configs/small-cpu.yaml
RUN ?= run
FROZEN ?= frozen
QUANTIZED ?= quantized
COMPILED ?= compiled
BASE ?= base_edgetpu.tflite
HEAD ?= head.tflite
JOINED ?= model_edgetpu.tflite
MODEL ?= model
PEOPLE ?= people
KNOWN ?= known
PHOTO ?= photo.jpg
DEMO ?= demo
FLAGS ?=

.PHONY: help setup demo test test-all test-ray lint check format align pack train export freeze quantize split compile \
	join imprint identify evaluate doctor clean

help:  ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

$(READY): pyproject.toml facetpu/mtcnn/build_compiled.py facetpu/mtcnn/_area.c \
		facetpu/mtcnn/_networks.c
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Error: $(PYTHON) is not Python 3.10 to 3.13; name one: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@

setup: $(READY)  ## Install facetpu and all it needs into $(VENV).

demo: setup  ## Run the whole chain on rendered people, in minutes.
	$(BIN)/facetpu demo $(DEMO) $(FLAGS)

test: setup  ## Run the test suite, but for what takes long.
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile $(FLAGS)

test-all: setup  ## Run all of it: some twenty minutes.
	$(BIN)/python -m pytest $(FLAGS)

test-ray: setup  ## Install Ray and an S3 server, and run the tests of --engine ray.
	$(BIN)/python -m pip install -q -e '.[ray,cloud]' 'moto[server]>=5,<6'
	$(BIN)/python -m pytest tests/test_ray.py tests/test_ray_commands.py tests/test_ray_training.py $(FLAGS)

lint: setup  ## Format, lint, types and the README's generated parts.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	$(BIN)/cog --check README.md

check: lint test  ## All that CI runs.

format: setup  ## Format the code and mend what the linter can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/cog -r README.md

align: setup  ## PHOTOS -> CROPS
	$(BIN)/facetpu align $(PHOTOS) $(CROPS) $(FLAGS)

pack: setup  ## CROPS -> RECORDS
	$(BIN)/facetpu pack $(CROPS) $(RECORDS) $(FLAGS)

train: setup  ## CONFIG, RECORDS -> RUN
	$(BIN)/facetpu train $(CONFIG) $(RECORDS) $(RUN) $(FLAGS)

export: setup  ## RUN -> MODEL; FLAGS=--edgetpu compiles it too
	$(BIN)/facetpu export $(RUN) $(MODEL) $(FLAGS)

freeze: setup  ## RUN -> FROZEN; export does this and the next four
	$(BIN)/facetpu freeze $(RUN) $(FROZEN) $(FLAGS)

quantize: setup  ## FROZEN, CROPS -> QUANTIZED
	$(BIN)/facetpu quantize $(FROZEN) $(QUANTIZED) --calibration $(CROPS) $(FLAGS)

split: setup  ## MODEL, a .tflite -> base.tflite and head.tflite in QUANTIZED
	$(BIN)/facetpu split $(MODEL) $(QUANTIZED) $(FLAGS)

compile: setup  ## base.tflite of QUANTIZED -> COMPILED
	$(BIN)/facetpu compile $(QUANTIZED)/base.tflite -o $(COMPILED) $(FLAGS)

join: setup  ## BASE, HEAD -> JOINED
	$(BIN)/facetpu join $(BASE) $(HEAD) $(JOINED) $(FLAGS)

imprint: setup  ## MODEL, PEOPLE -> KNOWN
	$(BIN)/facetpu imprint $(MODEL) $(PEOPLE) $(KNOWN) $(FLAGS)

identify: setup  ## Who is in PHOTO
	$(BIN)/facetpu identify $(KNOWN) $(PHOTO) $(FLAGS)

evaluate: setup  ## How well MODEL tells CROPS apart
	$(BIN)/facetpu evaluate $(MODEL) $(CROPS) $(FLAGS)

doctor: setup  ## What is installed and what is missing
	$(BIN)/facetpu doctor

clean:  ## Remove what the tools left behind; your own folders stay.
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis build facetpu.egg-info
