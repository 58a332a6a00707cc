#!/bin/bash
# The demo's books on one process, on eight of MPI, and on eight of a Slurm job: ./run prove-curve.
# The curves must lie on each other; they are drawn into docs/curves.svg. Ends with "N passed, M
# failed, K skipped".
set -u
cd "$(dirname "$0")/../.." || exit 1
root=$PWD program=$PWD/build/release/headway recipe=$PWD/recipes/demo-ranks.yaml
layout=dp=2,tp=2,pp=2 most_apart=1e-4
work=$(mktemp -d /tmp/hwc.XXXX) # short: sockets lie below it
passed=0 failed=0 skipped=0 curves=()
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 HEADWAY=$program
export HEADWAY_RUNS=$work/runs SLURM_CONF=$work/slurm/slurm.conf

finish() {
    "$root/scripts/local-slurm" stop "$work/slurm"
    rm -rf "$work"
}
trap finish EXIT

train() { # RUN LAYOUT COMMAND...
    local name=$1 layout=$2
    shift 2
    "$@" "$program" train "$recipe" --layout "$layout" --quiet --set run.dir="$work/runs" \
        --set run.name="$name" >"$work/$name.log" 2>&1
}

compare() { # RUN: with one process
    local apart
    apart=$(scripts/curves-svg "$work/runs/one" "$work/runs/$1" 2>&1 >/dev/null | tail -n 1)
    if awk -v a="$apart" -v m="$most_apart" 'BEGIN { exit !(a + 0 == a && a <= m) }'; then
        echo "ok      $1: no step's loss differs by more than $apart"
        passed=$((passed + 1)) curves+=("$work/runs/$1")
    else
        echo "FAILED  $1: $apart"
        tail -n 5 "$work/$1.log"
        failed=$((failed + 1))
    fi
}

skip() {
    echo "SKIP    $1" && skipped=$((skipped + 1))
}

train one pp=1 env || { cat "$work/one.log" && exit 1; }
curves=("$work/runs/one")
if command -v mpirun >/dev/null; then
    over= # more ranks than cores, which Open MPI must be told
    mpirun --version 2>&1 | grep -q 'Open MPI' && over=--oversubscribe
    train eight-by-mpi "$layout" mpirun $over -n 8
    compare eight-by-mpi
else
    skip "mpirun (apt-get install openmpi-bin or mpich)"
fi
if command -v slurmctld munged >/dev/null; then
    CPUS=8 scripts/local-slurm start "$work/slurm"
    (cd "$work" && timeout 900 sbatch --parsable --wait --ntasks=8 --chdir="$root" \
        --output="$work/eight-by-slurm.log" "$root/deploy/slurm.sbatch" "$recipe" "$layout" \
        eight-by-slurm >/dev/null)
    compare eight-by-slurm
else
    skip "Slurm (apt-get install slurm-wlm slurm-wlm-basic-plugins munge)"
fi
scripts/curves-svg "${curves[@]}" >docs/curves.svg 2>/dev/null
echo "$passed passed, $failed failed, $skipped skipped; docs/curves.svg"
[ "$failed" -eq 0 ]
