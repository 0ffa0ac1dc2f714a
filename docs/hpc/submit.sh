#!/bin/bash
# Submits a SLURM array with one task for each participant, and the group level after it.
#
#   docs/hpc/submit.sh [--failed] [--gpu] IMAGE.sif BIDS_DIR OUTPUT_DIR [options of asl-app]
#
#   --failed   only the participants of the last array that did not succeed
#   --gpu      one GPU for each task; the image must hold PyTorch with CUDA
#
# Settings, as environment variables:
#   ASL_SBATCH       further options of sbatch, for every job ("--account=lab --qos=short")
#   ASL_PARTITION, ASL_GPU_PARTITION   partitions; the cluster's default otherwise
#   ASL_PARTICIPANTS file with one label a line; otherwise all sub-* folders of BIDS_DIR.
#                    Participants without ASL get no task: they are named and left out
#   ASL_MAX_TASKS    tasks that run at a time (default 50)
#   ASL_GROUP        when the group level runs: "afterok" (default; every task succeeded),
#                    "afterany" (with what there is), or "none"
#   ASL_WORK         a shared folder for intermediate results, so that a rerun resumes;
#                    otherwise each task uses the temporary folder of its node
#   ASL_INDEX        "none": no shared index of the dataset; each task then looks for its files
#   APPTAINER        the command (default: apptainer, else singularity)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() {
    echo "error: $*" >&2
    exit 2
}

failed='' gpu=''
while [[ ${1:-} == --* ]]; do
    case $1 in
        --failed) failed=1 ;;
        --gpu) gpu=1 ;;
        *) fail "$1: expected --failed or --gpu before IMAGE.sif; options of asl-app come last" ;;
    esac
    shift
done
[ $# -ge 3 ] || fail "expected IMAGE.sif BIDS_DIR OUTPUT_DIR [options of asl-app]"
[ -f "$1" ] || fail "$1: found no file, expected an image"
[ -d "$2" ] || fail "$2: found no folder, expected a BIDS dataset"
image=$(realpath "$1")
bids=$(realpath "$2")
mkdir -p "$3"
out=$(realpath "$3")
shift 3
group=${ASL_GROUP:-afterok}
[[ $group =~ ^(afterok|afterany|none)$ ]] || fail "ASL_GROUP=$group: expected afterok, afterany or none"

# Here each array leaves its list, its logs, and an empty file for each task that succeeded.
state=$out/logs/slurm
if [ -n "$failed" ]; then
    [ -f "$state/last" ] || fail "$out: found no earlier array, expected one"
    last=$(cat "$state/last")
    job=$(cat "$state/$last/job")
    if [ -n "$(squeue --noheader --jobs "$job" 2>/dev/null || true)" ]; then
        fail "array $job is still running or waiting; rerun when it has ended"
    fi
    todo=$(while read -r label; do
        [ -e "$state/done/sub-$label" ] || echo "$label"
    done <"$state/$last/all")
    all=$(cat "$state/$last/all")
    [ -n "$todo" ] || { echo "nothing to do: all participants succeeded"; exit 0; }
else
    if [ -n "${ASL_PARTICIPANTS:-}" ]; then
        todo=$(sed 's/^sub-//; s/[[:space:]]*$//; /^$/d' "$ASL_PARTICIPANTS")
    else
        todo=$(cd "$bids" && find -L . -maxdepth 1 -type d -name 'sub-*' | sed 's#^\./sub-##' | sort)
    fi
    [ -n "$todo" ] || fail "$bids: found no participant, expected sub-* folders"
    without=() all=''
    while read -r label; do
        [ -d "$bids/sub-$label" ] || fail "$bids: found no folder sub-$label, expected one"
        # Links to what has not been fetched count: the app says how to fetch it.
        found=$(find -L "$bids/sub-$label" -path '*/perf/*_asl.nii*' -print -quit 2>/dev/null || true)
        if [ -n "$found" ]; then all+=$label$'\n'; else without+=("sub-$label"); fi
    done <<<"$todo"
    todo=${all%$'\n'} all=${all%$'\n'}
    if [ ${#without[@]} -gt 0 ]; then
        more=$((${#without[@]} - 10))
        echo "without ASL, left out: ${without[*]:0:10}$([ "$more" -le 0 ] || echo " and $more more")"
    fi
    [ -n "$todo" ] || fail "$bids: found no ASL image, expected sub-*/**/perf/*_asl.nii[.gz]"
fi

new=$(mktemp -d -p "$(mkdir -p "$state" && echo "$state")" "$(date +%Y%m%d-%H%M%S)-XXX")
mkdir -p "$state/done"
echo "$all" >"$new/all"
echo "$todo" >"$new/participants"
while read -r label; do rm -f "$state/done/sub-$label"; done <"$new/participants"
tasks=$(wc -l <"$new/participants")

# One index of the dataset for all tasks, beside their list. Where images can't be run on this
# machine, each task reads the folders of its own participant.
apptainer=${APPTAINER:-$(command -v apptainer || command -v singularity || true)}
if [ "${ASL_INDEX:-}" != none ] && [ -n "$apptainer" ] && [[ " $* " != *" --bids-database-dir"* ]]; then
    index=$(mktemp -d)
    trap 'rm -rf "$index"' EXIT
    "$apptainer" run --containall --bind "$bids:$bids:ro" --bind "$index:$index" \
        "$image" "$bids" "$index/out" participant --dry-run --bids-database-dir "$index/bids" \
        --participant-label "$(head -n 1 "$new/participants")" >"$new/index.log" 2>&1 || true
    if [ -s "$index/bids/layout_index.sqlite" ]; then
        cp -r "$index/bids" "$new/index"
    else
        echo "no shared index: $(tail -n 1 "$new/index.log")"
    fi
fi

# shellcheck disable=SC2206 # several words are meant
common=(--parsable --chdir="$new" ${ASL_SBATCH:-})
cpu=(${ASL_PARTITION:+--partition="$ASL_PARTITION"})
array=("${cpu[@]}")
[ -z "$gpu" ] || array=(--gres=gpu:1 ${ASL_GPU_PARTITION:+--partition="$ASL_GPU_PARTITION"})
array+=(--array="1-$tasks%${ASL_MAX_TASKS:-50}" --output="$new/task-%a.log")

job=$(sbatch "${common[@]}" "${array[@]}" "$here/participant.sh" \
    "$new/participants" "$state/done" "$image" "$bids" "$out" "$@")
job=${job%%;*}
echo "$job" >"$new/job"
basename "$new" >"$state/last"
echo "array $job: $tasks participants; logs in $new"

if [ "$group" != none ]; then
    job=$(sbatch "${common[@]}" "${cpu[@]}" --dependency="$group:$job" --kill-on-invalid-dep=yes \
        --output="$new/group.log" "$here/group.sh" "$image" "$bids" "$out")
    echo "group level: job ${job%%;*}, $group"
fi
