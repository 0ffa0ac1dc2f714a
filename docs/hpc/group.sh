#!/bin/bash
#SBATCH --job-name=asl-app-group
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=00:30:00
# The group level: the table and report of all participants that have derivatives.
#   group.sh IMAGE BIDS_DIR OUTPUT_DIR
set -euo pipefail
apptainer=${APPTAINER:-$(command -v apptainer || command -v singularity)}
"$apptainer" run --containall --bind "$2:$2:ro" --bind "$3:$3" "$1" "$2" "$3" group
