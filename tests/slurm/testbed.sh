# testbed.sh - a private Slurm on this machine: sourced by run.sh and by the tests, with BED set (its folder).
#
# bed_up starts munged, slurmctld and four slurmd, each "node" with a host name and a /dev/shm of its own, as Open MPI
# names its shared memory by them. No systemd, no cgroups, nothing outside BED. run.sh calls it inside a PID namespace:
# whatever happens to it, the kernel ends every process in there.

nodes='n1 n2 n3 n4'
export SLURM_CONF=$BED/slurm.conf PATH=$PATH:/usr/sbin:/sbin

bed_missing() {
    for program in munged munge slurmctld slurmd sbatch unshare mpirun; do
        command -v $program > /dev/null || { echo $program; return; }
    done
}

free_ports() {     # the first of five free ones in a row
    local base i
    for ((base = 17000 + RANDOM % 100 * 100; base < 32000; base += 10)); do
        for i in 0 1 2 3 4; do
            (exec 3<> /dev/tcp/127.0.0.1/$((base + i))) 2> /dev/null && continue 2
        done
        echo $base
        return
    done
}

bed_configure() {
    local user port
    user=$(id -un) port=$(free_ports)
    mkdir -p "$BED"/{state,spool,log,run,tmp,cgroup}
    (umask 077 && head -c 1024 /dev/urandom > "$BED/munge.key")
    # PMIxCollFence: the other kinds let ranks out of MPI_Init before all are ready, and some crash
    echo PMIxCollFence=ring > "$BED/mpi.conf"
    # slurmd wants a cgroup plugin even where nothing uses it; v1 with a folder of our own touches nothing
    printf 'CgroupPlugin=cgroup/v1\nCgroupMountpoint=%s\n' "$BED/cgroup" > "$BED/cgroup.conf"
    { cat /etc/hosts; for node in $nodes; do echo "127.0.0.1 $node"; done; } > "$BED/hosts"
    cat > "$BED/slurm.conf" << EOF
ClusterName=testbed
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CredType=cred/munge
# cred_expire: how long a requeued job waits, in seconds; less than 5 would count as 120
AuthInfo=socket=$BED/run/munge.sock,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$BED/state
SlurmdSpoolDir=$BED/spool/%n
TmpFS=$BED/tmp/%n
SlurmctldPidFile=$BED/run/slurmctld.own-pid
SlurmdPidFile=$BED/run/%n.own-pid
SlurmctldLogFile=$BED/log/slurmctld.log
SlurmdLogFile=$BED/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog=$BED/task_prolog
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=pmix
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,bf_continue,sched_min_interval=10000
PriorityType=priority/basic
MailProg=/bin/true
JobRequeue=1
MaxArraySize=11
MinJobAge=3600
SlurmctldTimeout=30
SlurmdTimeout=8
KillWait=5
MessageTimeout=5
ReturnToService=2
InactiveLimit=0
UnkillableStepTimeout=20
SlurmdParameters=config_overrides
NodeName=n[1-4] NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + 4))] CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 State=UP
EOF
    printf '#!/bin/sh\necho "export TMPDIR=%s/tmp/$SLURMD_NODENAME"\n' "$BED" > "$BED/task_prolog"
    chmod 755 "$BED/task_prolog"
}

# What Open MPI needs on "nodes" of one machine, as root, with more ranks than cores; jobs inherit it through sbatch.
bed_environment() {
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader,tcp
    export OMPI_MCA_osc='^ucx' OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo
    export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_mpi_yield_when_idle=1
    export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_rmaps_base_oversubscribe=1
    export PMIX_MCA_psec=native PMIX_MCA_gds=hash
}

# wait_until SECONDS COMMAND...: 1 if it never succeeds
wait_until() {
    local end=$((SECONDS + $1))
    while [ $SECONDS -le $end ]; do
        "${@:2}" > /dev/null 2>&1 && return 0
        sleep 0.05
    done
    return 1
}

start_daemon() {     # NAME COMMAND...: in the foreground mode of each, so that its pid is known
    setsid "${@:2}" < /dev/null >> "$BED/log/$1.out" 2>&1 &
    echo $! > "$BED/run/$1.pid"
    disown
}

start_node() {
    mkdir -p "$BED/spool/$1" "$BED/tmp/$1"
    start_daemon "$1" unshare --mount --uts --propagation private sh -c 'hostname "$1" && mount -t tmpfs -o mode=1777 tmpfs /dev/shm &&
        mount --bind "$2" /etc/hosts && exec slurmd -D -N "$1" -f "$3"' sh "$1" "$BED/hosts" "$SLURM_CONF"
}

controller_up() { scontrol ping | grep -q 'is UP'; }
nodes_up() { [ "$(sinfo -h -N -o '%N %T' | grep -cE ' (idle|mixed|allocated|completing)\+?$')" = 4 ]; }

bed_up() {
    bed_environment
    start_daemon munged munged -F -f -S "$BED/run/munge.sock" --key-file="$BED/munge.key" --log-file="$BED/log/munged.log" \
        --pid-file="$BED/run/munged.own-pid" --seed-file="$BED/state/munged.seed"
    wait_until 10 munge -n -S "$BED/run/munge.sock" || { echo "munged did not start"; cat "$BED/log/munged.out"; return 1; }
    start_daemon slurmctld slurmctld -D -f "$SLURM_CONF"
    wait_until 10 controller_up || { echo "slurmctld did not start"; tail "$BED/log/slurmctld.out"; return 1; }
    for node in $nodes; do start_node "$node"; done
    wait_until 30 nodes_up || { echo "the nodes did not come up"; sinfo -N; tail -n 3 "$BED"/log/n?.*; return 1; }
}

# Processes of jobs on a node, and the slurmstepd above them.
job_processes() {
    local place
    for place in /proc/[0-9]*; do
        { tr '\0' '\n' < "$place/environ"; } 2> /dev/null | grep -qx "SLURM_CONF=$SLURM_CONF" || continue
        if { tr '\0' '\n' < "$place/environ"; } 2> /dev/null | grep -qx "SLURMD_NODENAME=$1" ||
            { grep -q slurmstepd "$place/comm" && ls -l "$place/fd" | grep -q "/log/$1\.log$"; } 2> /dev/null; then
            echo "${place#/proc/}"
        fi
    done
}

kill_jobs() { for pid in $(job_processes "$1"); do kill -KILL "$pid" 2> /dev/null; done; }
kill_slurmd() { kill -KILL "$(cat "$BED/run/$1.pid")"; }     # its jobs live on
kill_node() {
    kill_slurmd "$1"
    kill_jobs "$1"
}
