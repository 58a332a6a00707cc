#!/bin/sh
# Predicted beside measured step times on this machine: calibrated on one recipe with one rank and with
# two, then asked about other models, batches, lengths and layouts.
#
#     bench/plan_own.sh BUILD/headway SHARDS TOKENIZER [RUNNER...]
#
# $TURNS turns (default 5): in each the calibrating recipe and all cases run once, briefly, one after the
# other, so that what else the machine does meets all alike. Then the microbenchmark and the calibrating
# runs of all turns together say what cases take; a case's time is the median of its turns. RUNNER
# stands before each run (chrt -f 1 on a machine that is busy otherwise).
set -eu
headway=$1 shards=$2 tokenizer=$3 turns=${TURNS:-5}
shift 3
runner="$*"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/recipe.yaml" <<RECIPE
model: {spec: laptop-5m}
data: {sources: $shards, tokenizer: $tokenizer}
train: {steps: 10, batch: 8, seq: 256}
optim: {name: adamw}
run: {dir: $work/runs}
RECIPE

# SETTINGS...: sets $layout and $sets; those that begin with layout: are the layout.
split_settings() {
    layout="" sets=""
    for s in "$@"; do
        case $s in
        layout:*) layout="--layout ${s#layout:}" ;;
        *) sets="$sets --set $s" ;;
        esac
    done
}

# NAME TURN RANKS SETTINGS...: appends the median of the steps behind the first three to NAME.times
measure() {
    name=$1 turn=$2 ranks=$3
    shift 3
    split_settings "$@"
    [ -z "$layout" ] || layout="$layout --ranks $ranks"
    # shellcheck disable=SC2086
    $runner "$headway" train "$work/recipe.yaml" --measure --quiet --set run.name="$name-$turn" \
        $layout $sets --set log.every=1 >/dev/null
    python3 - "$work/runs/$name-$turn/metrics.jsonl" >>"$work/$name.times" <<'MEDIAN'
import json, statistics, sys
steps = [json.loads(line) for line in open(sys.argv[1])]
print(statistics.median([s["step_s"] for s in steps if "step_s" in s][3:]))
MEDIAN
}

cases='
a 1 train.batch=4
b 1 train.batch=16 train.seq=128
c 1 model.spec=laptop-2m
d 1 train.batch=4 train.accumulate=2
e 1 model.spec=laptop-25m train.batch=4
f 2 layout:dp=2 model.spec=laptop-2m
g 2 layout:dp=2,zero=1 train.batch=16
h 2 layout:dp=2 model.spec=laptop-25m train.batch=4
'
uptime
turn=1
while [ "$turn" -le "$turns" ]; do
    measure one "$turn" 1
    measure two "$turn" 2 layout:dp=2
    echo "$cases" | while read -r name ranks rest; do
        # shellcheck disable=SC2086
        [ -z "$name" ] || measure "$name" "$turn" "$ranks" $rest
    done
    turn=$((turn + 1))
done
uptime
# shellcheck disable=SC2086
$runner "$headway" plan calibrate "$work"/runs/one-* "$work"/runs/two-* --quiet \
    --out "$work/here.yaml"
echo "case  ranks  measured s  predicted s   error  least to most measured  settings"
echo "$cases" | while read -r name ranks rest; do
    [ -n "$name" ] || continue
    # shellcheck disable=SC2086
    split_settings $rest
    # shellcheck disable=SC2086
    "$headway" plan predict "$work/recipe.yaml" --rates "$work/here.yaml" --json $layout $sets \
        >"$work/$name.json"
    python3 - "$work/$name" "$ranks" "$rest" <<'ROW'
import json, statistics, sys
name, ranks, rest = sys.argv[1:]
times = list(map(float, open(name + ".times")))
predicted = json.load(open(name + ".json"))["step_seconds"]
measured = statistics.median(times)
print("%-5s %5s %11.4f %12.4f %+6.1f %%  %.4f to %.4f  %s" % (
    name[-1], ranks, measured, predicted, 100 * (predicted / measured - 1), min(times), max(times),
    rest))
ROW
done
