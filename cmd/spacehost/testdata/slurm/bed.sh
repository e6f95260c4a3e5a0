#!/usr/bin/env bash
# A Slurm of two nodes, n1 and n2, on this machine, with two pretended GPUs each and a munged of its own (root; Debian's packages slurm-wlm and munge).
#
#   bed.sh up DIR PORT     uses PORT to PORT+2; afterwards: export SLURM_CONF=DIR/slurm.conf
#   bed.sh down DIR
#
# In a network namespace without addresses besides 127.0.0.1, slurmd does not bind: run `ip addr add 10.99.0.1/32 dev lo` there.
set -eu
dir=$2
if [ "$1" = down ]; then
  for pid in "$dir"/*.pid; do
    [ -f "$pid" ] || continue
    number=$(cat "$pid")
    kill "$number" 2>/dev/null || true
    for _ in $(seq 100); do
      kill -0 "$number" 2>/dev/null || continue 2
      sleep 0.1
    done
    kill -9 "$number" 2>/dev/null || true
  done
  exit 0
fi
port=$3 host=$(hostname -s)
mkdir -p "$dir"/{state,spool_n1,spool_n2,munge}
chmod 755 "$dir" "$dir/munge"
for program in slurmctld slurmd munged; do
  command -v $program >/dev/null || { echo "$program is not installed; run apt-get install slurm-wlm munge" >&2; exit 1; }
done
for i in 0 1 2 3; do [ -e "$dir/gpu$i" ] || mknod "$dir/gpu$i" c 1 3; done
cat >"$dir/slurm.conf" <<C
ClusterName=lab
SlurmctldHost=$host
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthInfo=socket=$dir/munge/socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool_%n
SlurmctldPidFile=$dir/ctld.pid
SlurmdPidFile=$dir/slurmd_%n.pid
SlurmctldLogFile=$dir/ctld.log
SlurmdLogFile=$dir/slurmd_%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=2 RealMemory=2000 Gres=gpu:2
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=2 RealMemory=2000 Gres=gpu:2
PartitionName=gpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
C
printf 'NodeName=n1 Name=gpu File=%s/gpu[0-1]\nNodeName=n2 Name=gpu File=%s/gpu[2-3]\n' "$dir" "$dir" >"$dir/gres.conf"
head -c 1024 /dev/urandom >"$dir/munge/key"
chmod 600 "$dir/munge/key"
munged --force --socket="$dir/munge/socket" --key-file="$dir/munge/key" --pid-file="$dir/munge.pid" --log-file="$dir/munge/log" --seed-file="$dir/munge/seed"
export SLURM_CONF=$dir/slurm.conf
slurmctld -f "$SLURM_CONF"
slurmd -N n1 -f "$SLURM_CONF"
slurmd -N n2 -f "$SLURM_CONF"
for _ in $(seq 600); do
  [ "$(sinfo -h -N -o %t 2>/dev/null | sort -u)" != idle ] || exit 0
  sleep 0.1
done
echo "the nodes are not idle after a minute" >&2
sinfo >&2
exit 1
