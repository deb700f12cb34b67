# Long trials on demand; `make help` lists them. Short ones are part of the tests.
PYTHON ?= .venv/bin/python
KILLS ?= 200
TRIALS ?= 50

.PHONY: help soak signals equivalence
help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/  /'
soak: ## kill runs at random moments KILLS times, compare them bit by bit
	$(PYTHON) tests/soak/kills.py --kills $(KILLS) --out benchmarks/results/soak.json
signals: ## the signal matrix, TRIALS for each signal and target
	$(PYTHON) tests/soak/signals.py --trials $(TRIALS) --out benchmarks/results/signals.json
equivalence: ## gradients of one optimiser step over topologies
	$(PYTHON) tests/soak/equivalence.py --out benchmarks/results/equivalence.json
