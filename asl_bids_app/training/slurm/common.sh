# Settings and functions that the scripts of this folder share; sourced, never run.
# Every setting is an environment variable; these are the defaults.
# shellcheck shell=bash

: "${ASL_CONFIG:=production_v1}"               # preset or YAML file
: "${ASL_OUTPUT:=production_model_v1}"         # run folder
: "${ASL_DATASET:=$ASL_OUTPUT/dataset}"        # phantoms
: "${ASL_OPTIONS:=}"                           # further options of asl-train ("--set seed=2")

: "${ASL_VENV:=}"                              # virtual environment to activate
: "${ASL_IMAGE:=}"                             # or Apptainer image that holds asl-train
: "${ASL_BIND:=}"                              # folders that the image has to see, a,b,c
: "${APPTAINER:=apptainer}"                    # the command

: "${ASL_SBATCH:=}"                            # further options of sbatch, for every job
: "${ASL_ACCOUNT:=}"
: "${ASL_PARTITION:=}"                         # partition of jobs without a GPU
: "${ASL_GPU_PARTITION:=$ASL_PARTITION}"       # partition of training and validation
: "${ASL_GPUS:=1}"                             # GPUs of a member; 0: train on CPUs

: "${ASL_GENERATE_TIME:=04:00:00}" "${ASL_GENERATE_CPUS:=1}" "${ASL_GENERATE_MEM:=4G}"
: "${ASL_TRAIN_TIME:=24:00:00}" "${ASL_TRAIN_CPUS:=8}" "${ASL_TRAIN_MEM:=32G}"
: "${ASL_VALIDATE_TIME:=08:00:00}" "${ASL_VALIDATE_CPUS:=8}" "${ASL_VALIDATE_MEM:=32G}"
: "${ASL_SHARDS_PER_TASK:=10}"                 # phantoms are made 10 shards a task
: "${ASL_MAX_TASKS:=50}"                       # tasks of an array at a time
: "${ASL_SIGNAL_SECONDS:=180}"                 # checkpoint so long before the time limit
: "${ASL_MAX_REQUEUES:=100}"                   # of a member that runs into its time limit

export ASL_CONFIG ASL_OUTPUT ASL_DATASET ASL_OPTIONS ASL_VENV ASL_IMAGE ASL_BIND APPTAINER
export ASL_SBATCH ASL_ACCOUNT ASL_PARTITION ASL_GPU_PARTITION ASL_GPUS ASL_SHARDS_PER_TASK
export ASL_MAX_TASKS ASL_SIGNAL_SECONDS ASL_MAX_REQUEUES
export ASL_GENERATE_TIME ASL_GENERATE_CPUS ASL_GENERATE_MEM ASL_TRAIN_TIME ASL_TRAIN_CPUS
export ASL_TRAIN_MEM ASL_VALIDATE_TIME ASL_VALIDATE_CPUS ASL_VALIDATE_MEM

options=() # of asl-train, from ASL_OPTIONS
command=() # asl-train, or what runs it in an image
extra=()   # of sbatch, for the next submission

fail() {
    echo "error: $*" >&2
    exit 2
}

# enter: what every job and every submission does first.
enter() {
    if [ -n "$ASL_VENV" ]; then
        # shellcheck disable=SC1091
        source "$ASL_VENV/bin/activate"
    fi
    read -r -a options <<<"$ASL_OPTIONS"
    if [ -n "$ASL_IMAGE" ]; then
        command=("$APPTAINER" exec)
        [ -n "$ASL_BIND" ] && command+=(--bind "$ASL_BIND")
        [ "$ASL_GPUS" -gt 0 ] && command+=(--nv)
        command+=("$ASL_IMAGE" asl-train)
    else
        command -v asl-train >/dev/null || fail "asl-train: not found; set ASL_VENV or ASL_IMAGE"
        command=(asl-train)
    fi
}

# resolve: absolute paths (nothing is made yet), for jobs start in another folder than the submission.
resolve() {
    ASL_OUTPUT=$(realpath -m "$ASL_OUTPUT")
    ASL_DATASET=$(realpath -m "$ASL_DATASET")
    case $ASL_CONFIG in
        */* | *.yaml | *.yml) ASL_CONFIG=$(realpath "$ASL_CONFIG") ;;
    esac
    export ASL_OUTPUT ASL_DATASET ASL_CONFIG
}

# query WHAT: one number of the configuration.
query() {
    "${command[@]}" show --config "$ASL_CONFIG" "${options[@]}" --query "$1"
}

# submit NAME PARTITION TIME CPUS MEM SCRIPT WORDS...: print the number of the job.
# What stands in the array `extra` goes to sbatch too.
submit() {
    local name=$1 partition=$2 time=$3 cpus=$4 memory=$5
    shift 5
    local words=(--parsable --job-name="asl-$name" --time="$time" --cpus-per-task="$cpus")
    words+=(--mem="$memory" --export=ALL --open-mode=append --kill-on-invalid-dep=yes)
    words+=(--output="$ASL_OUTPUT/slurm.out" --error="$ASL_OUTPUT/slurm.err")
    [ -n "$partition" ] && words+=(--partition="$partition")
    [ -n "$ASL_ACCOUNT" ] && words+=(--account="$ASL_ACCOUNT")
    local more
    read -r -a more <<<"$ASL_SBATCH"
    mkdir -p "$ASL_OUTPUT" "$ASL_DATASET"
    sbatch "${words[@]}" "${more[@]}" "${extra[@]}" "$@" | cut -d';' -f1
}

# say WORDS...: a line in slurm.out that tells jobs apart.
say() {
    local job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
    echo "== $(date -u +%FT%TZ) job $job restart ${SLURM_RESTART_COUNT:-0} on $(hostname -s): $*"
}
