# shellcheck shell=bash
# What the jobs of this folder have in common; they source it, in the root of the repository. No job of its own.
#
#   DRY_RUN=1          print the command line, run nothing
#   SPARE_MINUTES=10   a run ends so long before the time limit, and ahead of --signal
#   REQUEUES=100       how often a job goes back into the queue

# The name of this job alone: the number of an array's last task is the array's, too.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}}
job=${job:-${SLURM_JOB_ID:?"is not set: start this with sbatch"}}

# Hours until the time limit, less the spare minutes; nothing where there is no limit.
hours_left() {
    local end seconds
    end=${SLURM_JOB_END_TIME:-$(squeue --noheader --job="$job" --format=%e)} # the variable is newer than Slurm 22.05
    case $end in
        NONE | N/A | Unknown | '') return ;;
        *[!0-9]*) end=$(date --date="$end" +%s) ;;
    esac
    seconds=$((end - $(date +%s) - 60 * ${SPARE_MINUTES:-10}))
    if ((seconds <= 0)); then
        echo "The time limit leaves nothing to train in: give a --time well above ${SPARE_MINUTES:-10} minutes," \
            "or fewer SPARE_MINUTES." >&2
        return 1
    fi
    printf '%d.%03d\n' $((seconds / 3600)) $((seconds % 3600 * 1000 / 3600))
}

# Run a command line as a step of the job; how it ended is left in $status.
#
# As a step, because Slurm sends --signal to steps, not to the job's script.
step() {
    set -- srun --cpu-bind=none "$@"
    printf '%q ' "$@"
    echo
    if [[ ${DRY_RUN:-0} != 0 ]]; then exit; fi
    status=0
    "$@" || status=$?
}

# End the job as its step ended; where that can go on, after putting the job back into the queue.
#
# 75: the hours are over. 143: SIGTERM, ahead of the time limit or because the machine is taken away. `scancel` ends
# this script too, before it comes to that.
finish() {
    if ((status == 75 || status == 143)); then
        if ((${SLURM_RESTART_COUNT:-0} < ${REQUEUES:-100})); then
            echo "Status $status: job $job goes back into the queue."
            scontrol requeue "$job"
        else
            echo "Status $status, and REQUEUES is reached: job $job ends here." >&2
        fi
    fi
    exit "$status"
}
