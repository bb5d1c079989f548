# The project's verbs. Everything is installed into .venv; nothing else is touched, but for `make test`, which asks
# apt for the servers that the tests want, where apt is and may be asked.

PYTHON ?= python3
DATASET ?= digits
ROUNDS ?= 200
BIN = .venv/bin
INSTALLED = .venv/.installed

.PHONY: demo test serve lint bench bench-steps bench-scaling bench-accuracy bench-load soak fuzz test-containers openapi install servers clean

demo: install
	$(BIN)/python -m client.demo --dataset $(DATASET)

test: install servers lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

serve: install
	$(BIN)/dream serve

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

# One inner iteration by part, beside a plain implementation: minutes. `make bench QUICK=1`: less than one, keeps nothing.
bench: install
	$(BIN)/python benchmarks/inner_iteration.py $(if $(QUICK),--quick)

# The first steps of a run, as they come.
bench-steps: install
	$(BIN)/python benchmarks/first_steps.py --dataset $(DATASET) --method idc --ipc 1 --steps 20 --no-evaluation
	$(BIN)/python benchmarks/first_steps.py --dataset $(DATASET) --method dream --ipc 1 --steps 20 --no-evaluation

# How seconds and memory grow with each size alone: ten minutes.
bench-scaling: install
	$(BIN)/python benchmarks/scaling.py

# Every method at a budget for CPUs: up to two hours on two cores. What is kept in benchmarks/results is not run again.
bench-accuracy: install
	$(BIN)/python benchmarks/accuracy.py

# The API under load, with 100,000 jobs in the table, on SQLite and on PostgreSQL: a quarter of an hour.
bench-load: install servers
	$(BIN)/python benchmarks/load.py

# Kills what can be killed at random moments, round after round; fails if a job is lost, doubled, or has other bytes.
soak: install servers
	$(BIN)/python benchmarks/soak.py --rounds $(ROUNDS)

# Thousands of requests that nobody has thought of.
fuzz: install servers
	$(BIN)/python -m tests.contract.fuzz

# The images built and the whole stack run, hurt, stopped and upgraded: minutes, on any Docker engine, or as root on
# Debian. Says what it saw; skipped where it cannot be.
test-containers: install
	$(BIN)/python -m tests.containers

# The description of the API that the tests compare with.
openapi: install
	$(BIN)/python -m api.openapi > docs/openapi.json

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

# Without these the tests that need them are skipped, and say so.
servers:
	@sh tests/servers.sh

clean:
	rm -rf .venv demo-output .pytest_cache .ruff_cache .hypothesis
