#!/usr/bin/env bash
# Everything that needs a GPU, in under 4 minutes: the tests marked gpu, then how fast a step is
# and how often it waits. The numbers go to the folder given (benchmarks/results).
#
#   bash benchmarks/gpu.sh [FOLDER]      PYTHON=python by default
set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
PYTHON=${PYTHON:-python}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
folder=${1:-benchmarks/results}
mkdir -p "$folder"
nvidia-smi -L 2>/dev/null || { echo "skipped, nothing was run: nvidia-smi found no GPU" >&2; exit 2; }

status=0
timeout 130 "$PYTHON" -m pytest -m gpu -q --timeout=120 tests || status=$?
for precision in bfloat16 float32; do
    timeout 50 "$PYTHON" benchmarks/training_step.py --config laptop --device cuda --seconds 8 \
        --set training.precision=$precision --output "$folder/gpu_step_$precision.json" || status=$?
done
exit "$status"
