#!/usr/bin/env bash
# A population as arrays of one-member tasks: one for the parents, and for each parent one of its children, which starts
# when that parent is done. A last job trains what is missing by then and writes the tables. After `--` come a recipe
# and the options of `python -m training member`, before it options of sbatch for all the jobs.
#
#   training/slurm/submit.sh --gpus-per-node=1 --time=08:00:00 -- paper --out /shared/zoo
#
#   DRY_RUN=1          print the sbatch commands, submit nothing
#   LOGS=slurm-logs    folder of the jobs' output
set -euo pipefail

options=()
while (($#)) && [[ $1 != -- ]]; do
    options+=("$1")
    shift
done
if (($# < 2)); then
    echo "Usage: training/slurm/submit.sh [OPTIONS OF SBATCH] -- RECIPE --out ZOO [...]" >&2
    exit 2
fi
shift
logs=${LOGS:-slurm-logs}
jobs=()

# Submit a job under a name; its id is left in $submitted.
submit() {
    local name=$1
    shift
    set -- sbatch --parsable --job-name="$name" ${options[@]+"${options[@]}"} "$@"
    printf '%q ' "$@"
    echo
    if [[ ${DRY_RUN:-0} != 0 ]]; then
        submitted=$name
    else
        submitted=$("$@")
        submitted=${submitted%%;*} # a federation adds the cluster's name
        echo "    $submitted"
    fi
    jobs+=("$submitted")
}

ids=$(python -m training plan "$1" --quiet)
parents=$(grep --count --invert-match / <<<"$ids")
if [[ ${DRY_RUN:-0} == 0 ]]; then mkdir -p "$logs"; fi # Slurm does not, and fails the jobs instead

submit parents --array="0-$((parents - 1))" --output="$logs/%x-%a.out" training/slurm/member.sbatch pt- "$@"
of_parents=$submitted
for ((parent = 0; parent < parents; parent++)); do
    children=$(grep --count "^pt-$parent/" <<<"$ids" || true) # none: grep's status is 1
    if ((children == 0)); then continue; fi
    submit "children-of-pt-$parent" --array="0-$((children - 1))" --output="$logs/%x-%a.out" \
        --dependency="afterok:${of_parents}_$parent" --kill-on-invalid-dep=yes \
        training/slurm/member.sbatch "pt-$parent/ft-" "$@"
done
submit tables --output="$logs/%x.out" --dependency="afterany$(printf ':%s' "${jobs[@]}")" training/slurm/run.sbatch "$@"
