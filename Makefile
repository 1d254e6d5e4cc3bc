# make demo   fit two models from nothing: makes .venv, installs the package (no compiler needed), prints the fits
# make test   install what the tests need (also CHOLMOD, where that is possible) and run every test
# make tools  install other packages that results are handed to or compared with (large); their tests are skipped without
# make test-oldest  run the tests with the lower bounds of the dependencies (Python 3.11 or 3.12, for which they have wheels)
# make test-oldest-part  the rooms that touch the dependencies most, in a few minutes
# make check  ruff, mypy and the doctests
# make docs   run every block of the documentation, draw its pictures and build the site
# make release-check  build wheel and sdist in dist/, check them, and try the wheel in an environment of its own
PYTHON ?= python3
VENV   ?= .venv
PY      = $(VENV)/bin/python

export PIP_DISABLE_PIP_VERSION_CHECK = 1
# The dense blocks of the test models are small: more BLAS threads only spin.
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1

.PHONY: demo installed test tools test-oldest test-oldest-part check lint types doctest docs release-check clean

demo: $(VENV)/.installed
	$(PY) -m mixlm_sparse.interop.demo

test: $(VENV)/.installed-test $(VENV)/.installed-cholmod
	$(PY) -m pytest $(PYTEST_ARGS)

tools: $(VENV)/.installed-tools

# all at once, for those who run every step
installed: $(VENV)/.installed-docs $(VENV)/.installed-release $(VENV)/.installed-cholmod

# pictures and warnings are those of the current versions; what third parties deprecate since is not the point here
# machine code of one version of numba is not read by another
test-oldest: $(VENV)-oldest/.installed
	NUMBA_CACHE_DIR=$(abspath $(VENV)-oldest/machine-code) \
	  $(VENV)-oldest/bin/python -m pytest -o addopts="-ra -q" -W ignore::DeprecationWarning \
	  -W ignore::PendingDeprecationWarning $(OLDEST_PART) $(PYTEST_ARGS)

test-oldest-part: OLDEST_PART = tests/common tests/formula tests/design tests/api tests/engines/test_compiled.py \
  tests/model/test_batches.py tests/model/test_saved.py tests/inference/test_influence.py tests/report/test_tables.py \
  tests/report/test_tidy.py tests/interop/test_sklearn.py tests/test_release.py \
  --ignore tests/api/test_hostile_arguments.py --ignore tests/api/test_copies.py \
  --deselect tests/engines/test_compiled.py::test_cache_that_cannot_be_read \
  --deselect tests/engines/test_compiled.py::test_disk_is_full
test-oldest-part: test-oldest

check: lint types doctest

lint: $(VENV)/.installed-test
	$(PY) -m ruff check .

types: $(VENV)/.installed-test
	$(PY) -m mypy

doctest: $(VENV)/.installed-test
	$(PY) -m pytest --doctest-modules mixlm_sparse

docs: $(VENV)/.installed-docs
	MPLBACKEND=Agg $(PY) docs/run_pages.py --figures
	$(PY) docs/make_gallery.py
	$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

release-check: $(VENV)/.installed-release
	$(PY) tools/release_check.py

# A stamp is older than pyproject.toml when the dependencies may have changed.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "mixlm_sparse needs Python 3.10 or newer; name one with: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "python venv is missing; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --editable '.[test]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-tools: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --editable '.[test-tools]'
	@touch $(VENV)/.installed $(VENV)/.installed-test $@

$(VENV)/.installed-docs: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --editable '.[docs]'
	@touch $(VENV)/.installed $(VENV)/.installed-test $(VENV)/.installed-tools $@

$(VENV)/.installed-release: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --editable '.[release]'
	@touch $(VENV)/.installed $@

$(VENV)-oldest/.installed: pyproject.toml tools/lower_bounds.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
	  || { echo "the oldest versions have wheels for Python 3.11 and 3.12: make PYTHON=python3.12 test-oldest" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)-oldest
	$(PYTHON) tools/lower_bounds.py test | grep -v -E '^(ruff|mypy)=' > $(VENV)-oldest/bounds.txt
	$(VENV)-oldest/bin/python -m pip install --quiet -r $(VENV)-oldest/bounds.txt 'pyparsing<3.1'  # that of matplotlib 3.7
	$(VENV)-oldest/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(VENV)/.installed-cholmod: tools/install_cholmod.sh | $(VENV)/.installed-test
	@bash tools/install_cholmod.sh $(PY)
	@if $(PY) -c "import sksparse.cholmod" 2>/dev/null; then touch $@; fi

clean:
	rm -rf $(VENV) $(VENV)-oldest build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
