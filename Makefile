# What a newcomer types. Set-up happens by itself, into $(VENV), from the lock files; .ci/setup says what is missing.
#   PYTHON=python3.12   the interpreter to set up with (3.11 or newer; default: the newest suitable python3)
#   VENV=.venv          where; an environment that happens to be active is left alone
#   WORKERS=2           how many processes share the suite; 0: it runs in one (--pdb wants that)
#   ARGS="..."          more words for the command (make demo ARGS=--keep, make test ARGS="-k dhcp")

VENV ?= .venv
ARGS ?=
WORKERS ?= 2
export PYTHON VENV
RUN := sh .ci/owned
PYTEST := $(VENV)/bin/python .ci/in_namespaces.py $(VENV)/bin/pytest
SHARED := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help demo demo-vm test test-long fuzz soak bench bench-peers lock clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.ready-run ## a playground on three emulated hosts: up, checked, a workspace moved under traffic, down
	@$(RUN) $(VENV)/bin/playground demo $(ARGS)

demo-vm: $(VENV)/.ready-test ## examples/machines.yaml for real: virtual machines on three emulated hosts, one moved live, down (as root)
	@$(RUN) $(VENV)/bin/python .ci/demo_vm.py $(ARGS)

test: $(VENV)/.ready-test ## ruff, mypy, and the whole suite; as root or not
	@status=0; \
	$(RUN) $(VENV)/bin/ruff check . || status=1; \
	$(RUN) $(VENV)/bin/ruff format --check --quiet . || { echo "run: $(VENV)/bin/ruff format ."; status=1; }; \
	$(RUN) $(VENV)/bin/mypy || status=1; \
	$(RUN) $(PYTEST) -m "not long" $(SHARED) $(ARGS) || status=1; \
	exit $$status

test-long: $(VENV)/.ready-test ## what takes minutes
	@$(RUN) $(PYTEST) -m long $(ARGS)

fuzz: $(VENV)/.ready-test ## every door (files, API, agents, controllers, DHCP, names) for SECONDS=600; what breaks one is kept in tests/fuzz/corpus
	@$(RUN) $(VENV)/bin/python tests/fuzz/long.py --seconds $(or $(SECONDS),600) $(ARGS)

soak: $(VENV)/.ready-test ## a site worked, killed and made to drift under traffic for HOURS=2
	@$(RUN) env SOAK_S=$$(awk 'BEGIN {print $(or $(HOURS),2) * 3600}') $(PYTEST) tests/soak $(ARGS)

bench: $(VENV)/.ready-test ## every figure of docs/performance.md, and the page itself; some 15 minutes on a quiet machine
	@for script in benchmarks/bench_*.py; do \
		$(RUN) $(VENV)/bin/python .ci/in_namespaces.py $(VENV)/bin/python "$$script" $(ARGS) || exit 1; \
	done
	@$(RUN) $(VENV)/bin/python benchmarks/page.py

bench-peers: $(VENV)/.ready-test ## as root: OVN, FRR and etcd from Debian, none of them started; then bench, with them beside us
	@sh benchmarks/install-peers
	@$(VENV)/bin/pip install --quiet grpcio
	@$(MAKE) --no-print-directory bench

lock: $(VENV)/.ready-test ## resolve the lock files anew, from PyPI alone
	@sh .ci/lock

clean: ## the environment and every cache
	rm -rf $(VENV) build dist *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.ready-run: requirements.lock pyproject.toml
	@sh .ci/setup run

$(VENV)/.ready-test: requirements-test.lock pyproject.toml
	@sh .ci/setup test
