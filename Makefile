# Commands to run and develop Trident. Python packages are installed into .venv and .venv-*. Downloaded and converted
# models go to TRIDENT_CACHE.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
MODELS ?= qwen2.5-coder-0.5b bge-small-en-v1.5 ms-marco-minilm-l-12-v2 whisper-base hibari kokoro-82m u2netp pp-ocrv6-small
# The chat model of most tests and benchmarks, which loads and responds fast.
TEST_MODEL = smollm2-135m
ARGS ?=
BENCH ?= chat
PROFILE ?= cpu
# The first suitable Python on PATH. The loop runs each candidate to check its version, because pyenv creates a command
# such as python3.12 on PATH that fails if pyenv has not activated that version.
PYTHON ?= $(shell for python in python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
	&& echo $$python && break; done)
BIN := .venv/bin
# $(call pip,BIN,ARGUMENTS) runs `pip install`. Its errors and warnings go to .venv/pip.log, which $(failed) prints.
pip = $(1)/python -m pip --disable-pip-version-check install $(2) 2> .venv/pip.log
failed = { cat .venv/pip.log >&2; exit 1; }
# $(call install,LOCK,FLAGS,BIN) installs the packages of requirements/LOCK.lock, and shows a one-line progress counter.
install = $(call pip,$(or $(3),$(BIN)),--require-hashes $(2) -r requirements/$(1).lock) | awk -v total=$$(grep -c == requirements/$(1).lock) \
	'/^Collecting/ {printf "\r  downloading package %d of %d", ++n, total; fflush()} \
	/^Installing/ {printf "\r  unpacking, up to a minute        "; fflush()} END {if (n) print ""}' || $(failed)
site_packages = $$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

.PHONY: help install serve stop export test test-all test-deploy images up test-fast lint format docs bench perf lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Variables: MODELS=\"name …\" (see .venv/bin/trident list), ARGS=\"--flag …\", PYTHON=python3.12, TRIDENT_CACHE=folder"

install: .venv/serve.stamp ## create .venv with everything needed to serve

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is required, and neither is on PATH. Install one (with its venv" \
		"module and shared library), or pass its path: make serve PYTHON=/path/to/python3.12"; exit 1; }
	@echo "trident: creating .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "Cannot create .venv. If the venv module is missing, on Debian and Ubuntu:" \
		"apt install $$(basename $(PYTHON))-venv"; exit 1; }

.venv/serve.stamp: requirements/pip.lock requirements/build.lock requirements/serve.lock requirements/swagger.lock requirements/triton.lock pyproject.toml | .venv/bin/python
	@echo "trident: installing the serving dependencies (about 400 MB)"
	@$(call install,pip)
	@$(call install,build,--no-deps)
	@$(call install,serve)
	@$(call install,swagger,--no-deps)
	@$(call pip,$(BIN),--quiet --no-deps --no-build-isolation --editable .) || $(failed)
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then $(call install,triton,--no-deps); \
		else echo "trident: Triton's wheel supports only Linux on x86-64; use --triton HOST:PORT"; fi
	@touch $@

.venv/dev.stamp: requirements/dev.lock .venv/serve.stamp
	@echo "trident: installing the test and lint dependencies"
	@$(call install,dev)
	@touch $@

# Optional: PostgreSQL as the store of the configuration, and OpenTelemetry.
.venv/gateway.stamp: requirements/gateway.lock .venv/serve.stamp
	@echo "trident: installing the drivers of PostgreSQL and OpenTelemetry"
	@$(call install,gateway)
	@touch $@

# Optional: the plot of `trident bench serve`.
.venv/plot.stamp: requirements/plot.lock .venv/serve.stamp
	@echo "trident: installing matplotlib"
	@$(call install,plot)
	@touch $@

.venv/bench.stamp: requirements/bench.lock .venv/dev.stamp
	@echo "trident: installing the benchmark dependencies"
	@$(call install,bench)
	@touch $@

.venv/kokoro.stamp: requirements/kokoro.lock .venv/serve.stamp
	@echo "trident: installing Kokoro's Chinese and Japanese dependencies"
	@$(call install,kokoro)
	@touch $@

.venv/espeak.stamp: requirements/espeak.lock .venv/kokoro.stamp
	@echo "trident: installing eSpeak NG for Kokoro's other languages"
	@$(call install,espeak)
	@touch $@

# Some conversions, voice cloning and some benchmarks need torch. Their environments share the torch in .venv-torch, so
# that it is installed only once.
.venv-torch/ready: requirements/torch.lock | .venv/bin/python
	@echo "trident: creating .venv-torch (one-time download of 3 GB)"
	@rm -rf .venv-torch && $(BIN)/python -m venv .venv-torch
	@$(call install,torch,--no-deps,.venv-torch/bin)
	@touch $@

# These environments are separate from .venv, because their dependencies conflict with the dependencies in .venv.
.venv-%/ready: requirements/%.lock .venv-torch/ready | .venv/bin/python
	@echo "trident: creating .venv-$* (one-time download of a few hundred MB)"
	@rm -rf .venv-$* && .venv-torch/bin/python -m venv .venv-$*
	@$(call install,$*,--no-deps,.venv-$*/bin)
	@echo "$(call site_packages,.venv-torch)" > "$(call site_packages,.venv-$*)/torch.pth"
	@touch $@

# Tools of benchmarks: LiteLLM's proxy, NVIDIA's perf_analyzer, and AIPerf (1.2 GB).
.venv-litellm/ready .venv-perf/ready .venv-aiperf/ready: .venv-%/ready: requirements/%.lock | .venv/bin/python
	@echo "trident: creating .venv-$*"
	@rm -rf .venv-$* && $(BIN)/python -m venv .venv-$*
	@$(call install,$*,--no-deps,.venv-$*/bin)
	@touch $@

# The packages with the code of speech recognizers are installed without their dependencies, which conversions do not need.
# They are not in .venv-openvino, because optimum would import all of them there.
.venv-asr/ready: requirements/asr.lock .venv-openvino/ready
	@rm -rf .venv-asr && .venv-torch/bin/python -m venv .venv-asr
	@$(call install,asr,--no-deps,.venv-asr/bin)
	@for name in torch openvino; do echo "$(call site_packages,.venv-$$name)"; done > "$(call site_packages,.venv-asr)/others.pth"
	@touch $@

# The package voxcpm is installed without its dependencies: what it needs for speech is in .venv-voice already.
.venv-voice/voxcpm: requirements/voxcpm.lock .venv-voice/ready
	@$(call install,voxcpm,--no-deps,.venv-voice/bin)
	@touch $@

export: install ## download and convert MODELS into the model repository
	@$(BIN)/trident export $(or $(ARGS),$(MODELS))

serve: install ## start Triton and the API on 127.0.0.1:10100 with MODELS
	@exec $(BIN)/trident serve $(MODELS) $(ARGS)

stop: install ## stop the instance that `make serve` started
	@$(BIN)/trident stop $(ARGS)

# Coverage is measured only in the test process, not in the processes that the live tests start.
COVERAGE = --cov --cov-report=term

test: lint ## lint, then test with the real Triton and real models; heavy suites run only if their inputs have changed
	@$(BIN)/trident export --engine openvino $(MODELS) $(TEST_MODEL)
	@$(BIN)/python -m pytest --skip-unchanged $(COVERAGE) $(ARGS)

test-all: lint ## like test, but run all heavy suites
	@$(BIN)/trident export --engine openvino $(MODELS) $(TEST_MODEL)
	@$(BIN)/python -m pytest $(COVERAGE) $(ARGS)

test-deploy: lint ## build and run the images in a real Docker engine (needs root, Debian's docker.io, mmdebstrap and podman)
	@$(BIN)/trident export --engine openvino $(MODELS) $(TEST_MODEL)
	@$(BIN)/python -m pytest tests/heavy/test_containers.py tests/heavy/test_compose.py tests/heavy/test_helm.py -s $(ARGS)

images: ## build the container images trident (all in one), trident-frontend and trident-triton
	@docker build -f docker/all-in-one.Dockerfile -t trident .
	@docker build -f docker/frontend.Dockerfile -t trident-frontend .
	@docker build -f docker/triton.Dockerfile -t trident-triton .

test-fast: .venv/dev.stamp ## run the tests that need no Triton (a few minutes)
	@$(BIN)/python -m pytest tests/unit tests/contract $(COVERAGE) $(ARGS)

lint: .venv/dev.stamp ## run ruff, mypy, the import rules and the documentation checks
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet . && $(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m docs.generate --check && $(BIN)/python -m docs.wording

docs: .venv/dev.stamp ## update the generated tables in the documentation
	@$(BIN)/python -m docs.generate

format: .venv/dev.stamp ## fix and format the code with ruff
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: .venv/bench.stamp ## measure the speed ratios that the project claims; BENCH=chat, encoders, transcription, speech, background, ocr, diffusion, structured, grammars, schema_prompt, fixed_scales, latency, lookup, gguf, gateway, control or cli
	@$(if $(filter encoders transcription,$(BENCH)),$(MAKE) --silent .venv-rivals/ready,true)
	@$(if $(filter gateway,$(BENCH)),$(MAKE) --silent .venv-litellm/ready,true)
	@$(BIN)/trident export --engine openvino $(MODELS) $(TEST_MODEL) $(if $(filter encoders,$(BENCH)),all-minilm-l6-v2 all-minilm-l6-v2-int8) \
		$(if $(filter transcription,$(BENCH)),whisper-base-openvino)
	@$(BIN)/python -m bench.$(BENCH) $(ARGS)

perf: .venv/bench.stamp .venv-perf/ready .venv-aiperf/ready ## measure each model and endpoint with perf_analyzer and AIPerf, into docs/benchmarks
	@$(BIN)/trident export --engine openvino $(MODELS) $(TEST_MODEL)
	@$(BIN)/python -m bench.perf $(ARGS)

up: ## build and start the containers of compose.yaml; PROFILE=cpu, gpu, gateway or monitoring
	@docker compose --profile $(PROFILE) up --build --detach --wait
	@echo "Trident serves OpenAI's API at http://127.0.0.1:$${PORT:-10100}/v1; stop: docker compose --profile $(PROFILE) down"

# The lock files of the environments that share .venv-torch omit the packages in torch.lock.
lock: .venv/dev.stamp ## update the lock files to the newest compatible versions
	@cd requirements && for name in build serve dev bench gateway frontend sbom perf aiperf plot triton pip swagger torch onnx openvino rivals kokoro espeak voice voxcpm asr gguf litellm; do leave=nothing; keep=.; \
		case $$name in triton|pip|swagger|voxcpm|asr) source=$$name.in; flags=--no-deps;; build) source=$$name.in; flags=;; \
			torch) source=torch.in; flags=; keep='torch==|torchvision==|triton==|cuda-|nvidia-';; \
			onnx|openvino|rivals|voice|gguf) source="torch.in $$name.in"; flags=; leave='torch==|torchvision==|triton==|cuda-|nvidia-';; \
			litellm|sbom|perf|aiperf) source=$$name.in; flags=;; \
			kokoro|espeak) source=$$name.in; flags="-c serve.lock";; \
			serve) source=../pyproject.toml; flags="--extra backends --extra export";; \
			dev) source=../pyproject.toml; flags="--extra backends --extra export --extra dev --extra postgres --extra tracing -c serve.lock";; \
			gateway) source=../pyproject.toml; flags="--extra backends --extra export --extra postgres --extra tracing -c serve.lock";; \
			frontend) source=../pyproject.toml; flags="--extra postgres --extra tracing -c serve.lock";; \
			plot) source=../pyproject.toml; flags="--extra backends --extra export --extra plot -c serve.lock";; \
			bench) source=../pyproject.toml; flags="--extra backends --extra export --extra bench -c serve.lock";; esac; \
		../$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
			--no-annotate --no-header --upgrade $$flags $$source | \
		awk -v keep="^($$keep)" -v leave="^($$leave)" '/^[a-z]/ {on = $$0 ~ keep && $$0 !~ leave} on' > $$name.new \
			&& mv $$name.new $$name.lock || exit 1; done

clean: ## remove the virtual environments and tool caches; keeps TRIDENT_CACHE
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .coverage
