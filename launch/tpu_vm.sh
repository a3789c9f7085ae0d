#!/bin/bash
# A run on all workers of a Cloud TPU slice; call it again after a preemption, and it goes on:
#
#   launch/tpu_vm.sh NAME ZONE launch.train --config=FILE --workdir=/mnt/RUN
#
# Copies the repository, installs it once and starts one process a worker, which find each other.
# The workdir and data.root are on storage that all workers see and that renames folders (Filestore).
# The workers need Python >= 3.11; PYTHON names it there (default: python3).
set -euo pipefail
if [[ $# -lt 3 ]]; then
  echo "usage: launch/tpu_vm.sh NAME ZONE MODULE [FLAG...]" >&2
  exit 2
fi
name=$1 zone=$2
shift 2

on_all() {
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

# What git keeps, and nothing else: no data, no environment, no runs.
archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$name:fedgen_jax.tar.gz" --zone="$zone" --worker=all
on_all 'mkdir -p fedgen_jax && tar -xzf fedgen_jax.tar.gz -C fedgen_jax && cd fedgen_jax &&
  { test -x .venv/bin/pip || '"${PYTHON:-python3}"' -m venv --clear .venv; } &&
  .venv/bin/pip install --quiet -c constraints.txt -e ".[tpu]"'
on_all "cd fedgen_jax && .venv/bin/python -m $(printf '%q ' "$@") --cluster=auto"
