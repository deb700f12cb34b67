# Long trials on demand; `make help` lists them. Short ones are part of the tests.
PYTHON ?= .venv/bin/python
BIN = $(dir $(PYTHON))
KILLS ?= 200
TRIALS ?= 50

.PHONY: help build train-ddp test lint demo compose-config monitor soak signals equivalence
help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/  /'
build: ## the image (scripts/build.sh)
	scripts/build.sh
train-ddp: ## train in a container; DATA_PATH GPUS GPUS_IDS BATCH EPOCHS CONFIG RESUME DETACH=1
	scripts/train_ddp_docker.sh $(if $(DATA_PATH),--data-path "$(DATA_PATH)") $(if $(GPUS),--num-gpus $(GPUS)) \
		$(if $(GPUS_IDS),--gpus $(GPUS_IDS)) $(if $(BATCH),--batch-size $(BATCH)) $(if $(EPOCHS),--epochs $(EPOCHS)) \
		$(if $(CONFIG),--config "$(CONFIG)") $(if $(RESUME),--resume "$(RESUME)") $(if $(DETACH),--detach)
test: ## all checks that need neither GPU nor Docker
	scripts/run.sh test
lint: ## format, types, import arrows; no tests
	$(BIN)ruff check . && $(BIN)ruff format --check . && $(BIN)lint-imports && $(BIN)mypy
demo: ## what scripts/run.sh demo shows
	scripts/run.sh demo
compose-config: ## the services as Compose reads them
	docker compose --profile "*" config
monitor: ## what the GPUs and the runs are doing
	scripts/run.sh monitor
soak: ## kill runs at random moments KILLS times, compare them bit by bit
	$(PYTHON) tests/soak/kills.py --kills $(KILLS) --out benchmarks/results/soak.json
signals: ## the signal matrix, TRIALS for each signal and target
	$(PYTHON) tests/soak/signals.py --trials $(TRIALS) --out benchmarks/results/signals.json
equivalence: ## gradients of one optimiser step over topologies
	$(PYTHON) tests/soak/equivalence.py --out benchmarks/results/equivalence.json
