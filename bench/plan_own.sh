#!/bin/sh
# Predicted beside measured step times on this machine: calibrated on one recorded run with one rank and
# one with two, then asked about other models, batches, lengths and layouts.
#
#     bench/plan_own.sh BUILD/headway SHARDS TOKENIZER [RUNNER...]
#
# Three turns: in each, calibration and cases one after the other; the median error counts. RUNNER stands before
# each run (chrt -f 1 on a machine that is busy otherwise).
set -eu
headway=$1 shards=$2 tokenizer=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/recipe.yaml" <<RECIPE
model: {spec: laptop-5m}
data: {sources: $shards, tokenizer: $tokenizer}
train: {steps: 14, batch: 8, seq: 256}
optim: {name: adamw}
run: {dir: $work/runs}
RECIPE

# NAME RANKS SETTINGS...: leaves the median of the steps behind the first four in NAME.R
measure() {
    name=$1 ranks=$2
    shift 2
    rm -rf "$work/runs/$name"
    layout=""
    sets=""
    for s in "$@"; do
        case $s in
        layout:*) layout="--layout ${s#layout:} --ranks $ranks" ;;
        *) sets="$sets --set $s" ;;
        esac
    done
    # shellcheck disable=SC2086
    $runner "$headway" train "$work/recipe.yaml" --measure --quiet --set run.name="$name" $layout \
        $sets --set log.every=1 >/dev/null
    python3 - "$work/runs/$name/metrics.jsonl" >>"$work/$name.times" <<'MEDIAN'
import json, statistics, sys
steps = [json.loads(line) for line in open(sys.argv[1])]
print(statistics.median([s["step_s"] for s in steps if "step_s" in s][4:]))
MEDIAN
}

predict() {
    name=$1
    shift 2
    layout=""
    sets=""
    for s in "$@"; do
        case $s in
        layout:*) layout="--layout ${s#layout:}" ;;
        *) sets="$sets --set $s" ;;
        esac
    done
    # shellcheck disable=SC2086
    "$headway" plan predict "$work/recipe.yaml" --rates "$work/here.yaml" --json $layout $sets \
        >>"$work/$name.json"
}

runner="$*"
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
# In each turn calibrated anew on two runs, so that what else the machine does drifts alike.
for turn in 1 2 3; do
    measure one 1
    measure two 2 layout:dp=2
    "$headway" plan calibrate "$work/runs/one" "$work/runs/two" --quiet >"$work/here.yaml"
    echo "$cases" | while read -r name ranks rest; do
        [ -n "$name" ] || continue
        # shellcheck disable=SC2086
        measure "$name" "$ranks" $rest
        # shellcheck disable=SC2086
        predict "$name" "$ranks" $rest
    done
done
echo "case  ranks  measured s  predicted s  error (of each turn)   settings"
echo "$cases" | while read -r name ranks rest; do
    [ -n "$name" ] || continue
    python3 - "$work/$name" "$ranks" "$rest" <<'ROW'
import json, statistics, sys
name, ranks, rest = sys.argv[1:]
measured = list(map(float, open(name + ".times")))
predicted = [json.loads(line)["step_seconds"] for line in open(name + ".json")]
errors = [100 * (p / m - 1) for p, m in zip(predicted, measured)]
print("%-5s %5s %11.4f %12.4f %+6.1f %% (%s)  %s" % (
    name[-1], ranks, statistics.median(measured), statistics.median(predicted),
    statistics.median(errors), ", ".join("%+.1f" % e for e in errors), rest))
ROW
done
