# make demo    installs sourcesep into .venv, separates three mixtures, prints the gains
# make test    installs what the tests need, checks style and types, runs the tests
# make lint    style and types alone
# make coverage  the tests again, and which branches of the code they never take (takes long);
#              fails below 90 % of the branches
# make test-report  tests the report, and fails where there is no Chromium to look at it
# make docs    writes docs/cli.md and docs/api.md anew, from the commands and the docstrings
# make fuzz    hands 100,000 hostile files, SPECs and command lines to the readers (5 minutes)
# make audit   asks PyPI (SERVICE=osv: OSV) for known vulnerabilities of the pinned versions
# make claims  prints the figures that the documentation quotes (takes long)
# make clean   removes .venv and everything that was made
#
# Another Python:  make demo PYTHON=python3.12

PYTHON ?= python3
SERVICE ?= pypi
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt
REQUIRED := pyproject.toml constraints.txt

# statements and branches together are checked by --cov-fail-under; branches alone by this
BRANCHES := import json, sys; of = json.load(open(".coverage.json"))["totals"]; share = of["covered_branches"] / of["num_branches"]; print(f"branches alone: {share:.1%}, at least 90 %"); sys.exit(share < 0.9)

.PHONY: demo test coverage test-report lint docs fuzz audit claims clean

demo: .venv/installed
	$(BIN)/sourcesep demo -o demo_output

test: lint
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

coverage: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --cov --cov-report=term:skip-covered --cov-report=json:.coverage.json --cov-fail-under=90
	$(BIN)/python -c '$(BRANCHES)'

test-report: .venv/installed-dev
	NEED_CHROMIUM=1 $(BIN)/python -m pytest tests/report

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed-dev
	$(BIN)/python docs/generate.py

fuzz: .venv/installed-dev
	$(BIN)/python benchmarks/fuzz.py --cases 100000

audit: .venv/made
	$(BIN)/python -m pip install -qq --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --strict --disable-pip --no-deps --vulnerability-service $(SERVICE) --requirement constraints.txt

claims: .venv/installed-bench
	$(BIN)/python benchmarks/linear.py
	$(BIN)/python benchmarks/verdict.py --seeds 100
	$(BIN)/python benchmarks/auto.py
	$(BIN)/python benchmarks/audio.py rooms
	$(BIN)/python benchmarks/audio.py panned
	$(BIN)/python benchmarks/audio.py mono
	$(BIN)/python benchmarks/rooms_against_pyroomacoustics.py
	$(BIN)/python benchmarks/run.py --check
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/many_files.py --check
	$(BIN)/python benchmarks/kill.py
	$(BIN)/python benchmarks/kill.py --overwrite
	$(BIN)/python benchmarks/gpu_parity.py

clean:
	rm -rf .venv build dist *.egg-info demo_output separated
	rm -rf .coverage .coverage.json .pytest_cache .hypothesis .mypy_cache .ruff_cache fuzz_findings

# Each stamp below is written when its step has ended well, so that an interrupted step
# is done again and a finished one is not.

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit("Python %d.%d is too old: sourcesep needs 3.11 or newer; name one, e.g. make demo PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
	touch $@

.venv/installed: .venv/made $(REQUIRED)
	$(INSTALL) --editable .
	touch $@

.venv/installed-dev: .venv/made $(REQUIRED)
	$(INSTALL) --editable '.[nonlinear,tables,dask,eeg]' --group dev
	touch $@ .venv/installed

.venv/installed-bench: .venv/made $(REQUIRED)
	$(INSTALL) --editable '.[nonlinear,tables]' --group bench
	touch $@ .venv/installed
