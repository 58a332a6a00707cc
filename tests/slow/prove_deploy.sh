#!/bin/bash
# The files of deploy/ with a real Slurm and with hosts of their own, on this machine:
# ./run prove-deploy. Needs root; a part whose packages are missing is skipped. Ends with
# "N passed, M failed, K skipped".
set -u
cd "$(dirname "$0")/../.." || exit 1
root=$PWD program=$PWD/build/release/headway
work=$(mktemp -d /tmp/hwd.XXXX) # short: sockets lie below it
passed=0 failed=0 skipped=0
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 HEADWAY=$program
export HEADWAY_MODELS=$root/models SLURM_CONF=$work/slurm/slurm.conf

finish() {
    "$root/scripts/local-slurm" stop "$work/slurm"
    "$root/scripts/local-hosts" stop
    cd /
    sleep 0.5
    rm -rf "$work"
}
trap finish EXIT

verdict() { # NAME: of the command before
    if [ $? -eq 0 ]; then
        echo "ok      $1" && passed=$((passed + 1))
    else
        echo "FAILED  $1" && failed=$((failed + 1))
        tail -n 15 "$work"/*.log 2>/dev/null
    fi
}
skip() {
    echo "SKIP    $1" && skipped=$((skipped + 1))
}

prepare() {
    cd "$work" || exit 1
    for i in $(seq 300); do
        echo "the cat number $i sat on mat $((i * 7 % 31)) and saw $((i * i % 97)) birds"
    done >t.txt
    "$program" tokenizer train t.txt --vocab-size 300 --out tok.json --quiet >/dev/null &&
        "$program" data prepare t.txt --format text --tokenizer tok.json --licence none \
            --val-fraction 0 --out data --quiet >/dev/null || exit 1
    cat >r.yaml <<X
model: {spec: laptop-2m, override: {layers: 2, width: 64, hidden: 96, heads: 4}}
data: {sources: data, tokenizer: tok.json}
train: {steps: 60, batch: 4, accumulate: 2, seq: 32, threads: 1}
lr: {schedule: constant, warmup: 2}
log: {every: 1}
X
    "$program" train r.yaml --quiet --set run.name=one >/dev/null || exit 1
}

last_loss() { # FOLDER STEP
    sed -n "s/.*\"step\":$2,.*\"loss\":\([0-9.]*\).*/\1/p" "$1/metrics.jsonl" | tail -n 1
}
same_curve() { # RUN: its end is that of one process, to 1e-4
    awk -v a="$(last_loss runs/one 60)" -v b="$(last_loss "runs/$1" 60)" \
        'BEGIN { d = a - b; exit !(b != "" && d < 1e-4 && d > -1e-4) }'
}

slurm() {
    if ! command -v slurmctld munged >/dev/null; then
        skip "Slurm (apt-get install slurm-wlm slurm-wlm-basic-plugins munge)"
        return
    fi
    "$root/scripts/local-slurm" start "$work/slurm"
    verdict "a Slurm of one node"
    local mpi
    for mpi in pmix pmi2; do
        HEADWAY_MPI=$mpi timeout 60 sbatch --parsable --wait --ntasks=2 \
            "$root/deploy/slurm.sbatch" r.yaml dp=2 "slurm-$mpi" >/dev/null
        same_curve "slurm-$mpi"
        verdict "slurm.sbatch with srun --mpi=$mpi trains what one process does"
    done
    requeue
}

# Stopped by the signal that Slurm gives before a time limit, back into the queue, and on.
requeue() {
    sed 's/steps: 60/steps: 4000/' r.yaml >long.yaml
    local job i
    job=$(sbatch --parsable --ntasks=2 "$root/deploy/slurm.sbatch" long.yaml dp=2 again)
    for ((i = 0; i < 100; i++)); do
        grep -q '"step":50,' runs/again/metrics.jsonl 2>/dev/null && break
        sleep 0.1
    done
    scancel --signal=TERM "$job"
    for ((i = 0; i < 100; i++)); do
        scontrol show job "$job" | grep -q 'JobState=PENDING.*BeginTime' && break
        sleep 0.1
    done
    scontrol show job "$job" | grep -q 'Restarts=1'
    verdict "a job that was signalled saved and went back into the queue"
    sleep 3 # its first life must have left the node
    scontrol update JobId="$job" StartTime=now
    for ((i = 0; i < 300; i++)); do
        grep -q '"step":4000,' runs/again/metrics.jsonl && break
        sleep 0.2
    done
    grep -q 'resuming runs/again at step' runs/again/log.txt &&
        [ "$(grep -c '"event":"step"' runs/again/metrics.jsonl)" = 4000 ]
    verdict "it resumed and made every step once"
}

on_hosts() { # RUN COMMAND...: from the first host
    local name=$1
    shift
    timeout -k 3 60 "$root/scripts/local-hosts" run 0 "$@" "$program" train r.yaml --quiet --layout dp=2 \
        --set run.name="$name" </dev/null >"$name.log" 2>&1
    same_curve "$name"
    verdict "two hosts with $name train what one process does"
}

# The last rank of a run over two hosts is stopped: who and in which call, how soon, with code 80,
# and the last checkpoint is whole. The others answer, so nobody else is named.
stop_last() { # LIBRARY RANKS COMMAND...
    local name=stopped-$1-$2 ranks=$2 pid victim rank begin code ms i
    shift 2
    sed 's/steps: 60/steps: 100000/' r.yaml >endless.yaml
    timeout -k 3 90 "$root/scripts/local-hosts" run 0 "$@" "$program" train endless.yaml --quiet \
        --layout "dp=$ranks" --set run.name="$name" --set checkpoint.every=20 \
        </dev/null >"$name.log" 2>&1 &
    pid=$!
    for ((i = 0; i < 300; i++)); do
        grep -q '"step":40,' "runs/$name/metrics.jsonl" 2>/dev/null && break
        sleep 0.1
    done
    victim=$(for i in $(ip netns pids headway-h1); do
        [ "$(cat "/proc/$i/comm")" = headway ] && echo "$i"
    done | sort -n | tail -n 1)
    rank=$(tr '\0' '\n' <"/proc/$victim/environ" | sed -n 's/^\(OMPI_COMM_WORLD_RANK\|PMI_RANK\)=//p')
    begin=$(date +%s%N)
    kill -STOP "$victim"
    for ((i = 0; i < 300; i++)); do
        grep -q "rank $rank (pid $victim" "$name.log" && break
        sleep 0.1
    done
    ms=$((($(date +%s%N) - begin) / 1000000)) # Open MPI takes seconds more to end a stopped process
    wait $pid
    code=$?
    echo "        $ms ms, code $code: $(grep -m 1 "rank $rank (pid $victim" "$name.log")"
    [ $code -eq 80 ] && [ $ms -lt 10000 ] &&
        grep -q "rank $rank (pid $victim.*\(all\|reduce\|recv\|send\|broad\|barrier\).* on " "$name.log" &&
        ! grep "rank [0-9]* (pid " "$name.log" | grep -v "rank $rank (pid $victim" &&
        "$program" checkpoint verify "runs/$name" >/dev/null
    verdict "$name: the stopped rank of another host is named, with code 80, within 10 s"
}

# MPICH kills all ranks when one dies; told not to, it still does so often, before they can speak.
lose_mpich_once() { # NAME
    local name=$1 victim begin pid i
    timeout -k 3 90 mpirun.mpich -disable-auto-cleanup -n 4 "$program" train endless.yaml --quiet \
        --layout dp=4 --set run.name=$name --set checkpoint.every=20 </dev/null >$name.log 2>&1 &
    pid=$!
    for ((i = 0; i < 300; i++)); do
        grep -q '"step":40,' runs/$name/metrics.jsonl 2>/dev/null && break
        sleep 0.1
    done
    victim=$(for i in $(pgrep -x headway); do
        tr '\0' '\n' <"/proc/$i/environ" | grep -qx PMI_RANK=1 &&
            [ "$(readlink "/proc/$i/cwd")" = "$work" ] && echo "$i"
    done)
    begin=$(date +%s%N)
    kill -KILL "$victim"
    wait $pid
    i=$((($(date +%s%N) - begin) / 1000000))
    echo "        $i ms: $(grep -m 1 died $name.log || echo "the launcher killed the others first")"
    [ $i -lt 1000 ] && "$program" checkpoint verify runs/$name >/dev/null || return 2
    grep -q "rank 1 (pid $victim) died" $name.log
}

lose_mpich() {
    local i code=1
    command -v mpirun.mpich >/dev/null || return
    sed 's/steps: 60/steps: 100000/' r.yaml >endless.yaml
    for ((i = 1; i <= 8 && code == 1; i++)); do
        lose_mpich_once lost-mpich-$i && code=0 || code=$?
    done
    [ $code -eq 0 ]
    verdict "MPICH without its clean-up: a killed rank is named within 1 s, where the launcher lets the others live"
}

hosts() {
    local n
    if ! "$root/scripts/local-hosts" start 2 2>/dev/null; then
        skip "two hosts (no network namespaces here)"
        return
    fi
    printf '10.77.0.1:1\n10.77.0.2:1\n' >hosts
    if command -v mpirun.openmpi >/dev/null; then
        on_hosts openmpi mpirun.openmpi --bind-to none -n 2 --hostfile "$root/deploy/hostfile" \
            --mca plm_rsh_agent "$root/scripts/local-hosts-agent" --mca mpi_yield_when_idle 1 \
            --mca btl tcp,self --mca btl_tcp_if_include 10.77.0.0/24 \
            --mca oob_tcp_if_include 10.77.0.0/24 -x HEADWAY_MODELS
        for n in 2 4; do
            stop_last openmpi $n mpirun.openmpi --bind-to none -n $n \
                --host "10.77.0.1:$((n / 2)),10.77.0.2:$((n / 2))" \
                --mca plm_rsh_agent "$root/scripts/local-hosts-agent" \
                --mca mpi_yield_when_idle 1 --mca btl tcp,vader,self \
                --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24 \
                -x HEADWAY_MODELS
        done
    fi
    if command -v mpirun.mpich >/dev/null; then
        UCX_TLS=tcp,self on_hosts mpich mpirun.mpich -launcher ssh -iface eth0 -f hosts -n 2 \
            -launcher-exec "$root/scripts/local-hosts-agent"
        for n in 2 4; do
            printf "10.77.0.1:%d\n10.77.0.2:%d\n" $((n / 2)) $((n / 2)) >hosts
            UCX_TLS=tcp,self stop_last mpich $n mpirun.mpich -launcher ssh -iface eth0 -f hosts \
                -n $n -launcher-exec "$root/scripts/local-hosts-agent"
        done
    fi
}

# The launcher's script of deploy/mpijob.yaml, its volume being a folder here.
launcher_script() {
    awk '/^ *args:/ { on = 1; next } on && /volumeMounts:/ { exit }
         on && !/>-/ { sub(/^ +/, ""); printf "%s ", $0 }' "$root/deploy/mpijob.yaml" |
        sed "s|/work/|$work/volume/|g"
}

# As the operator starts it: hosts are in Open MPI's default hostfile, the launcher is none of them.
launch() { # LOG
    OMPI_MCA_orte_keep_fqdn_hostnames=true OMPI_MCA_orte_default_hostfile=$work/volume/hostfile \
        OMPI_MCA_plm_rsh_agent=$root/scripts/local-hosts-agent OMPI_MCA_mpi_yield_when_idle=1 \
        OMPI_MCA_btl=tcp,self OMPI_MCA_btl_tcp_if_include=10.77.0.0/24 \
        OMPI_MCA_oob_tcp_if_include=10.77.0.0/24 PATH=$(dirname "$program"):$PATH \
        timeout -k 3 90 "$root/scripts/local-hosts" run 0 /bin/sh -c "$(launcher_script)" \
        </dev/null >"$1" 2>&1
}

# Four workers train; one is lost with all that runs on it; the launcher, started again, goes on.
mpijob() {
    local i pid code
    if ! command -v mpirun.openmpi >/dev/null || ! "$root/scripts/local-hosts" start 5 2>/dev/null; then
        skip "mpijob.yaml (no Open MPI, or no network namespaces here)"
        return
    fi
    mkdir volume
    sed "s|sources: data, tokenizer: tok.json|sources: $work/data, tokenizer: $work/tok.json|
         s|steps: 60|steps: 400|" r.yaml >volume/recipe.yaml
    printf '10.77.0.%d slots=1\n' 2 3 4 5 >volume/hostfile
    "$program" train volume/recipe.yaml --quiet --set run.name=alone >/dev/null
    echo 'checkpoint: {every: 20}' >>volume/recipe.yaml
    launch mpijob-1.log &
    pid=$!
    for ((i = 0; i < 300; i++)); do
        grep -q '"step":40,' volume/runs/night/metrics.jsonl 2>/dev/null && break
        sleep 0.1
    done
    ip netns pids headway-h3 | xargs -r kill -KILL
    wait $pid
    code=$?
    [ $code -ne 0 ] && ! grep -q '"step":400,' volume/runs/night/metrics.jsonl
    verdict "mpijob.yaml: a worker that is lost ends the launcher (with $code)"
    launch mpijob-2.log
    grep -q 'resuming .* at step' volume/runs/night/log.txt &&
        awk -v a="$(last_loss runs/alone 400)" -v b="$(last_loss volume/runs/night 400)" \
            'BEGIN { d = a - b; exit !(b != "" && d < 1e-3 && d > -1e-3) }'
    verdict "mpijob.yaml: started again, it goes on and trains what one process does"
    "$root/scripts/local-hosts" stop
}

# One of two ranks is stopped, or killed, in mid-run: who, in which call, how soon, with what
# exit code; and the last checkpoint is whole.
lose() { # SIGNAL CODE WORDS SECONDS
    local pid victim begin code i
    sed 's/steps: 60/steps: 100000/' r.yaml >endless.yaml
    "$program" train endless.yaml --ranks 2 --layout dp=2 --quiet --set run.name="lost-$1" \
        --set checkpoint.every=20 >"lost-$1.log" 2>&1 &
    pid=$!
    for ((i = 0; i < 200; i++)); do
        grep -q '"step":100,' "runs/lost-$1/metrics.jsonl" 2>/dev/null && break
        sleep 0.1
    done
    victim=$(pgrep -P $pid | tail -n 1)
    begin=$(date +%s%N)
    kill "-$1" "$victim"
    wait $pid
    code=$?
    echo "        $((($(date +%s%N) - begin) / 1000000)) ms: $(tail -n 1 "lost-$1.log")"
    [ $code -eq "$2" ] && grep -q "rank 1 (pid $victim.*$3" "lost-$1.log" &&
        [ $((($(date +%s%N) - begin) / 1000000)) -lt "$4" ] &&
        "$program" checkpoint verify "runs/lost-$1" >/dev/null
    verdict "a rank lost by SIG$1 is named, with code $2, within $4 ms"
}

prepare
lose STOP 80 'stopped) ' 10000
lose KILL 81 'died' 1500
lose_mpich
slurm
hosts
"$root/scripts/local-hosts" stop
mpijob
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
