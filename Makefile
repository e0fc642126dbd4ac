# make train   set up and train a model       make test   run the test suite
# make lint    style, types, imports          make bench  compare with other libraries
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# What was installed from which lock: a stamp for each set of packages, so that the second time is quick.
BASE := $(VENV)/.installed
DEV := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help train test test-slow test-more lint audit site pipeline studies bench lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

train: $(BASE)  ## set up, and train bert_tiny on generated questions; ARGS="..." are Hydra overrides
	$(BIN)/python train.py $(ARGS)

# A process for each core. A file's tests stay in one, as they share what is made once.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile
test: $(DEV)  ## set up, and run the test suite (minutes); ARGS="..." go to pytest
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(DEV)  ## run the slow tests
	$(PYTEST) -m slow $(ARGS)

# Of those, what CI runs, too, the longest files first; the others train, search or run pipelines for long, or build an image as root.
MORE := resume distributed explain registry errors own_task saved shipped_before pyfunc kfp_sdk serving_export
test-more: $(DEV)  ## run the slow tests that CI runs
	$(PYTEST) --no-loadscope-reorder -m slow tests/fuzz $(MORE:%=tests/test_%.py) $(ARGS)

# actionlint has no wheel: Go builds it where there is Go, with its checksum database as the lock.
ACTIONLINT := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
lint: $(DEV)  ## ruff, mypy, import-linter; zizmor and actionlint for workflows, hadolint for the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --quiet --no-progress --strict-collection .github
	$(BIN)/hadolint Dockerfile
	@if command -v go >/dev/null; then echo actionlint; go run $(ACTIONLINT) -shellcheck= -pyflakes= .github/workflows/*.yml; \
	  else echo "Go is not installed: actionlint is skipped" >&2; fi

# requirements-dev.lock has all that the other locks have. ARGS="--ignore-vuln ID" for an advisory that does not concern us: say why.
audit: $(VENV)/audit/.installed  ## look up known vulnerabilities of the locked packages (needs the network)
	$(VENV)/audit/bin/pip-audit --disable-pip --require-hashes --progress-spinner off -r requirements-dev.lock $(ARGS)

$(VENV)/audit/.installed: requirements-audit.lock
	@$(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps -r requirements-audit.lock
	@touch $@

site: $(VENV)/docs/.installed  ## build the documentation as a searchable site in site/; a broken link is an error
	$(VENV)/docs/bin/zensical build --clean --strict

$(VENV)/docs/.installed: requirements-docs.lock
	@$(PYTHON) -m venv $(VENV)/docs
	@$(VENV)/docs/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps -r requirements-docs.lock
	@touch $@

# The oldest SDK of Kubeflow Pipelines that reads what we compile: tests/test_kfp_sdk.py.
$(VENV)/kfp-sdk/.installed: requirements-kfp-sdk.lock
	@$(PYTHON) -m venv $(VENV)/kfp-sdk
	@$(VENV)/kfp-sdk/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps -r requirements-kfp-sdk.lock
	@touch $@

# Images are tuned first; a model that has learned something takes minutes, and the explanation gate asks for one.
PIPELINE := $(BIN)/python -m pipelines run explain.examples=64
pipeline: $(BASE)  ## run the whole pipeline on this machine for two tasks; registers two models
	$(PIPELINE) model=resnet18 model.name=resnet10t model.stem=standard data=shapes data.image_size=32 data.augment.crop_padding=2 \
	  data.augment.flip=false data.batch_size=32 data.sample.train=1600 data.sample.val=400 trainer.max_epochs=8 \
	  explain.image_classification.grid=4 -p tune=katib/images-random.yaml -p trials=2 $(ARGS)
	$(PIPELINE) model=bert_tiny data=squad_sample $(ARGS)

studies: $(DEV)  ## repeat the five studies (half an hour); ARGS="search" for one; writes docs/studies.md
	$(BIN)/python -m studies $(ARGS)

bench: $(DEV)  ## compare with other libraries; DATA=../shared/data for real data
	$(BIN)/python -m benchmarks $(if $(DATA),--data $(DATA)) $(ARGS)

# What the default set-up has; the image leaves out what only a client of Kubeflow Pipelines needs.
EXTRAS := --extra katib --extra quality --extra explain --extra mlflow --extra pipelines --extra serving
CLIENT := click-option-group docstring-parser google-api-core google-cloud-core google-cloud-storage google-crc32c \
  google-resumable-media kfp-kubernetes kfp-pipeline-spec kfp-server-api proto-plus requests-toolbelt
COMPILE := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
  --custom-compile-command "make lock" pyproject.toml

lock: $(DEV)  ## update the lock files (needs uv)
	$(COMPILE) --all-extras --group dev -o requirements-dev.lock
	$(COMPILE) $(EXTRAS) -c requirements-dev.lock -o requirements.lock
	$(COMPILE) $(EXTRAS) $(addprefix --no-emit-package ,$(CLIENT)) -c requirements-dev.lock -o requirements-image.lock
	$(COMPILE:pyproject.toml=) --group audit -o requirements-audit.lock
	$(COMPILE:pyproject.toml=) --group docs -o requirements-docs.lock
	$(COMPILE:pyproject.toml=) --group kfp-sdk -o requirements-kfp-sdk.lock

clean:  ## remove the environment and the caches of tools
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BASE): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "isotrain needs Python 3.11, 3.12 or 3.13; choose one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked dependencies into $(VENV) (minutes, once)" >&2
	$(PIP) install --require-hashes --no-deps -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements-dev.lock $(BASE)
	@echo "installing the development dependencies" >&2
	$(PIP) install --require-hashes --no-deps -r requirements-dev.lock
	@touch $@
