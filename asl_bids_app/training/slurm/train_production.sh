#!/bin/bash
# Trains the ensemble: a job array over the members.
#
#   training/train_production.sh [--after JOB]      submits; prints the job
#
# Settings: environment variables, see common.sh. A member that is preempted or runs into its
# time limit saves a checkpoint, goes back into the queue and goes on from there; so does one
# that is submitted again. Finished members are left alone. Without a cluster: asl-train fit.
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
# A signal may come before there is anything that trains: it is kept for then.
limit='' child=''
if [ "${1:-}" = --task ]; then
    trap 'limit=1; [ -z "$child" ] || kill -USR1 "$child" 2>/dev/null || true' USR1
    # On preemption and scancel SLURM itself decides whether the job comes back.
    trap '[ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM
fi
# shellcheck source=common.sh
source "$here/common.sh"
enter

if [ -n "${SLURM_JOB_ID:-}" ] && [ "${1:-}" = --task ]; then
    member=$SLURM_ARRAY_TASK_ID
    say "member $member"
    words=(fit --config "$ASL_CONFIG" "${options[@]}" --dataset "$ASL_DATASET")
    words+=(--output-dir "$ASL_OUTPUT" --members "$member")
    if [ "$ASL_GPUS" -gt 0 ]; then
        words+=(--devices "$ASL_GPUS")
    else
        words+=(--device cpu --threads "${SLURM_CPUS_PER_TASK:-1}")
    fi
    # In the background: bash would keep a signal back until a program in front has ended. Not
    # a function: its subshell would take the signals instead of the program.
    "${command[@]}" "${words[@]}" &
    child=$!
    [ -z "$limit" ] || kill -USR1 "$child" 2>/dev/null || true
    while true; do
        status=0
        wait "$child" || status=$?
        kill -0 "$child" 2>/dev/null || break # otherwise a signal ended the wait only
    done
    say "member $member ended with status $status"
    # 138: the signal came before Python had begun to listen.
    if [ -n "$limit" ] && { [ "$status" -eq 75 ] || [ "$status" -eq 138 ]; }; then
        [ "${SLURM_RESTART_COUNT:-0}" -lt "$ASL_MAX_REQUEUES" ] ||
            fail "member $member: $ASL_MAX_REQUEUES requeues and not finished"
        say "member $member goes back into the queue"
        scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
        sleep 60 # SLURM ends this job meanwhile
    fi
    exit "$status"
fi

after=${2:-}
[ $# -eq 0 ] || { [ "$1" = --after ] && [ -n "$after" ]; } || fail "$1: expected --after JOB"
resolve
members=$(query members)
resources=("$ASL_GPU_PARTITION" "$ASL_TRAIN_TIME" "$ASL_TRAIN_CPUS" "$ASL_TRAIN_MEM")
extra=(--array="0-$((members - 1))%$ASL_MAX_TASKS" --requeue)
extra+=(--signal="B:USR1@$ASL_SIGNAL_SECONDS")
[ "$ASL_GPUS" -eq 0 ] || extra+=(--gres="gpu:$ASL_GPUS")
[ -z "$after" ] || extra+=(--dependency="afterok:$after")
job=$(submit train "${resources[@]}" "$here/train_production.sh" --task)
echo "training: array $job of $members members" >&2
echo "$job"
