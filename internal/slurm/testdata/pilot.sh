#!/bin/bash
# Pilot job of spacehost: it lends its GPUs to the Spaces of a front until it ends.
#SBATCH --job-name=spacehost-lab-0a1b2c3d
#SBATCH --partition=gpu
#SBATCH --account=physics
#SBATCH --gres=gpu:2
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --time=480
#SBATCH --signal=B:TERM@630
#SBATCH --no-requeue
#SBATCH --output=/dev/null
#SBATCH --qos=low
#SBATCH "--comment=Spaces of the lab"
set -eu
umask 077
root="/var/tmp/spacehost-$(id -u)"
mkdir -p "$root"
if [ -L "$root" ] || [ ! -O "$root" ]; then
  echo "$root belongs to another user; choose another state folder" >&2
  exit 1
fi
mkdir -p "$root/logs" "$root/jobs" "$root/environments"
exec >>"$root/logs/$SLURM_JOB_ID.log" 2>&1
# Remove the folders of jobs that have ended here. A running agent holds the lock of its folder.
find "$root/jobs" -mindepth 3 -maxdepth 3 -path '*/node/lock' -mmin +10 2>/dev/null | while IFS= read -r lock; do
  job=${lock%/node/lock}
  flock --nonblock "$lock" sh -c 'chmod -R u+rwX "$1"; rm -rf "$1"' sh "$job" || true
done
find "$root/logs" -name '*.log' -mtime +30 -delete || true
export SPACEHOST_ENVIRONMENTS="$root/environments" # later jobs on this machine use them again
exec '/opt/space host/spacehost' agent --join front.lab.example:7443 --token-file - --name lab-"$SLURM_JOB_ID" --label lab --label h200 --gpus "${CUDA_VISIBLE_DEVICES:-auto}" --state "$root/jobs/$SLURM_JOB_ID" --drain 600s <<'TOKEN'
shj_0_1_2
TOKEN
