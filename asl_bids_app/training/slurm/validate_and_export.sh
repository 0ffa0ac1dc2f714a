#!/bin/bash
# Validates the ensemble, then exports the model: two jobs, one after the other.
#
#   training/validate_and_export.sh [--after JOB]      submits; prints the last job
#
# Settings: environment variables, see common.sh. Without a cluster: asl-train validate,
# asl-train export.
set -euo pipefail
# SLURM runs a copy of this script; what lies beside the original is found by its name.
here=${ASL_TRAINING_HOME:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)}
if [ ! -f "$here/common.sh" ] && [ -n "${SLURM_JOB_ID:-}" ]; then
    here=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=//p')
    here=$(dirname "${here%%.sh *}")
fi
[ -f "$here/common.sh" ] || {
    echo "error: $0: found no common.sh beside it, expected it; set ASL_TRAINING_HOME" >&2
    exit 2
}
export ASL_TRAINING_HOME=$here
# shellcheck source=common.sh
source "$here/common.sh"
enter

if [ -n "${SLURM_JOB_ID:-}" ] && [ "${1:-}" = --task ]; then
    say "$2"
    if [ "$2" = validate ]; then
        "${command[@]}" validate --run-dir "$ASL_OUTPUT" --dataset "$ASL_DATASET" \
            --jobs "${SLURM_CPUS_PER_TASK:-1}"
    else
        "${command[@]}" export --run-dir "$ASL_OUTPUT" --output-dir "$ASL_OUTPUT/model" \
            --onnx "$ASL_OUTPUT/onnx"
    fi
    say "$2 done"
    exit
fi

after=${2:-}
[ $# -eq 0 ] || { [ "$1" = --after ] && [ -n "$after" ]; } || fail "$1: expected --after JOB"
resolve
script=$here/validate_and_export.sh
resources=("$ASL_GPU_PARTITION" "$ASL_VALIDATE_TIME" "$ASL_VALIDATE_CPUS" "$ASL_VALIDATE_MEM")
extra=(--requeue)
[ "$ASL_GPUS" -eq 0 ] || extra+=(--gres="gpu:1")
[ -z "$after" ] || extra+=(--dependency="afterok:$after")
validation=$(submit validate "${resources[@]}" "$script" --task validate)
resources[0]=$ASL_PARTITION
extra=(--requeue --dependency="afterok:$validation")
model=$(submit export "${resources[@]}" "$script" --task export)
echo "validation: job $validation; export: job $model" >&2
echo "$model"
