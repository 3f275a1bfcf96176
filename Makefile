# `make install` and `make test` need nothing but Python 3.11 or later; both install into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
WORKERS ?= auto

# What meets the libraries below ours: the engines, the decoding, the command line.
LOWEST_TESTS := tests/transport/test_transport.py tests/transport/test_bounds.py \
  tests/transport/test_proxies.py tests/transport/test_engine.py \
  tests/transport/test_aiohttp_names.py tests/streaming \
  tests/providers/test_generators.py tests/cli/test_cli.py tests/tree/test_mcp.py \
  tests/testing tests/client/test_otel.py

TEST_TOOLS := hypothesis pytest pytest-asyncio pytest-timeout pytest-xdist
# What docs/testing.md says of other packages, in tests/testing/test_other_packages.py.
RECORDERS := aioresponses pytest-httpserver respx vcrpy

.DEFAULT_GOAL := help
.PHONY: help install chat test lowest newest check mutants types docs dist trial sbom audit workflows soak bench \
  format map presets requirements

help:  ## Show what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

install: $(VENV)/program  ## Install the library and its command line into .venv

chat: $(VENV)/program  ## Install, and chat with a local model; no key needed
	$(BIN)/minillmlib chat "What is the capital of France?"

test: $(VENV)/develop  ## Install what the tests need, and run all of them
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lowest: $(VENV)/lowest/installed  ## Test with the lowest versions that pyproject.toml allows
	$(VENV)/lowest/bin/python -m pytest -n $(WORKERS) --dist worksteal -q -p no:warnings -m "not long" \
	  $(LOWEST_TESTS)

newest:  ## Test with the newest aiohttp and msgspec, also not final ones, with mcp and recorders
	$(PYTHON) -m venv --clear $(VENV)/newest
	$(VENV)/newest/bin/pip install --quiet --disable-pip-version-check $(TEST_TOOLS) $(RECORDERS) opentelemetry-sdk \
	  --editable '.[cli,httpx,prices,mcp,otel]'
	$(VENV)/newest/bin/pip install --quiet --disable-pip-version-check --upgrade --pre \
	  aiohttp msgspec
	$(VENV)/newest/bin/python -m pytest -n $(WORKERS) --dist worksteal -q -p no:warnings \
	  -m "not long" $(LOWEST_TESTS)

check: $(VENV)/develop  ## The daily loop: format, lint, types, imports, all but the long tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q -m "not long"

mutants: $(VENV)/develop  ## Break the library at random places, and list the breaks that no test sees
	$(BIN)/python tools/mutants.py $(MUTANTS)

types: $(VENV)/develop $(VENV)/tools/installed  ## The types that users see, with pyright
	$(BIN)/python tools/check_types.py $(VENV)/tools/bin/basedpyright

dist: $(VENV)/tools/installed  ## Build the sdist and the wheel twice, compare and check them
	$(VENV)/tools/bin/python tools/build_dist.py
	$(VENV)/tools/bin/twine check --strict dist/*.whl dist/*.tar.gz

trial: dist  ## Install each form of the package, with its newest and lowest versions, and use it
	for form in dist/*.whl dist/*.tar.gz; do for versions in '' '-c requirements/lowest.txt'; do \
	  $(PYTHON) -m venv --clear $(VENV)/trial && \
	  $(VENV)/trial/bin/pip install --quiet --disable-pip-version-check $$versions $$form && \
	  $(VENV)/trial/bin/python -I tools/try_package.py && \
	  $(VENV)/trial/bin/python -I examples/agent.py && \
	  $(VENV)/trial/bin/python -I examples/custom_wire.py || exit 1; done; done

sbom: dist  ## Write what is installed with the package into dist/minillmlib.cdx.json
	$(PYTHON) -m venv --clear --without-pip $(VENV)/trial
	$(VENV)/tools/bin/python -m pip --python $(VENV)/trial/bin/python install --quiet \
	  --disable-pip-version-check dist/*.whl
	@# cyclonedx-py reads no version that is dynamic.
	version=$$($(VENV)/trial/bin/python -c "import minillmlib; print(minillmlib.__version__)") && \
	  sed "s/^dynamic = .*/version = \"$$version\"/" pyproject.toml > $(VENV)/trial/pyproject.toml
	$(VENV)/tools/bin/cyclonedx-py environment --pyproject $(VENV)/trial/pyproject.toml \
	  --output-reproducible --validate --output-file dist/minillmlib.cdx.json $(VENV)/trial/bin/python

audit: $(VENV)/tools/installed  ## Look all pinned versions up among known vulnerabilities
	for file in dev tools; do \
	  $(VENV)/tools/bin/pip-audit --strict --require-hashes --disable-pip \
	  -r requirements/$$file.txt || exit 1; \
	done

workflows: $(VENV)/tools/installed  ## Check the workflows, without a network
	$(VENV)/tools/bin/zizmor --offline --persona pedantic .github

docs: $(VENV)/docs/installed  ## Build the site into site/, strictly; it is read without a network
	$(VENV)/docs/bin/python tools/build_docs.py

soak: $(VENV)/develop  ## Long runs: open streams, a million calls with faults, a million rows, kills, Ray
	$(BIN)/python benchmarks/open_streams.py
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/bulk_rows.py
	$(BIN)/python benchmarks/bulk.py
	$(BIN)/python benchmarks/bulk.py --kill
	MINILLMLIB_RUN_KILLS=20 $(BIN)/python -m pytest -q tests/bulk -k kills
	$(PYTHON) -m venv --clear $(VENV)/ray
	$(VENV)/ray/bin/pip install --quiet --disable-pip-version-check $(TEST_TOOLS) pydantic --editable '.[ray]'
	$(VENV)/ray/bin/python -m pytest -q tests/workers/test_ray.py
	$(VENV)/ray/bin/python benchmarks/ray_rows.py

bench:  ## Measure beside other libraries, each in an environment of its own: about an hour
	$(PYTHON) benchmarks/run.py $(BENCH)

format: $(VENV)/develop  ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

map:  ## Draw the map of the rooms in CONTRIBUTING.md from the imports
	$(PYTHON) tools/room_map.py

presets: $(VENV)/develop  ## Write the table of presets into docs/providers.md
	$(BIN)/python tools/preset_table.py

requirements: $(VENV)/develop  ## Pin the development tools anew
	$(BIN)/pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --upgrade --strip-extras --generate-hashes --allow-unsafe \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	  --output-file requirements/dev.txt requirements/dev.in
	$(BIN)/pip-compile --quiet --upgrade --strip-extras --generate-hashes --allow-unsafe \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	  --output-file requirements/tools.txt requirements/tools.in
	$(BIN)/pip-compile --quiet --upgrade --strip-extras --generate-hashes --allow-unsafe \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	  --output-file requirements/docs.txt requirements/docs.in

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(VENV)/program: $(VENV)/pyvenv.cfg pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[cli,local]'
	@touch $@

$(VENV)/lowest/installed: $(VENV)/pyvenv.cfg pyproject.toml requirements/lowest.txt
	$(PYTHON) -m venv --clear $(VENV)/lowest
	$(VENV)/lowest/bin/pip install --quiet --disable-pip-version-check -r requirements/lowest.txt \
	  --editable '.[cli,httpx,prices,otel]'
	@touch $@

$(VENV)/tools/installed: $(VENV)/pyvenv.cfg requirements/tools.txt
	$(PYTHON) -m venv --clear $(VENV)/tools
	$(VENV)/tools/bin/pip install --quiet --disable-pip-version-check --require-hashes \
	  -r requirements/tools.txt
	@touch $@

$(VENV)/docs/installed: $(VENV)/pyvenv.cfg requirements/docs.txt
	$(PYTHON) -m venv --clear $(VENV)/docs
	$(VENV)/docs/bin/pip install --quiet --disable-pip-version-check --require-hashes \
	  -r requirements/docs.txt
	@touch $@

$(VENV)/develop: $(VENV)/pyvenv.cfg pyproject.toml requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@# A server for the tests that is not ours; without npm those tests are skipped.
	@command -v npm >/dev/null && npm install --silent --ignore-scripts --no-audit --no-save \
	  --no-package-lock --prefix $(VENV)/aimock @copilotkit/aimock@1.43.0 \
	  || echo "aimock is not installed: tests/protocols/test_second_server.py will be skipped"
	@touch $@
