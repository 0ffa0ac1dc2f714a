#!/bin/bash
# Makes the phantoms: a job array over the shards, and a job that completes the dataset.
#
#   training/generate_production_data.sh [--after JOB]      submits; prints the last job
#
# Settings: environment variables, see common.sh. Shards that are there are left alone, so the
# same command makes what is missing. Without a cluster: asl-train generate.
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
    words=(generate --config "$ASL_CONFIG" "${options[@]}" --output-dir "$ASL_DATASET")
    if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
        first=$((SLURM_ARRAY_TASK_ID * ASL_SHARDS_PER_TASK))
        last=$((first + ASL_SHARDS_PER_TASK - 1))
        count=$(query shards)
        [ "$last" -lt "$count" ] || last=$((count - 1))
        say "phantoms, shards $first to $last of $count"
        "${command[@]}" "${words[@]}" --part train --shards "$first-$last"
    else
        # Tasks that end together may each miss the other's shards in the manifest.
        say "phantoms for validation, calibration and test; manifest"
        "${command[@]}" "${words[@]}" --jobs "${SLURM_CPUS_PER_TASK:-1}"
    fi
    exit
fi

after=${2:-}
[ $# -eq 0 ] || { [ "$1" = --after ] && [ -n "$after" ]; } || fail "$1: expected --after JOB"
resolve
tasks=$(((($(query shards)) + ASL_SHARDS_PER_TASK - 1) / ASL_SHARDS_PER_TASK))
script=$here/generate_production_data.sh
resources=("$ASL_PARTITION" "$ASL_GENERATE_TIME" "$ASL_GENERATE_CPUS" "$ASL_GENERATE_MEM")
extra=(--array="0-$((tasks - 1))%$ASL_MAX_TASKS" --requeue)
[ -z "$after" ] || extra+=(--dependency="afterok:$after")
shards=$(submit generate "${resources[@]}" "$script" --task)
extra=(--dependency="afterok:$shards" --requeue)
complete=$(submit dataset "${resources[@]}" "$script" --task)
echo "phantoms: array $shards of $tasks tasks, then job $complete" >&2
echo "$complete"
