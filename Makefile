# Every target runs in .venv, which is made first, and again when pyproject.toml or the constraints change.
#   make demo     the example pipeline, and where its results went
#   make all      what CI runs: lint types test docs newest test-frameworks
#   make test     the tests; narrow them with ARGS="tests/core -k split"
#   make test-faults  networks that fail a hundred times each, bad servers, killed writers: the better part of an hour
#   make test-localstack  those of S3 on LocalStack, in the place of moto's server
#   make test-celery  those of Airflow's scheduler once more, on Celery and Redis
#   make test-frameworks  those of PyTorch, Keras, TensorFlow and Hugging Face, which are gigabytes
# Another interpreter: make PYTHON=python3.12 (after `make clean`).

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: all azurite bench clean constraints demo docs lint newest test test-celery test-faults test-frameworks test-localstack types venv

# Without byte code every start takes two to three times as long, and measures nothing.
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONPATH

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := python -m pip --disable-pip-version-check
TAG = $(BIN)/python -c 'import sys; print("py%d%d" % sys.version_info[:2])'
MYPY := ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache
EXTRAS := airflow,celery,dev,all,docs
# Airflow and the newest Prefect cannot be in one environment, so there are two, each with its constraints.
WITH := airflow
# Hosts of package indexes and paths of one machine; in brackets, so that this line is not found itself.
FORBIDDEN := p[y]pi\.org|p[y]thonhosted\.org|registry\.n[p]mjs|(^|[^A-Za-z0-9_.])/(home|root|Users|work)/

all: lint types test docs newest test-frameworks

venv: $(STAMP)

$(STAMP): pyproject.toml $(wildcard constraints/*.txt)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit("Tailrace needs Python 3.11 or newer: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	tested=constraints/$$($(TAG))-$(WITH).txt; if [ -e $$tested ]; then set -- --constraint $$tested; fi; \
	$(BIN)/$(PIP) install --quiet "$$@" --editable '.[$(EXTRAS)]'
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib || echo 'Some files of the installed packages are not for this Python; they are not used.'
	touch $@

# The same run id each time, so that a second demo shows that nothing is registered or tracked twice.
demo: export PREFECT_HOME = $(CURDIR)/.tailrace/prefect
demo: export MLFLOW_DISABLE_TELEMETRY = true
demo: $(STAMP)
	@mkdir -p .tailrace # Prefect makes its home in a folder that exists
	$(BIN)/tailrace run flows/breast_cancer.py --run-id demo
	$(BIN)/tailrace lineage demo/describe/report
	$(BIN)/tailrace lineage demo/describe/report --format svg --output .tailrace/lineage.svg

# Without ARGS those that drive Airflow run beside the others, and are shown after them: they wait more than they work.
BESIDE := -n 3 --dist loadfile
test: $(STAMP) azurite
ifeq ($(strip $(ARGS)),)
	@mkdir -p build
	$(BIN)/pytest tests/airflow >build/airflow.log 2>&1 & \
	$(BIN)/pytest $(BESIDE) --ignore=tests/docs --ignore=tests/airflow --ignore=tests/frameworks; others=$$?; \
	wait $$!; airflow=$$?; cat build/airflow.log; test $$others = 0 && test $$airflow = 0
else
	$(BIN)/pytest --ignore=tests/docs $(ARGS)
endif

# Azure's server comes from npm. Where there is none, or no registry, Azure's tests are skipped and say so.
AZURITE := 3.35.0
azurite: .azurite/$(AZURITE)
.azurite/$(AZURITE):
	@if ! command -v npm >/dev/null; then echo 'No npm: the tests of Azure are skipped.'; \
	elif npm install --silent --no-audit --no-fund --fetch-retries 1 --fetch-timeout 60000 --prefix .azurite azurite@$(AZURITE) \
	  </dev/null; then touch $@; else echo 'npm could not install azurite: the tests of Azure are skipped.'; fi

# What `pip install tailrace` gives: the newest Prefect, and no Airflow.
NEWEST := VENV=.venv-newest EXTRAS=dev,all WITH=newest
newest:
	$(MAKE) test $(NEWEST) ARGS="$(BESIDE) tests/adapters tests/cli tests/prefect $(ARGS)"

# A deployment whose tasks run in a Celery worker, through a Redis.
test-celery: export AIRFLOW_TEST_EXECUTOR = CeleryExecutor
test-celery: $(STAMP)
	$(BIN)/pytest tests/airflow/test_services.py tests/airflow/test_scheduler.py tests/airflow/test_crashes.py $(ARGS)

test-faults: export FAULT_ROUNDS = 100
test-faults: $(STAMP) azurite
	$(BIN)/pytest -n 3 -m 'slow or not slow' $(addprefix tests/stores/test_,faults.py bad_stores.py crash.py killed_in_a_bucket.py pipeline_in_a_bucket.py dedup.py) $(ARGS)

# LocalStack needs older packages than ours: it has an environment of its own, of Python 3.11, and no part of it is imported.
LOCALSTACK := .venv-localstack
$(LOCALSTACK)/.installed: constraints/py311-localstack.txt
	$(PYTHON) -m venv --clear $(LOCALSTACK)
	$(LOCALSTACK)/bin/$(PIP) install --quiet --requirement $<
	touch $@

test-localstack: export LOCALSTACK_PYTHON = $(CURDIR)/$(LOCALSTACK)/bin/python
test-localstack: $(STAMP) $(LOCALSTACK)/.installed
	$(BIN)/pytest $(BESIDE) -m 'slow or not slow' -k s3 $(addprefix tests/stores/test_,battery.py dedup.py file_level.py object_stores.py verify.py example_in_a_bucket.py killed_in_a_bucket.py) $(ARGS)

# Libraries of gigabytes, in an environment of their own. pip is told where PyTorch for the CPU alone is; the newest
# would bring as much again for GPUs, so its version is fixed in the constraints.
FRAMEWORKS := VENV=.venv-frameworks EXTRAS=frameworks WITH=frameworks FIXED=torch==2.13.0
test-frameworks:
	$(MAKE) test $(FRAMEWORKS) ARGS="$(BESIDE) tests/frameworks $(ARGS)"

docs: $(STAMP)
	$(BIN)/pytest tests/docs $(ARGS)

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	if git grep --untracked -nIE '$(FORBIDDEN)'; then echo 'These name an index or a machine; take them out.'; exit 1; else test $$? -eq 1; fi

# A type checker cannot see through the editable install of a package that is the root of its repository. So the wheel is
# unpacked, and what imports `tailrace` is linked in beside it and checked from there.
types: $(STAMP)
	rm -rf build
	$(BIN)/$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir build/dist .
	$(BIN)/$(PIP) install --quiet --no-deps --target build/typed build/dist/*.whl
	ln -s ../../tests ../../flows ../../dags build/typed/
	$(BIN)/python tests/docs/test_examples.py build/typed/examples
	cd build/typed && $(MYPY) -p tailrace && $(MYPY) tests flows dags examples

# The newest versions that fit pyproject.toml, as names and versions alone. Run `make clean all` after it.
constraints: BIN := build/constraints/bin
constraints:
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	$(BIN)/$(PIP) install --quiet $(FIXED) --editable '.[$(EXTRAS)]'
	$(BIN)/$(PIP) list --format=freeze --exclude-editable --exclude pip | sed 's/+cpu$$//' >build/constraints.txt
	mv build/constraints.txt constraints/$$($(TAG))-$(WITH).txt
	if test $(WITH) = airflow; then $(MAKE) constraints $(NEWEST) && $(MAKE) constraints $(FRAMEWORKS); fi

clean:
	rm -rf .venv .venv-newest .venv-frameworks $(LOCALSTACK) .azurite build *.egg-info .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
