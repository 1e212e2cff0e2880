# One environment, .venv. `make demo` needs only python3 and make; `make test` sets up the rest.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# The versions that CI passed with. Without them a bare "torch" brings several GB of CUDA.
INSTALL := $(PIP) install --constraint constraints.txt
PYTHONS ?= python3.10 python3.12 python3.13
CLIPS := benchmarks/clips
DEMO_SOURCE := $(CLIPS)/demo_blurred.mp4
INT8 := runtime/models/edge-s_int8_cpu.onnx
PLANES := runtime/models/edge-s_int8_cpu_yuv420.onnx
FP32 := runtime/models/edge-s_fp32.onnx
LARGER := runtime/models/edge-m_int8_cpu.onnx runtime/models/edge-l_int8_cpu.onnx
# `make bench SHORT=1` runs all its commands in minutes, to see that they work; its figures mean nothing.
ifdef SHORT
BENCH ?= out/bench-short
QUALITY_LOAD :=
LATENCY_LOAD := --size 64x48 --min-queries 2 --min-duration 0 --warm-up 0
SCALING_LOAD := --size 64x48 --sizes 64x48 128x96 --min-queries 2 --min-duration 0
PEERS_LOAD := --size 320x180 --duration 0.1
JOBS_LOAD := --network edge-s --rounds 1
else
BENCH ?= out/bench
QUALITY_LOAD := --engine $(FP32) $(LARGER:%=--engine %) --classical
LATENCY_LOAD := --min-queries 256
SCALING_LOAD := --min-duration 1
endif

.PHONY: help setup setup-dev demo web test test-all lint format docs reliability constraints wheel-check bench gpu-check clean

help: ## list of the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1: /' | column -t -s ':'

setup: .venv/runtime.done ## install the runtime alone, without torch

setup-dev: .venv/dev.done ## install everything that training, export, benchmarks and tests need

# opencv-python needs libGL, which servers and containers lack; its headless twin does not.
define usable_opencv
@$(BIN)/python -c "import cv2" 2>/dev/null || { \
	echo "no libGL here: installing OpenCV without windows (no --show)"; \
	$(PIP) uninstall --yes opencv-python && $(PIP) install --force-reinstall --no-deps opencv-python-headless; }
endef

.venv/bin/python:
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "error: no venv module; on Debian: apt install python3-venv" >&2; exit 1; }

.venv/runtime.done: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable .
	$(usable_opencv)
	touch $@

.venv/dev.done: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) torch
	$(INSTALL) --editable ".[dev]"
	$(usable_opencv)
	touch $@ .venv/runtime.done .venv/web.done

.venv/web.done: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable ".[web]"
	$(usable_opencv)
	touch $@

demo: setup ## restore a blurred clip with the bundled engine: out/demo.mp4
	$(BIN)/python -m runtime.video -y --source $(DEMO_SOURCE) --out out/demo.mp4 --stats out/demo.json
	$(BIN)/python -m runtime.video -y --source $(DEMO_SOURCE) --out out/demo_side_by_side.mp4 --side-by-side
	$(BIN)/python -m benchmarks.quality --blurred $(DEMO_SOURCE) --restored out/demo.mp4 --sharp $(CLIPS)/demo_sharp.mp4
	@echo "watch out/demo_side_by_side.mp4: blurred on the left, restored on the right"

web: .venv/web.done ## the upload page, which restores images and clips: http://127.0.0.1:8501
	$(BIN)/python -m runtime.web

# Three runs: the runtime without torch, as on a device; the benchmarks apart, because after torch.compile has run
# a process dies of the next signal that it should handle. Each run in two processes, with one thread of torch each: many
# tests wait for a server or a program, and more threads than cores wait for each other.
test: export OMP_NUM_THREADS = 1
test: setup-dev ## run every test but the slow ones
	$(BIN)/python -m pytest --numprocesses 2 tests/runtime
	$(BIN)/python -m pytest --numprocesses 2 tests --ignore tests/runtime --ignore tests/benchmarks
	$(BIN)/python -m pytest --numprocesses 2 tests/benchmarks

test-all: setup-dev ## run every test, with the slow ones and an hour of network faults
	$(BIN)/python -m pytest -m "" tests/runtime
	$(BIN)/python -m pytest -m "" tests --ignore tests/runtime --ignore tests/benchmarks
	$(BIN)/python -m pytest -m "" tests/benchmarks

reliability: setup-dev ## run the tests of faults and write their results into docs/reliability.md
	$(BIN)/python -m pytest tests/runtime -m "fault and not soak" --write-reliability

lint: setup-dev ## check style, types, spelling and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files -z | xargs -0 $(BIN)/codespell
	$(BIN)/lint-imports

format: setup-dev ## apply the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup-dev ## build the documentation site: out/site/index.html
	$(BIN)/python docs/generate_cli.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

constraints: setup-dev ## write constraints.txt from the versions in .venv
	$(BIN)/python .ci/write_constraints.py
	touch .venv/runtime.done .venv/dev.done .venv/web.done

wheel-check: setup-dev ## try the wheel in clean environments: runtime on each of PYTHONS, export on the Python of .venv
	.ci/check_wheel.sh --export $(BIN)/python $(PYTHONS)

bench: setup-dev ## measure cost and quality of the bundled engines and of baselines: out/bench/report.html (SHORT=1: only try it)
	$(BIN)/python -m benchmarks.quality --blurred $(DEMO_SOURCE) --sharp $(CLIPS)/demo_sharp.mp4 \
		--engine $(INT8) $(QUALITY_LOAD) --json $(BENCH)/quality.json
	$(BIN)/python -m benchmarks.latency --engine $(INT8)@openvino --engine $(INT8)@cpu --engine $(PLANES)@openvino \
		--engine $(PLANES)@cpu --engine $(FP32)@openvino --engine $(FP32)@cpu $(LARGER:%=--engine %@cpu) \
		$(LATENCY_LOAD) --json $(BENCH)/latency.json
	$(BIN)/python -m benchmarks.scaling $(SCALING_LOAD) --json $(BENCH)/scaling.json
	$(BIN)/python -m benchmarks.peers --generator edge $(PEERS_LOAD) --json $(BENCH)/peers_edge.json
	$(BIN)/python -m benchmarks.peers --generator two_stage_cnn $(PEERS_LOAD) --json $(BENCH)/peers_two_stage_cnn.json
	$(BIN)/python -m benchmarks.peers.vs_mlrt $(JOBS_LOAD) --json $(BENCH)/file_jobs.json
	$(BIN)/python -m benchmarks.report $(BENCH) --out $(BENCH)

gpu-check: ## build, run and measure plans on an NVIDIA GPU, in the .venv of docs/jetson.md or setup: out/gpu-check
	@test -x $(BIN)/python || { echo "error: no .venv here; make it as docs/jetson.md says, or with make setup" >&2; exit 4; }
	$(BIN)/python -m benchmarks.gpu_check

clean: ## remove the environment and all output
	rm -rf .venv out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
