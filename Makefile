# Everything a contributor types. Each target first brings about what it needs: a virtual environment with the
# package in it, a container engine, and the images that tests start. Where that is there, it costs under a second.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PYTHONS ?= $(PYTHON)
# Tests mostly wait for the engine, so more workers than cores pay.
WORKERS ?= 4

# Tests run pytest in pytest, which would compile all of its plugins each time: half of their time.
unexport PYTHONDONTWRITEBYTECODE

python := $(VENV)/bin/python
environment := .make/$(VENV).installed
peers := .make/peers
foreign := .make/foreign.installed

# A worker that has nothing left takes tests of the others: some take a thousand times as long as most.
workers := -n $(WORKERS) --dist worksteal

# A test runs once more for what it depends on: what goes over a connection on the other link, what an engine does on the other engine.
of_links := -o 'testpaths=tests/engine/test_*.py tests/engine/capture tests/engine/traffic tests/hostile'
of_engines := -o 'testpaths=tests/engine/test_*.py tests/engine/containers tests/engine/trust tests/hostile'

# The agent runs in the sidecar, and the descriptor link on Linux alone; a branch that is Linux's is unreachable. Its cache is
# its own: in one, each of the two platforms would discard what the other has left, and check every module anew.
on_darwin := --cache-dir .mypy_cache/darwin --follow-imports silent --exclude '/(agent|descriptor\.py|rendezvous\.py)' --no-warn-unreachable --no-warn-unused-ignores

.DEFAULT_GOAL := help
.PHONY: help demo test unit stream mac proof podman lint format docs dist bench fuzz autobahn soak foreign mutants environment engine images clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20
	@echo 'Variables: PYTHON=$(PYTHON) VENV=$(VENV) WORKERS=$(WORKERS) ARGS="arguments of pytest or the benchmark"'

demo: engine ## watch a container's traffic being answered
	@$(python) scripts/ensure_images.py clients
	$(python) examples/demo.py

test: lint images ## lint, and run the tests: make test ARGS="-k name"
	$(python) -m pytest $(workers) $(ARGS)

unit: environment ## run the tests of modules, which need no engine, but for those that take seconds
	$(python) -m pytest $(workers) -m 'not slow' tests/unit $(ARGS)

stream: images ## run the tests of what goes over a connection, over the stream link
	PYTEST_EGRESS_LINK=stream $(python) -m pytest $(workers) -m 'engine and not one_link' $(of_links) $(ARGS)

# Each kind of traffic has a file, and so have start, exec and ports; what names the descriptor link has nothing to say here.
of_mac := tests/engine/test_names.py $(addprefix tests/engine/containers/test_, containers.py stop.py) \
	$(addprefix tests/engine/traffic/test_, probes.py raw_errors.py faults_raw.py faults_http.py relay.py grpc.py websockets.py \
	http2_clients.py starttls.py datagrams.py) \
	$(addprefix tests/hostile/test_death.py::test_, nothing_is_left_of_a_run_that_was_killed \
	a_worker_of_xdist_that_is_killed_fails_its_test_and_no_other)

mac: images ## run tests of containers in a process that sees what macOS has
	PYTHONPATH=$(CURDIR)/tests/support/mac EGRESS_PORTABLE=1 PYTEST_EGRESS_SIDECAR_IMAGE=pytest-egress-test/python \
		$(python) -m pytest $(workers) -k 'not descriptor' tests/support/mac/proof.py $(of_mac) $(ARGS)

proof: ## run tests of containers on a Mac, which starts an engine where none answers
	scripts/prove-mac $(PYTHON)

podman: images ## run the tests of what an engine does, on Podman
	scripts/with-podman $(python) $(python) -m pytest $(workers) -m 'engine and not docker' $(of_engines) $(ARGS)

lint: environment ## check style and types
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy
	$(python) -m mypy --platform darwin $(on_darwin) pytest_egress

format: environment ## put the code into its form
	$(python) -m ruff check --fix-only .
	$(python) -m ruff format .

# The variable keeps the theme's advertisement for its successor out of the output.
docs: environment ## build the site into build/site; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(python) -m mkdocs build --strict $(ARGS)

dist: engine ## build what is published, into dist, and try it: make dist TAG=v1.2.3 PYTHONS="python3.10 python3.13"
	rm -rf dist
	$(python) -m build
	$(python) -m twine check --strict dist/*
	@test -z '$(TAG)' || test -f dist/pytest_egress-$(TAG:v%=%).tar.gz || { echo "$(TAG) is not the version in pyproject.toml"; exit 1; }
	scripts/check-dist dist $(PYTHONS)

bench: images ## compare with plain docker run, other servers and bare ones: make bench ARGS=growth, ARGS="compare REF"
	@PYTHON=$(python) scripts/ensure-peers $(peers)
	$(python) -m benchmarks $(ARGS)

fuzz: environment ## feed the parsers random bytes: make fuzz ARGS="60 1000000", seconds for each, requests without h11
	$(python) -m tests.hostile.fuzz $(ARGS)

autobahn: environment ## run all cases of the Autobahn test suite for WebSockets, in a quarter of an hour
	$(python) -m tests.hostile.autobahn $(ARGS)

soak: images ## kill runs at random moments and count what is left: make soak ARGS=20
	$(python) -m tests.hostile.soak $(ARGS)

foreign: engine $(foreign) ## compare other people's suites through routes and without: make foreign ARGS=requests
	@$(python) scripts/ensure_images.py $(CURDIR)/tests/foreign/images/foreign
	.venv-foreign/bin/python -m tests.foreign $(ARGS)

mutants: environment ## find changes of a module that its tests do not notice: make mutants ARGS="MODULE TEST..."
	$(python) scripts/mutants.py $(ARGS)

environment: $(environment) ## the virtual environment, with the package in it
engine: environment ## a container engine that answers
	@scripts/ensure-engine $(python)
	@scripts/ensure-compose
	@scripts/ensure-commands
images: engine ## the images that the tests start
	@$(python) scripts/ensure_images.py

$(VENV)/pyvenv.cfg:
	scripts/ensure-venv $(PYTHON) $(VENV)

# pip 25.1 is the first that installs dependency groups.
$(environment): $(VENV)/pyvenv.cfg pyproject.toml
	$(python) -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(python) -m pip install --quiet --disable-pip-version-check --editable . --group test --group lint --group docs
	@mkdir -p $(@D) && touch $@

# In an environment of its own: nothing of it is a dependency of the tests.
$(foreign): $(environment)
	scripts/ensure-venv $(PYTHON) .venv-foreign
	.venv-foreign/bin/python -m pip install --quiet --disable-pip-version-check --editable . 'httpbin>=0.10'
	@mkdir -p $(@D) && touch $@

clean: ## remove what these targets made here; the engine and its images stay
	rm -rf .venv .venv-* .make dist build .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
