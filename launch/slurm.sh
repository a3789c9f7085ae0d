#!/bin/bash
# A run over many GPUs, one task each; it saves before its time is up, queues again and goes on:
#
#   sbatch --nodes=2 launch/slurm.sh launch.train --config=FILE --config.devices=0 --workdir=RUN
#
# or a sweep as an array job, one GPU each (`launch.sweep --slurm=8` submits this very line):
#
#   sbatch --array=1-8 --ntasks-per-node=1 --gpus-per-node=1 launch/slurm.sh launch.sweep ...
#
# Submit from the repository, its environment active (PYTHON names another interpreter).  What is
# the cluster's own (account, partition, time) stands before the script's name.
#SBATCH --job-name=fedgen
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -uo pipefail

flags=()
if [[ ${SLURM_NTASKS:-1} -gt 1 ]]; then
  flags+=(--cluster=auto)
fi
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
  flags+=("--part=$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT")
fi

# Two minutes before the time limit: the processes save and end, and the job is queued again.
queue_again() {
  kill -TERM "$step" && wait "$step"
  scontrol requeue "$SLURM_JOB_ID"
  exit
}
trap queue_again USR1

# In the background, for bash runs a trap only between commands.  srun hands SIGTERM on.
srun --kill-on-bad-exit=1 "${PYTHON:-python}" -m "$@" "${flags[@]}" &
step=$!
wait "$step"
