# `make demo` and `make test` need Python >= 3.11, make and a package index, nothing else.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
PY = $(VENV)/bin/python
TASK ?= classification
WORKDIR ?= runs/demo_$(TASK)
# Where this is set, each process compiles all that it imports anew: 10 s in place of 3.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo docs test test-survival test-extended test-flower test-all lint bench-peers

$(VENV): $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python >= 3.11 is needed: pass PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/installed
	$(PY) -m launch.demo --task=$(TASK) --workdir=$(WORKDIR)

lint: $(VENV)/installed
	$(PY) -m ruff check .
	$(PY) -m mypy

test: lint
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 15

# The pages of docs/ as a site, in site/; `python -m http.server -d site` shows it.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

# Runs killed at random moments, and what they end with: minutes.
test-survival: $(VENV)/installed
	$(PY) -m pytest -m survival

# A whole run of every baseline, and what resembles a shorter test: minutes.
test-extended: $(VENV)/installed
	$(PY) -m pytest -n 2 -m extended

# A server and three hospitals over Flower's network on this machine: minutes.
test-flower: $(VENV)/installed
	$(PYTHON) -m venv .venv-flower
	.venv-flower/bin/pip install --quiet -r launch/flower/requirements.txt
	FEDGEN_FLOWER_PYTHON=$(CURDIR)/.venv-flower/bin/python $(PY) -m pytest -s -m flower tests/deploy

# What `benchmarks/speed.py` compares with, each in an environment of its own.
bench-peers:
	@for file in benchmarks/peers/*.txt; do \
	  name=$$(basename $$file .txt); echo "== $$name"; \
	  $(PYTHON) -m venv .venv-peers/$$name && \
	  .venv-peers/$$name/bin/pip install --quiet -r $$file || exit 1; \
	done

# Every Python >= 3.11 on the PATH or under pyenv, one environment each.
test-all:
	@for v in 3.11 3.12 3.13 3.14; do \
	  for p in python$$v $(HOME)/.pyenv/versions/$$v.*/bin/python3; do \
	    $$p -c '' 2>/dev/null || continue; \
	    echo "== Python $$v"; $(MAKE) test PYTHON=$$p VENV=.venv-$$v || exit 1; break; \
	  done; \
	done
