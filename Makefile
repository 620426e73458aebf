# Each target sets up what it needs in .venv, once. Another Python: PYTHON=python3.12 make demo
PYTHON ?= python3
UV ?= uv
# Processes that tests run in; each takes up to 3 GB.
JOBS ?= 2

BIN := .venv/bin
STUDY := $(BIN)/snakemake --configfile config/demo.yaml

# Rules that call `python` or `phasescope` find this environment's.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
# Every job would compile what it imports anew.
unexport PYTHONDONTWRITEBYTECODE

# The lock is complete, so pip need not resolve (--no-deps), and `pip check` proves it afterwards.
# Wheels only: a source build would fetch unpinned build tools. connection-pool has no wheel;
# setuptools from the lock, installed first, builds it. Byte-compiling all would double the time.
# Quiet twice: errors only, no warnings about a machine's own pip configuration.
INSTALL := $(BIN)/python -m pip install --quiet --quiet
CHECK = problems=$$($(BIN)/python -m pip check) || { echo "$$problems"; exit 1; }
LOCKED := --require-hashes --no-deps --only-binary :all: --no-binary connection-pool \
	--no-build-isolation --no-compile
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-build-options \
	--no-annotate --no-header $(if $(UPGRADE),--upgrade)

.PHONY: help setup demo test calibrate organisms bench-blas bench-quantize bench-probe bench-sweep \
	bench-grades bench-scale chaos gguf test-gguf test-slurm test-s3 lock clean

help:  ## show this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

setup: .venv/run.stamp  ## install what a run needs into .venv

demo: .venv/run.stamp  ## run the demonstration study (minutes) and say where its report is
	@echo "== Running the demonstration study"
	@$(STUDY)
	@echo "== Report: reports/demo/index.html"

test: .venv/test.stamp  ## run every test, linter and format check
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-gguf: .venv/test.stamp .gguf/stamp  ## convert organisms with llama.cpp, run and grade them there, measure edits
	@$(BIN)/python -m pytest tests/gguf

gguf: .gguf/stamp  ## build llama.cpp and an environment for its converter in .gguf, once (minutes)

calibrate: .venv/run.stamp  ## train fresh organisms, run everything, say how often verdicts are right (hours)
	@$(BIN)/snakemake --configfile config/calibration.yaml
	@$(BIN)/snakemake --configfile config/controls.yaml

organisms: .venv/run.stamp  ## train the shipped organisms again, each from its recipe and seed
	@for recipe in resources/organisms/recipes/*.yaml resources/organisms/recipes/controls/*.yaml; do \
	    name=$$(basename "$$recipe" .yaml); shipped=$${recipe%.yaml}; \
	    shipped="resources/organisms/$${shipped#resources/organisms/recipes/}"; \
	    seed=$$($(BIN)/python -c "import json; print(json.load(open('$$shipped/organism.json'))['seed'])"); \
	    echo "== Training $$name, seed $$seed"; \
	    $(BIN)/phasescope train "$$recipe" "$$shipped.new" --seed "$$seed" || exit 1; \
	    rm -rf "$$shipped" && mv "$$shipped.new" "$$shipped" || exit 1; \
	done

bench-blas: .venv/run.stamp  ## compare mlx's matrix product with and without the fast BLAS
	@$(BIN)/python benchmarks/bench_blas.py

bench-quantize: .venv/run.stamp  ## compare memory and time of quantization with mlx_lm.convert
	@$(BIN)/python benchmarks/bench_quantize.py

bench-probe: .venv/test.stamp  ## compare recording with a plain pass, with torch hooks and with nnsight
	@$(BIN)/python benchmarks/bench_probe.py $(if $(NNSIGHT),--nnsight $(NNSIGHT))

bench-sweep: .venv/test.stamp  ## compare first-token sweeps with one setting at a time, with heretic and with torch hooks
	@$(BIN)/python benchmarks/bench_sweep.py $(if $(HERETIC),--heretic $(HERETIC))

bench-grades: .venv/run.stamp  ## how often grades are right on fresh organisms, keyword grades beside (SEEDS="1 2")
	@$(BIN)/python benchmarks/bench_grades.py $(SEEDS)

bench-scale: .venv/test.stamp  ## growth of planning, collecting and reporting with the cells (CELLS="10 100")
	@$(BIN)/python benchmarks/bench_scale.py $(if $(CELLS),--cells $(CELLS))

chaos: .venv/test.stamp  ## kill a small study 30 times at random, compare with an undisturbed run (SEED=1 KILLS=30)
	@$(BIN)/python tests/chaos/chaos.py --kills $(or $(KILLS),30) --seed $(or $(SEED),0)

test-slurm: .venv/test.stamp  ## the small study on a real Slurm of this machine (Debian's packages), against a local run
	@$(INSTALL) -r requirements/cluster.txt
	@$(BIN)/python tests/slurm/study.py

test-s3: .venv/test.stamp  ## the small study with its results in a bucket of a local S3 server, against a local run
	@$(INSTALL) -r requirements/cluster.txt -r requirements/s3-test.txt
	@$(BIN)/python tests/s3/study.py

lock:  ## recompile requirements/*.txt, keeping pins where possible (UPGRADE=1: newest)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv (pip install uv), or UV=/path/to/uv"; exit 1; }
	@$(COMPILE) pyproject.toml -o requirements/run.txt >/dev/null
	@$(COMPILE) --group test -c requirements/run.txt -o requirements/test.txt >/dev/null
	@echo "== Compiled requirements/run.txt and requirements/test.txt"

clean:  ## remove the demonstration's results and report
	@rm -rf results/demo reports/demo

.venv/run.stamp: requirements/run.txt pyproject.toml setup.py workflow/phasescope/_fast_blas.c
	@$(PYTHON) -c 'import sys; v = sys.version_info; ok = (3, 11) <= v < (3, 14); \
	    ok or print("Phasescope needs Python 3.11 to 3.13, found %d.%d" % v[:2] \
	        + " ($(PYTHON)). Another one: PYTHON=python3.12 make"); sys.exit(not ok)'
	@# An interrupted set-up can leave an environment without pip: make it again.
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	    echo "== Creating .venv with $(PYTHON)"; \
	    $(PYTHON) -m venv .venv || { echo "Debian and Ubuntu: apt install python3-venv"; exit 1; }; }
	@echo "== Installing the locked packages (about 1 GB; minutes the first time)"
	@sed -n '/^setuptools==/,/[^\\]$$/p' requirements/run.txt > .venv/setuptools.txt
	@$(INSTALL) $(LOCKED) -r .venv/setuptools.txt
	@$(INSTALL) $(LOCKED) -r requirements/run.txt
	@echo "== Installing phasescope"
	@$(INSTALL) --no-build-isolation --no-deps --editable .
	@$(CHECK)
	@touch $@

.venv/test.stamp: .venv/run.stamp requirements/test.txt requirements/torch.txt
	@echo "== Installing the test packages"
	@$(INSTALL) $(LOCKED) -r requirements/test.txt
	@echo "== Installing torch"
	@$(INSTALL) -r requirements/torch.txt
	@$(CHECK)
	@touch $@

# llama.cpp's converter, quantizer and server from one source: the copy in a package's source
# archive, since its own releases are on no registry. pip asks the archive for its metadata and
# fetches a build tool for that; nothing of the package is installed. Not for this machine's own
# processor (GGML_NATIVE) or GPU: grades are to be the same everywhere.
LLAMA := llama_cpp_python-0.3.36
.gguf/stamp: requirements/gguf.txt requirements/llama-cpp.txt requirements/torch.txt
	@rm -rf .gguf/venv .gguf/source
	@mkdir -p .gguf/source
	@echo "== Installing what llama.cpp's converter needs (about 1 GB)"
	@$(PYTHON) -m venv .gguf/venv
	@.gguf/venv/bin/python -m pip install --quiet --quiet -r requirements/gguf.txt
	@echo "== Fetching llama.cpp"
	@.gguf/venv/bin/python -m pip download --quiet --quiet --no-deps --no-binary :all: \
	    --require-hashes -d .gguf -r requirements/llama-cpp.txt
	@tar -xzf .gguf/$(LLAMA).tar.gz -C .gguf/source --strip-components=3 $(LLAMA)/vendor/llama.cpp
	@echo "== Building llama.cpp (minutes)"
	@PATH="$(CURDIR)/.gguf/venv/bin:$$PATH"; { \
	    cmake -S .gguf/source -B .gguf/build -G Ninja -DCMAKE_BUILD_TYPE=Release \
	        -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=OFF -DGGML_METAL=OFF -DGGML_OPENMP=OFF \
	        -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
	        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
	    && cmake --build .gguf/build --parallel $(JOBS) --target llama-quantize llama-server; \
	} > .gguf/build.log 2>&1 || { tail -n 20 .gguf/build.log; exit 1; }
	@touch $@
