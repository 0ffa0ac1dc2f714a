#!/bin/bash
#SBATCH --job-name=asl-pipeline
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --mem=4G
#SBATCH --time=00:15:00
#
# Submits everything as jobs that wait for one another: phantoms, members, validation, model.
#
#   training/run_production_pipeline.sh [--train-only] [--config NAME|FILE]
#                                       [--output-dir DIR] [--dataset DIR]
#
#   --train-only   the phantoms are there already
#   --config       a preset or a YAML file (production_v1)
#   --output-dir   run folder (production_model_v1)
#   --dataset      folder of the phantoms (dataset in the run folder)
#
# By bash, or by sbatch where the login node is not for programs: then a small job submits the
# others. Partitions, account, time, memory, virtual environment or image: environment
# variables, see common.sh. The same command again goes on where the jobs stopped.
# Without a cluster: asl-train pipeline.
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
train_only=''
while [ $# -gt 0 ]; do
    # As asl-train takes them: --output_dir and --name=value too.
    name=${1%%=*}
    name=${name//_/-}
    case $name in
        --train-only) train_only=1 ;;
        --config | --output-dir | --dataset | --offline-dataset-path)
            if [[ $1 == *=* ]]; then
                value=${1#*=}
            else
                [ $# -ge 2 ] || { echo "error: $1: expected a value" >&2; exit 2; }
                value=$2
                shift
            fi
            case $name in
                --config) export ASL_CONFIG=$value ;;
                --output-dir) export ASL_OUTPUT=$value ;;
                --dataset | --offline-dataset-path) export ASL_DATASET=$value ;;
            esac
            ;;
        -h | --help)
            sed -n '/^# Submits/,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
            exit
            ;;
        *) echo "error: $1: expected --train-only, --config, --output-dir or --dataset" >&2; exit 2 ;;
    esac
    shift
done
# shellcheck source=common.sh
source "$here/common.sh"
enter
resolve

# A wrong setting is reported now and not by a job in the night; so are phantoms that aren't there.
check=()
[ -z "$train_only" ] || check=(--dataset "$ASL_DATASET")
"${command[@]}" show --config "$ASL_CONFIG" "${options[@]}" "${check[@]}" >/dev/null

# A second set of jobs in the same folder would train the same members at the same time.
jobs=$ASL_OUTPUT/slurm_jobs
if [ -f "$jobs" ]; then
    left=$(squeue --noheader --format=%i --jobs "$(paste -sd, "$jobs")" 2>/dev/null || true)
    [ -z "$left" ] || fail "$ASL_OUTPUT: jobs ${left//$'\n'/ } are still in the queue"
fi

ready=()
if [ -z "$train_only" ]; then
    dataset=$("$here/generate_production_data.sh")
    ready=(--after "$dataset")
fi
training=$("$here/train_production.sh" "${ready[@]}")
model=$("$here/validate_and_export.sh" --after "$training")
printf '%s\n' ${dataset:+"$dataset"} "$training" "$model" >"$jobs"
cat <<END
submitted; the model will be in $ASL_OUTPUT/model
watch:   squeue --me; tail -f $ASL_OUTPUT/slurm.out $ASL_OUTPUT/slurm.err
curves:  tensorboard --logdir $ASL_OUTPUT/logs
END
