#!/usr/bin/env python3
"""prove_diagnose.py HEADWAY [--only REGEX] [--seeds N] [--out FILE] | --real [FAMILY]...:
is `headway diagnose` right?

Runs are slowed down in a known way (headway train --inject) beside runs that are not. Of each
slowed run it is asked: is its cause named first, is the place right, and does the predicted gain
hold what the run without the fault really took less? Runs without a fault must have no finding,
and of two faults both must be among the first three.

Here runs of four and more ranks are walked on a clock that is computed, which the machine's noise
does not reach; model, layout, rates, place and level are drawn anew for each. With --real, real
processes train instead (prove_real.py). Prints the scoreboard as Markdown and writes it as one of
two parts of FILE. Python's standard library only."""
import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time

from prove_bench import (Case, command, confusion, details, judge, ladder_moves, lane, moves, ms,
                         pairs, prepare, show, summary, table, tracing_cost)


# --- worlds: what is trained, on how many ranks, at which rates ----------------------------

def rates(r):
    return (f" --rates flops={r.choice([2e10, 5e10, 1e11]):g},memory={r.choice([1e10, 2e10]):g},"
            f"link={r.choice([1e9, 2e9, 4e9]):g},latency={r.choice([1e-5, 2e-5]):g}")


def data(r, ranks=None):
    n = ranks or r.choice([4, 8, 16])
    model = r.choice(["laptop-2m", "laptop-5m"])
    return (f"--layout dp={n},zero=1 --set model.spec={model} --set train.batch={n} "
            f"--set train.accumulate={r.choice([4, 8])} --set train.seq={r.choice([128, 256])}"
            + rates(r)), n


def tensor(r):
    dp = r.choice([2, 4])
    return (f"--layout dp={dp},tp=2,zero=1 --set model.spec=laptop-5m "
            f"--set train.batch={2 * dp} --set train.accumulate=4 "
            f"--set train.seq={r.choice([128, 256])}" + rates(r)), 2 * dp


def pipeline(r):
    pp, dp = r.choice([(2, 2), (2, 4), (4, 2)])
    return (f"--layout pp={pp},dp={dp},zero=1 --set model.spec=laptop-5m "
            f"--set train.batch={4 * dp} --set train.accumulate={8 * pp}"
            + rates(r)), pp * dp


def skewed(r):
    return f"{data(r)[0]} --set train.seq=512", int(re.search(r"dp=(\d+)", data(r)[0]).group(1))


def saved(r):
    flags, n = data(r)
    return flags + ",disk=1e8", n


def evaluated(r):
    flags, n = data(r)
    rows, turns, seq = (int(re.search(rf"{k}=(\d+)", flags).group(1))
                        for k in ("batch", "accumulate", "seq"))
    return f"{flags} --set eval.tokens={4 * rows * turns * seq}", n


def unsplit(r):
    n = r.choice([4, 8])
    return (f"--layout dp={n} --set model.spec=laptop-5m --set train.batch={n} "
            f"--set train.accumulate={n} --set train.seq={r.choice([64, 128])}"
            f" --rates flops={r.choice([5e10, 1e11]):g},memory=2e10,link=2e9,latency=1e-4"), n


def short(r):
    n = r.choice([4, 8])
    return (f"--layout dp={n},zero=1 --set model.spec=laptop-5m --set train.batch={n} "
            f"--set train.accumulate=1 --set train.seq={r.choice([32, 64])}"
            f" --rates flops=1e11,memory={r.choice([1e10, 2e10]):g},link=4e9,latency=1e-5"), n


def thin(r):
    n = r.choice([4, 8])
    return (f"--layout dp={n},zero=1 --set model.spec=laptop-5m --set train.batch={16 * n} "
            f"--set train.accumulate=1 --set train.seq=32"
            f" --rates flops=2e11,memory={r.choice([4e9, 5e9]):g},link=8e9,"
            f"latency=1e-5"), n


def long_pipeline(r):
    return (f"--layout pp=2,dp=2,zero=1 --set model.spec=laptop-5m --set train.batch=4 "
            f"--set train.accumulate=96 --set train.seq=64 --rates flops=1e11,memory=2e10,"
            f"link={r.choice([2e8, 3e8]):g},latency=1e-5"), 4


def thin_pipeline(r):
    return (f"--layout pp=2,dp=2,zero=1 --set model.spec=laptop-5m --set train.batch=16 "
            f"--set train.accumulate=32 --set train.seq=32 --rates "
            f"flops={r.choice([2e11, 3e11]):g},memory=4e9,link=4e9,latency=1e-5"), 4


def two(r):
    return (f"--layout dp=2,zero=1 --set model.spec=laptop-5m "
            f"--set train.batch={r.choice([2, 4])} --set train.accumulate=8 --set train.seq=128"
            + rates(r)), 2


def six(r):
    return (f"--layout dp=6,zero={r.choice([1, 2, 3])} --set model.spec=laptop-5m "
            f"--set train.batch=12 --set train.accumulate={r.choice([2, 4])} --set train.seq=128"
            f" --rates flops=3e10,memory={r.choice([1e10, 2e10]):g},link=8e9,latency=1e-5"), 6


def wide_tensor(r):
    return ("--layout tp=4 --set model.spec=laptop-5m --set train.batch=4 --set train.accumulate=4 "
            f"--set train.seq={r.choice([128, 256])} --rates flops=5e10,memory=2e10,link=8e9,"
            f"latency={r.choice([5e-6, 1e-5]):g}"), 4


def parted(r):
    cp, dp = r.choice([(2, 2), (4, 1)])
    return (f"--layout cp={cp},dp={dp},zero={dp - 1} --set model.spec=laptop-5m "
            f"--set train.batch={2 * dp} --set train.accumulate=4 --set train.seq=512 "
            "--rates flops=5e10,memory=2e10,link=4e9,latency=1e-5"), 4


def experts(r):
    ep, dp = r.choice([(4, 4), (2, 8)])
    return (f"--layout dp={dp},ep={ep},zero=1 --set model.spec=laptop-moe --set train.batch=8 "
            f"--set train.accumulate=2 --set train.seq={r.choice([128, 256])} "
            "--rates flops=5e10,memory=2e10,link=8e9,latency=1e-5"), dp


def lone_stages(r):
    return (f"--layout pp=4,schedule={r.choice(['1f1b', 'zb-h1'])} --set model.spec=laptop-5m "
            "--set train.batch=4 --set train.accumulate=32 --set train.seq=128"
            + rates(r)), 4


def two_stages(r):
    return ("--layout pp=2 --set model.spec=laptop-5m --set train.batch=4 --set train.accumulate=32 "
            "--set train.seq=128" + rates(r)), 2


def rings_of_four(r):
    return ("--layout tp=4,dp=2 --set model.spec=laptop-5m --set train.batch=4 "
            f"--set train.accumulate=2 --set train.seq={r.choice([64, 128])} "
            "--rates flops=5e10,memory=2e10,link=8e9,latency=1e-5"), 8


def stages_of_two(r):
    return (f"--layout pp=4,dp=2,zero=1 --set model.spec=laptop-5m --set train.batch=8 "
            "--set train.accumulate=64 --set train.seq=128" + rates(r)), 8


def cube(r):
    return ("--layout pp=2,tp=2,dp=2,zero=1 --set model.spec=laptop-5m --set train.batch=4 "
            f"--set train.accumulate=32 --set train.seq={r.choice([64, 128])} "
            "--rates flops=5e10,memory=2e10,link=8e9,latency=1e-5"), 8


def tensor_pairs(r):
    return ("--layout dp=4,tp=2,zero=1 --set model.spec=laptop-5m --set train.batch=8 "
            f"--set train.accumulate=2 --set train.seq={r.choice([128, 256])} "
            f"--rates flops={r.choice([4e10, 8e10]):g},memory=2e10,link=4e9,latency=1e-5"), 8


def unsplit_experts(r):
    ep = r.choice([2, 4])
    return (f"--layout dp=8,ep={ep} --set model.spec=laptop-moe --set train.batch=8 "
            f"--set train.accumulate=2 --set train.seq={r.choice([64, 128])} "
            f"--rates flops=1e11,memory=2e10,link={r.choice([5e8, 1e9]):g},latency=5e-5"), 8


def one_pass(r):
    """Gathers of what each rank updates stay behind the pass that could hide sums."""
    n = r.choice([4, 8])
    return (f"--layout dp={n},zero=1 --set model.spec=laptop-2m --set train.batch={n} "
            f"--set train.accumulate=2 --set train.seq={r.choice([128, 256])} "
            f"--rates flops=2e10,memory=2e10,link={r.choice([2e8, 4e8]):g},latency=1e-5"), n


def turned(r):
    """tp on the outside: its ranks are four apart."""
    return ("--layout dp=4,tp=2,zero=1,order=dp-tp-pp --set model.spec=laptop-5m "
            f"--set train.batch=8 --set train.accumulate={r.choice([4, 8])} "
            f"--set train.seq={r.choice([128, 256])}" + rates(r)), 8


def turned_cube(r):
    return (f"--layout pp=2,tp=2,dp=2,order={r.choice(['pp-dp-tp', 'dp-pp-tp'])} "
            "--set model.spec=laptop-5m --set train.batch=4 --set train.accumulate=32 "
            f"--set train.seq={r.choice([64, 128])} "
            "--rates flops=5e10,memory=2e10,link=8e9,latency=1e-5"), 8


# --- faults --------------------------------------------------------------------------------
# fault(x, c, r, n): what to inject so that a step becomes about 1 + x times as long; c: what
# diagnose says of the clean run; and the place that must be named: {} everywhere.

def somewhere(text, key="rank"):
    def fault(x, c, r, n):
        rank = r.randrange(n)
        return text(x, c, r) + f"@{rank}", {key: rank}
    return fault


def everywhere(text):
    return lambda x, c, r, n: (text(x, c, r), {})


def neighbours(text):
    """On the ranks from one to another."""
    def fault(x, c, r, n):
        first = r.randrange(n // 2)
        last = first + r.randrange(1, n // 2)
        return text(x, c, r) + f"@{first}-{last}", {"rank": first, "last_rank": last}
    return fault


def shared_episode(x, c, r, n):
    first = r.randrange(10, 16)
    last = first + r.randrange(12, 18)
    return f"slow_compute={1 + 2 * x:.3f}:{first}-{last}", {"first_step": first, "last_step": last}


def episode(x, c, r, n, fault="slow_compute={:.3f}"):
    rank, first = r.randrange(n), r.randrange(10, 16)
    last = first + r.randrange(12, 18)
    return fault.format(1 + 2 * x) + f"@{rank}:{first}-{last}", {
        "rank": rank, "first_step": first, "last_step": last}


def hot_for_a_time(x, c, r, n):
    text, where = episode(x, c, r, n, "{:.3f}")
    slower, rest = text.split("@")
    return f"phi_override={1 / float(slower):.3f}@{rest}", where


def late_batches(x, c, r, n):
    text, where = episode(x, c, r, n, "{:.3f}")
    return f"loader_spin={ms(c['step_s'] * (1 + 2 * x))}@{text.split('@')[1]}", where


def whole_stage(x, c, r, n):
    """One in the middle: those at the ends have less to do."""
    first = 2 * r.choice([1, 2])
    return f"slow_compute={1.15 + x:.3f}@{first}-{first + 1}", {"rank": first,
                                                               "last_rank": first + 1}


def pair(x, c, r, n):
    a = 2 * r.randrange(n // 2)
    rate = lane(c, "tp")["bytes"] / (x * c["step_s"])
    return f"pair_bw={a}-{a + 1}:{1e-6 * rate:.6f}MB/s", {"rank": a, "peer": a + 1}


def spaced_ring(x, c, r, n):
    """A link of a ring that every other rank is in."""
    first, place = r.randrange(2), 2 * r.randrange(3)
    busy = lane(c, "dp")
    rate = busy["bytes"] / (x * c["step_s"] + busy["busy_s"])
    return (f"pair_bw={first + place}-{first + place + 2}:{1e-6 * rate:.6f}MB/s",
            {"rank": first + place, "peer": first + place + 2})


def apart(x, c, r, n):
    """Two ranks that are no neighbours."""
    first = r.randrange(n - 2)
    second = r.randrange(first + 2, n)
    return (f"slow_compute={1 + x:.3f}@{first},slow_compute={1 + x:.3f}@{second}",
            {"ranks": [first, second]})


def slow_op(x, c, r, n):
    return f"op=attention,delay={ms(x * c['step_s'] / (6 * c['micro_batches']))}", {"op": "attention"}


def only_ring(x, c, r, n):
    """A link of the only ring there is: what was measured before the run tells which."""
    busy, a = lane(c, "dp"), r.randrange(n - 1)
    rate = busy["bytes"] / (x * c["step_s"] + busy["busy_s"])
    return f"pair_bw={a}-{a + 1}:{1e-6 * rate:.6f}MB/s", {"rank": a, "peer": a + 1}


def between_hosts(x, c, r, n):
    """Slow links between two halves of the ranks."""
    busy = lane(c, "tp")
    rate = 1e-6 * busy["bytes"] / (x * c["step_s"] + busy["busy_s"])
    return ",".join(f"pair_bw={a}-{b}:{rate:.6f}MB/s" for a in range(n // 2)
                    for b in range(n // 2, n)), {"lane": "tp"}


def usual_order(flags):
    return re.sub(",order=[a-z-]+", "", flags)


def slow_tensor(x, c, r, n):
    busy = lane(c, "tp")
    return f"comm_bw={1e-6 * busy['bytes'] / (x * c['step_s'] + busy['busy_s']):.6f}MB/s", {}


def slow_end(x, c, r, n):
    text, _ = slow_tensor(x, c, r, n)
    rank = r.randrange(n)
    return f"{text}@{rank}", {"rank": rank}


def comm(x, c, r, n):
    hidden = c["times"]["compute_s"] * 0.9 / c["micro_batches"]
    busy = lane(c, "dp")
    rate = busy["bytes"] / (x * c["step_s"] + 0.6 * hidden)
    return f"comm_bw={1e-6 * rate:.6f}MB/s", {}


def skew(x, c, r, n):
    return f"stage_skew={1 if x < 0.3 else 2}", {"stage": c["stages"] - 1}


VIRTUAL = [
    Case("D1", "loader_spin", data, everywhere(
        lambda x, c, r: f"loader_spin={ms(c['step_s'] * (1 + x))}"), None, ["D2"]),
    Case("D1", "loader_spin@r", data, somewhere(
        lambda x, c, r: f"loader_spin={ms(c['step_s'] * (1 + x))}"), None, ["D2"]),
    Case("D2", "loader_bw@r", data, somewhere(lambda x, c, r: "loader_bw={:.9f}MB/s".format(
        1e-6 * c["loader_bytes"] / (c["step_s"] * (1 + x)))), None, ["D1"]),
    Case("D4", "loader_lognormal@r", data, somewhere(
        lambda x, c, r: f"loader_lognormal={ms(c['step_s'] * (1.3 + 2 * x))}"), None, []),
    Case("H9", "pause@r", data, somewhere(
        lambda x, c, r: f"pause={ms(8 * x * c['step_s'])}/8"), None, []),
    Case("K4", "phi_override", data, everywhere(
        lambda x, c, r: f"phi_override={1 / (1 + x):.3f}"), None, []),
    Case("K4", "phi_override@r", data, somewhere(
        lambda x, c, r: f"phi_override={1 / (1 + x):.3f}"), None, []),
    Case("K4", "phi_override@r, tensor", tensor, somewhere(
        lambda x, c, r: f"phi_override={1 / (1 + x):.3f}"), None, []),
    Case("K10", "recompute", data, everywhere(
        lambda x, c, r: "recompute=full"), None, []),
    Case("B1", "slow_compute@r", data, somewhere(
        lambda x, c, r: f"slow_compute={1 + x:.3f}"), None, []),
    Case("B1", "slow_compute@r, tensor", tensor, somewhere(
        lambda x, c, r: f"slow_compute={1 + x:.3f}"), None, []),
    Case("B1", "slow_compute@r, pipeline", pipeline, somewhere(
        lambda x, c, r: f"slow_compute={1.25 + x:.3f}"), None, ["B5"]),
    Case("B2", "slow_compute@r:a-b", data, episode, None, []),
    Case("B3", "jitter", data, everywhere(
        lambda x, c, r: f"jitter={100 * x:.0f}%"), None, ["H8"]),
    Case("B4", "stage_skew", pipeline, skew, None, ["B5"]),
    Case("C4", "comm_bw", data, comm, None, ["C10"]),
    Case("C5", "comm_delay", data, everywhere(
        lambda x, c, r: f"comm_delay={ms(x * c['step_s'] / 2)}"), None, []),
    Case("C11", "pair_bw", tensor, pair, None, []),
    Case("C11", "pair_bw, rings of four", rings_of_four, pair, None, []),
    Case("D5", "padding", data, everywhere(lambda x, c, r: f"padding={100 * x:.0f}%"), False, []),
    Case("D6", "seqlen_zipf", skewed, everywhere(
        lambda x, c, r: f"seqlen_zipf={1.2 if x < 0.3 else 0.8}"), False, []),
    Case("H2", "eval_every", evaluated, everywhere(
        lambda x, c, r: f"eval_every={max(2, round(1.33 / x))}"), None, []),
    Case("H3", "ckpt_every", saved, everywhere(
        lambda x, c, r: "ckpt_every={}".format(max(2, min(12, round(
            0.7 * lane(c, "dp")["bytes"] / 1e8 / (x * c["step_s"])))))), None, []),
    Case("H6", "health_every", short, everywhere(
        lambda x, c, r: f"health_every={2 if x < 0.3 else 1}"), None, []),
    Case("K7", "micro_batch", thin, everywhere(
        lambda x, c, r: f"micro_batch={4 if x < 0.3 else 2}"), None, []),
    Case("K14", "zero", short, everywhere(lambda x, c, r: "zero=0"), None, []),
    Case("C1", "overlap", unsplit, everywhere(lambda x, c, r: "overlap=off"), None, []),
    Case("C2", "bucket", unsplit, everywhere(
        lambda x, c, r: f"bucket={64 if x < 0.3 else 16}KiB"), None, []),
    Case("C3", "bucket=all", unsplit, everywhere(lambda x, c, r: "bucket=all"), None, []),
    Case("C10", "sync_every_microbatch", long_pipeline, everywhere(
        lambda x, c, r: "sync_every_microbatch=on"), None, []),
    Case("B5", "accumulate", pipeline, everywhere(
        lambda x, c, r: f"accumulate={4 if x < 0.3 else 2}"), False, []),
    Case("B6", "micro_batch", thin_pipeline, everywhere(
        lambda x, c, r: f"micro_batch={4 if x < 0.3 else 2}"), None, []),
    # Other layouts; several ranks, or all of them.
    Case("D1", "loader_spin@a-b, six", six, neighbours(
        lambda x, c, r: f"loader_spin={ms(c['step_s'] * (1 + x))}"), None, ["D2"]),
    Case("D4", "loader_lognormal, two", two, everywhere(
        lambda x, c, r: f"loader_lognormal={ms(c['step_s'] * (1.3 + 2 * x))}"), None, []),
    Case("H9", "pause, two", two, everywhere(
        lambda x, c, r: f"pause={ms(5 * x * c['step_s'])}/5"), None, []),
    Case("H9", "pause@r, cube", cube, somewhere(
        lambda x, c, r: f"pause={ms(11 * (0.1 + x) * c['step_s'])}/11"), None, []),
    Case("K4", "phi_override@a-b, experts", experts, neighbours(
        lambda x, c, r: f"phi_override={1 / (1 + x):.3f}"), None, []),
    Case("B1", "slow_compute@a-b, six", six, neighbours(
        lambda x, c, r: f"slow_compute={1 + x:.3f}"), None, []),
    Case("B1", "slow_compute@r, parted", parted, somewhere(
        lambda x, c, r: f"slow_compute={1 + x:.3f}"), None, []),
    Case("B1", "slow_compute@r, lone stages", lone_stages, somewhere(
        lambda x, c, r: f"slow_compute={1.25 + x:.3f}"), None, ["B5"]),
    Case("B1", "slow_compute@a-b, stages of two", stages_of_two, whole_stage, None, ["B5"]),
    Case("B2", "slow_compute:a-b, two", two, shared_episode, None, []),
    Case("K4", "phi_override@r:a-b", data, hot_for_a_time, None, []),
    Case("B3", "jitter, six", six, everywhere(
        lambda x, c, r: f"jitter={100 * x:.0f}%"), None, ["H8"]),
    Case("C4", "comm_bw, wide tensor", wide_tensor, slow_tensor, None, ["C10"]),
    # Where ranks meet in each task, or have no peers.
    Case("B3", "jitter, wide tensor", wide_tensor, everywhere(
        lambda x, c, r: f"jitter={100 * x:.0f}%"), None, ["H8"]),
    Case("B3", "jitter, lone stages", lone_stages, everywhere(
        lambda x, c, r: f"jitter={100 * x:.0f}%"), None, ["H8"]),
    Case("B1", "slow_compute@r, two stages", two_stages, somewhere(
        lambda x, c, r: f"slow_compute={1.25 + x:.3f}"), None, ["B5"]),
    Case("D1", "loader_spin@r:a-b", data, late_batches, None, ["D2"]),
    Case("C4", "comm_bw@r, tensor", tensor, slow_end, None, ["C10"]),
    Case("C5", "comm_delay@r, tensor", tensor, somewhere(
        lambda x, c, r: f"comm_delay={ms(x * c['step_s'] / lane(c, 'tp')['calls'])}"), None, []),
    # Ranks that are no range; sums of gradients over several axes; an op on all ranks.
    Case("C11", "pair_bw, every other rank", tensor_pairs, spaced_ring, None, []),
    Case("C11", "pair_bw, the only ring", data, only_ring, None, []),
    Case("B1", "slow_compute@r, r", six, apart, None, []),
    Case("C1", "overlap, experts", unsplit_experts, everywhere(
        lambda x, c, r: "overlap=off"), None, []),
    Case("C2", "bucket, experts", unsplit_experts, everywhere(
        lambda x, c, r: f"bucket={64 if x < 0.3 else 16}KiB"), None, []),
    Case("C3", "bucket=all, experts", unsplit_experts, everywhere(
        lambda x, c, r: "bucket=all"), None, []),
    Case("C3", "bucket=all, one pass", one_pass, everywhere(
        lambda x, c, r: "bucket=all"), None, []),
    # Axes that cross hosts: mending gives back what the same links cost in another order.
    Case("C7", "pair_bw between hosts", turned, between_hosts, usual_order, []),
    Case("C7", "pair_bw between hosts, cube", turned_cube, between_hosts, usual_order, []),
    Case("K6", "op", tensor_pairs, slow_op, None, []),
    Case("D4", "loader_lognormal", data, everywhere(
        lambda x, c, r: f"loader_lognormal={ms(c['step_s'] * (2.5 + 6 * x))}"), None, []),
    Case("B3", "jitter@r", data, somewhere(lambda x, c, r: f"jitter={100 * (0.1 + x):.0f}%"),
         None, []),
]

PAIRS = [
    ("B1 C4", "slow_compute=1.5@1", comm), ("D1 K4", "phi_override=0.7@1", VIRTUAL[1].fault),
    ("K4 C4", "phi_override=0.7", comm), ("H9 B1", "slow_compute=1.4@2", VIRTUAL[4].fault),
]
SETTINGS = [ # pairs that are settings of a world
    ("B4 B5", "stage_skew=1,accumulate=4", "--layout pp=4,dp=2 --set model.spec=laptop-5m "
     "--set train.batch=8 --set train.accumulate=16"),
    ("K7 C2", "micro_batch=4,bucket=64KiB", "--layout dp=4 --set model.spec=laptop-5m --set "
     "train.batch=64 --set train.accumulate=1 --set train.seq=32 --rates "
     "flops=2e11,memory=4e9,link=8e9,latency=1e-4"),
]


# --- running -------------------------------------------------------------------------------

class Bench:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.runs, self.diagnose_s = 0, []

    def run(self, flags, fault=None):
        """What diagnose says of a run with these flags."""
        self.runs += 1
        name = f"r{self.runs}"
        command([self.program, "train", "r.yaml", "--quiet", "--set", f"run.name={name}",
                 *flags.split(), *(["--inject", fault] if fault else [])], self.folder)
        begin = time.monotonic()
        found = json.loads(command([self.program, "diagnose", f"runs/{name}", "--json"],
                                   self.folder))
        self.diagnose_s.append(time.monotonic() - begin)
        shutil.rmtree(f"{self.folder}/runs/{name}")
        given = dict(re.findall(r"([a-z_.]+)=(\d+)", flags))
        found["micro_batches"] = int(given.get("train.accumulate", 8))
        found["stages"] = int(given.get("pp", 1))
        return found


def trials(bench, cases, seeds, cleans):
    """A verdict for each fault; runs without one are added to cleans."""
    for c in cases:
        for seed in range(seeds):
            for level, x in (("mild", 0.13), ("strong", 0.5)):
                r = random.Random(f"{c.name} {seed} {level}")
                flags, n = c.world(r)
                flags += " --clock virtual"
                clean = bench.run(flags)
                fault, where = c.fault(x * r.uniform(0.85, 1.3), clean, r, n)
                faulty = bench.run(flags, fault)
                noise = 3 * (faulty["step_se_s"] ** 2 + clean["step_se_s"] ** 2) ** 0.5
                true = faulty["step_s"] - clean["step_s"] if c.gain is None else None
                if callable(c.gain): # what mends it is another setting, with the same fault
                    true = faulty["step_s"] - bench.run(c.gain(flags), fault)["step_s"]
                v = judge(c, fault, where, faulty, true, noise)
                show(v, flags)
                # noise 0, of the table: nothing wanders here
                yield v._replace(noise=0, moved=moves(clean, faulty))
                if c.world not in (pipeline, unsplit, unsplit_experts, cube, turned_cube, lone_stages,
                                   two_stages): # which have a bubble, and copies
                    cleans.append(clean)
                    for f in clean["findings"][:1]:
                        print(f"clean {flags}: {f['id']} {f['gain_s']}", flush=True)


def try_pairs(bench):
    """Of two faults, are both among the first three?"""
    rows = []

    def judge_pair(kinds, flags, fault):
        ids = [f["id"] for f in bench.run(f"{flags} --clock virtual", fault)["findings"][:3]]
        rows.append((kinds, fault, ids, all(k in ids for k in kinds.split())))
        print(f"{kinds}: {ids}", flush=True)
    for kinds, one, other in PAIRS:
        r = random.Random(kinds)
        flags, n = data(r, 8)
        clean = bench.run(f"{flags} --clock virtual")
        two, _ = other(0.9 if "D1" in kinds else 0.4, clean, r, n)
        judge_pair(kinds, flags, f"{one},{two}")
    for kinds, fault, flags in SETTINGS:
        judge_pair(kinds, flags, fault)
    return rows


# --- the page ------------------------------------------------------------------------------

HEAD = """# Is the diagnosis right?

Made by `./run prove-diagnose`: runs that were slowed down in a known way, and what
`headway diagnose` says of them. Runs on a computed clock have no noise, so their part is how
well causes are told apart and priced, not how well in noise. The part of real ranks, made by
`./run prove-diagnose --real`, is of real processes, in a real machine's noise.
Where a fault changes which rows are computed, what it adds is not what mending gives back: there only
cause and place are judged.
"""
VIRTUAL_TITLE, REAL_TITLE = "## Two to sixteen ranks on a computed clock", "## Real ranks"
COST_TITLE = "## What tracing costs"


def write_part(path, title, lines):
    """Replaces one part of the page and leaves the other."""
    parts = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for part in re.split(r"^(?=## )", file.read(), flags=re.M)[1:]:
                parts[part.split("\n", 1)[0]] = part.rstrip() + "\n"
    parts[title] = "\n".join([title, "", *lines]) + "\n"
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join([HEAD, *(parts[t] for t in (COST_TITLE, VIRTUAL_TITLE, REAL_TITLE)
                                      if t in parts)]))


def show_part(a, title, lines):
    print("\n".join(lines))
    if lines and a.out and not a.only:
        write_part(a.out, title, lines)


def virtual(program, only, seeds):
    with tempfile.TemporaryDirectory() as folder:
        bench, cleans = Bench(program, folder), []
        prepare(program, folder)
        wanted = [c for c in VIRTUAL if re.search(only, f"{c.kind} {c.name}")]
        verdicts = list(trials(bench, wanted, seeds, cleans))
        out = table(summary(verdicts, cleans, bench.diagnose_s)) + confusion(verdicts)
        out += ladder_moves(verdicts)
        if not only:
            out += pairs(try_pairs(bench))
        return out + details(verdicts)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    p.add_argument("program")
    p.add_argument("--only", default="")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--real", nargs="*", metavar="FAMILY")
    p.add_argument("--fresh", action="store_true", help="with --real: forget what was run")
    p.add_argument("--judge", action="store_true", help="with --real: run nothing more")
    p.add_argument("--backend", default="auto", metavar="NAME",
                   help="with --real: kernels of the runs that compute, such as those whose rate is the "
                   "steadiest here")
    p.add_argument("--realtime", action="store_true",
                   help="with --real: runs come before all else on the machine, which then stands "
                   "still for seconds")
    p.add_argument("--tracing", action="store_true", help="only what tracing costs")
    p.add_argument("--out")
    a = p.parse_args()
    program = os.path.abspath(a.program)
    if a.tracing:
        show_part(a, COST_TITLE, tracing_cost(program))
        return
    title, lines = VIRTUAL_TITLE, None
    if a.real is None:
        lines = virtual(program, a.only, a.seeds)
    else:
        import prove_real # pylint: disable=import-outside-toplevel # only where it is asked for
        title = REAL_TITLE
        lines = prove_real.prove(program, a.real, a.only, a.fresh, a.judge, a.backend,
                                 a.realtime)
    show_part(a, title, lines)
    if not a.only and not a.judge:
        show_part(a, COST_TITLE, tracing_cost(program))


if __name__ == "__main__":
    sys.exit(main())
