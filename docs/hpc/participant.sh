#!/bin/bash
#SBATCH --job-name=asl-app
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=01:00:00
# One task of the array that submit.sh submits: one participant.
#   participant.sh LIST MARKS IMAGE BIDS_DIR OUTPUT_DIR [options of asl-app]
set -euo pipefail
list=$1 marks=$2 image=$3 bids=$4 out=$5
shift 5
label=$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$list")
echo "sub-$label: job $SLURM_JOB_ID on $(hostname), $(date)"

if [ -n "${ASL_WORK:-}" ]; then
    # A folder for each participant: tasks that run at the same time don't meet.
    work=$ASL_WORK/sub-$label
    mkdir -p "$work"
else
    work=$(mktemp -d -p "${SLURM_TMPDIR:-${TMPDIR:-/tmp}}" "asl-app-$SLURM_JOB_ID-XXXX")
    trap 'rm -rf "$work"' EXIT
fi

gpu=()
if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
    gpu=(--nv --env "CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES")
fi
apptainer=${APPTAINER:-$(command -v apptainer || command -v singularity)}
threads=${SLURM_CPUS_PER_TASK:-1}

# Tasks that read one file at the same time wait for each other on some file systems: a copy.
index=()
if [ -d "$(dirname "$list")/index" ]; then
    rm -rf "$work/.index"
    cp -r "$(dirname "$list")/index" "$work/.index"
    index=(--bids-database-dir "$work/.index")
fi

# What a participant leaves in the shared folder is of use only until the maps are complete.
kept=()
[ -z "${ASL_WORK:-}" ] || kept=(--keep-work failed)

status=0
began=$(mktemp -p "$work" .began-XXXX)
"$apptainer" run --containall "${gpu[@]}" \
    --bind "$bids:$bids:ro" --bind "$out:$out" --bind "$work:$work" \
    "$image" "$bids" "$out" participant --participant-label "$label" \
    -w "$work" --nprocs "$threads" --omp-nthreads "$threads" \
    ${SLURM_MEM_PER_NODE:+--mem "${SLURM_MEM_PER_NODE}M"} \
    ${index[@]+"${index[@]}"} ${kept[@]+"${kept[@]}"} "$@" || status=$?

# Such as one whose only ASL run --session-label or a filter leaves out: nothing is wrong then,
# and nothing is to be done again. The record of the run says it.
if [ "$status" -eq 1 ]; then
    record=$(find "$out/logs" -path "*/sub-$label.json" -newer "$began" -exec \
        grep -l '"status": "no ASL"' {} + 2>/dev/null || true)
    [ -z "$record" ] || { echo "sub-$label: no ASL run, nothing to do"; status=0; }
fi
rm -rf "$began" "$work/.index"

# Written last and only here: a task that was killed counts as failed.
[ "$status" -ne 0 ] || touch "$marks/sub-$label"
echo "sub-$label: exit status $status after $SECONDS s"
exit "$status"
