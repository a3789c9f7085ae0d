#!/bin/bash
# A run over many GPUs, one task each; it saves before its time is up, queues again and goes on:
#
#   sbatch --nodes=2 launch/slurm.sh launch.train --config=FILE --workdir=RUN
#
# or a sweep as an array job, one GPU each (`launch.sweep --slurm=8` submits this very line):
#
#   sbatch --array=1-8 --export=ALL,PARTS=8 --ntasks-per-node=1 --gpus-per-node=1 \
#     launch/slurm.sh launch.sweep ...
#
# Submit from the repository, its environment active (PYTHON names another interpreter).  What is
# the cluster's own (account, partition, time) stands before the script's name.  A job that is
# preempted is queued again by SLURM, and saves first if PreemptParameters has send_user_signal.
#SBATCH --job-name=fedgen
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -uo pipefail

flags=(--stopped_code=75 --grace=110)
job=$SLURM_JOB_ID
if [[ -z ${SLURM_ARRAY_TASK_ID:-} ]]; then
  flags+=(--cluster=auto)
else
  flags+=("--part=$SLURM_ARRAY_TASK_ID/${PARTS:-$SLURM_ARRAY_TASK_COUNT}")
  job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
fi

# srun takes the number of cores from here alone.  Two minutes before the time limit SLURM sends
# SIGTERM to its tasks, which save and end with the code above.  One that fails is missed by the
# others, which end by themselves.
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  "${PYTHON:-python}" -m "$@" "${flags[@]}"
code=$?
if [[ $code == 75 ]]; then
  exec scontrol requeue "$job"
fi
exit "$code"
