#!/usr/bin/env python3
"""ByteDance's public traces of stragglers, through our own graph of steps.

    straggler_traces.py HEADWAY DATA FOLDER

DATA holds trace-AR.parquet, trace-ST.parquet and trace-SE.parquet of the repository
ByteDance-Seed/StragglerAnalysis (Apache 2.0), which publishes what its own simulator finds in them.
Each becomes a recorded run in FOLDER, with one rank per pipeline stage and data-parallel copy, which
`headway trace stragglers` reads as any other. Their medians of transfers are over all steps, ours
over those of a step, so the results differ a little: ends with 1 when S is off by more than 2 %, M_W by
0.05 or M_S by 0.1, or when another rank is blamed.
"""
import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import peer

# Their results: blocking_slowdown, Mw, Ms; and (dp rank, stage) of the rank that AR slowed down.
PUBLISHED = {"AR": (1.973, 1.002, -0.001, (0, 0)), "ST": (1.179, 0.031, 1.219, None),
             "SE": (1.537, 0.025, 0.688, None)}
LANES = 12
TP, CP, DP, SHARD, COPIES, PP, TIE = range(1, 8)
COMPUTE_SPAN, HOST_SPAN = 0, 1
TASK, CALL, MEET, STEP = 0, 1, 9, 3
FORWARD_SEGMENTS = {"forward-recv": 0, "forward-compute": 1, "forward-send": 2,
                    "backward-recv": 3, "backward-compute": 4, "backward-send": 5}
UPDATE = 7


def chunk(kind, payload, digest):
    head = struct.pack("<4sIQ", kind, digest(payload, int.from_bytes(kind, "little")) & 0xffffffff,
                       len(payload))
    return head + payload + b"\0" * (-len(payload) % 8)


def head_of(rank, dp_rank, stage, dp, pp):
    at = lambda d, s: s * dp + d  # noqa: E731
    groups = [[] for _ in range(LANES)]
    groups[DP] = [at(d, stage) for d in range(dp)]
    if stage in (0, pp - 1):
        groups[TIE] = [at(dp_rank, 0), at(dp_rank, pp - 1)]
    boundaries = [[at(dp_rank, b), at(dp_rank, b + 1)] if stage in (b, b + 1) else []
                  for b in range(pp - 1)]
    return {"version": 1, "rank": rank, "ranks": dp * pp, "part": 1, "layout": f"pp={pp},dp={dp}",
            "host": "trace", "pid": 1, "backend": "", "processor": "", "precision": "bf16",
            "threads": 1, "cores": 1, "flops_f32": 0, "flops_bf16": 0, "memory_bytes_per_s": 0,
            "launch_s": 0, "begin_ns": 0, "wall_begin": 0.0,
            "mesh": {"islands": [0, 1], "pp": [stage, pp], "dp": [dp_rank, dp], "cp": [0, 1],
                     "tp": [0, 1], "ep": [0, 1], "zero": 1},
            "groups": groups, "boundaries": boundaries}


class Program:
    """The table of one rank: its operations in the order in which they must begin."""

    def __init__(self):
        self.tensors, self.tasks, self.segments, self.actions, self.places = [], [], [], [], {}

    def tensor(self, name):
        if name not in self.tensors:
            self.tensors.append(name)
        return self.tensors.index(name)

    def add(self, key, kind, lane, reads, writes, boundary=-1, flags=0):
        reads = [self.tensor(t) for t in reads]
        writes = [self.tensor(t) for t in writes]
        self.segments.append([kind, 0, len(self.tasks), 1])
        self.actions.append([len(self.segments) - 1, 0])
        self.places[key] = (len(self.actions) - 1, len(self.tasks))
        self.tasks.append([key[0], -1, 0, 0, lane, 0, flags, boundary, 1, False, 0, 0, 0, 0, 0,
                           reads, writes, []])

    def json(self):
        return {"name": "step", "B": 1, "T": 1, "micro_batches": 1, "flops": 0, "model_flops": 0,
                "tensors": [[t, 1, 1] for t in self.tensors], "tasks": self.tasks,
                "segments": self.segments, "actions": self.actions}


def program_of(ops, stage, pp):
    """ops: (start, optype, seq) of one rank's step, sorted by start."""
    p, last, names = Program(), pp - 1, {o[1] for o in ops}
    if "params-all-gather" in names:
        p.add(("params-all-gather", 0), 0, DP, [], ["weights"])
    for _, optype, seq in ops:
        if optype not in ("forward-compute", "backward-compute"):
            continue
        way = optype.split("-")[0]
        first, final, up = (0, last, 128) if way == "forward" else (last, 0, 0)
        below, beyond = (stage - 1, stage) if way == "forward" else (stage, stage - 1)
        kind = FORWARD_SEGMENTS[optype]
        reads = ["weights"]
        if stage != first and (f"{way}-recv" in names):
            p.add((f"{way}-recv", seq), kind - 1, PP, [], [f"{way} in {seq}"], below, 64 | up)
            reads.append(f"{way} in {seq}")
        p.add((optype, seq), kind, 0, reads, [f"{way} out {seq}"])
        if stage != final and (f"{way}-send" in names):
            p.add((f"{way}-send", seq), kind + 1, PP, [f"{way} out {seq}"], [], beyond, 32 | up)
    p.add(("layernorm-grads-all-reduce", 0), UPDATE, 0, [], ["gradients"])
    if "embedding-grads-all-reduce" in names:
        p.add(("embedding-grads-all-reduce", 0), UPDATE, TIE, ["gradients"], ["gradients"])
    if "grads-reduce-scatter" in names:
        p.add(("grads-reduce-scatter", 0), UPDATE, DP, ["gradients"], ["gradients"])
    p.add(("optimizer", 0), UPDATE, 0, ["gradients"], ["weights"])
    return p


def spans_of(program, rows, step):
    spans = []
    begin = min(r[0] for r in rows)
    for start, optype, seq, duration in rows:
        a, b = int(1e9 * start) + 1000, int(1e9 * (start + duration)) + 1000
        if optype == "optimizer-clip-main-grad":
            spans.append((a, b, step, 0, 0, HOST_SPAN, MEET, 0))
        elif (optype, seq) in program.places:
            action, task = program.places[(optype, seq)]
            lane = program.tasks[task][4]
            spans.append((a, b, step, task, action, 4 + lane - 1 if lane else COMPUTE_SPAN,
                          CALL if lane else TASK, 0))
    end = max(s[1] for s in spans)
    spans.append((int(1e9 * begin), end, step, 0, 0, HOST_SPAN, STEP, 0))
    return sorted(spans, key=lambda s: (s[5], s[1]))


def convert(path, folder):
    pandas, xxhash = peer.need("pandas"), peer.need("xxhash")
    digest = lambda data, seed: xxhash.xxh3_64_intdigest(data, seed)  # noqa: E731
    table = pandas.read_parquet(path)
    table["optype"] = table["optype"].astype(str)
    dp, pp = int(table.dp_rank.max()) + 1, int(table.stage.max()) + 1
    folder.mkdir(parents=True, exist_ok=True)
    origin, at = {}, 0
    for step, start, end in table.assign(end=table.start_ts + table.duration).groupby("step").agg(
            start=("start_ts", "min"), end=("end", "max")).itertuples():
        origin[step] = (at - start, at, end - start)
        at += float(end - start) + 1e-3
    for (dp_rank, stage), own in table.groupby(["dp_rank", "stage"]):
        rank = int(stage) * dp + int(dp_rank)
        own = own.sort_values(["start_ts", "seq_id"])
        first = own[own.step == own.step.min()]
        ops = list(zip(first.start_ts, first.optype, first.seq_id))
        program = program_of(ops, int(stage), pp)
        with open(folder / f"rank-{rank}.spans", "wb") as f:
            f.write(chunk(b"HEAD", json.dumps(head_of(rank, int(dp_rank), int(stage), dp,
                                                      pp)).encode(), digest))
            f.write(chunk(b"TABL", json.dumps(program.json()).encode(), digest))
            for number, (step, rows) in enumerate(own.groupby("step")):
                shift, begin, length = origin[step]
                rows = [(float(s) + shift, o, int(q), float(d)) for s, o, q, d in
                        zip(rows.start_ts, rows.optype, rows.seq_id, rows.duration)]
                spans = spans_of(program, rows, number)
                packed = b"".join(struct.pack("<QQIIHBBI", *s) for s in spans)
                f.write(chunk(b"SPAN", struct.pack("<IIIIQQ", number, len(spans), 0, 1,
                                                   int(1e9 * begin),
                                                   int(1e9 * (begin + length)) + 1000) + packed,
                              digest))


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    headway, data, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    wrong = []
    for name, (slowdown, workers, stages, blamed) in PUBLISHED.items():
        path = data / f"trace-{name}.parquet"
        if not path.exists():
            peer.skip(str(path), "git clone https://github.com/ByteDance-Seed/StragglerAnalysis")
        convert(path, folder / name / "trace")
        text = subprocess.run([headway, "trace", "stragglers", folder / name], check=True,
                              capture_output=True, text=True).stdout
        print(f"== {name}, published S {slowdown}, M_W {workers}, M_S {stages}\n{text}")
        s, w, m = (float(re.search(rf"^{k} +(-?[0-9.]+)", text, re.M)[1])
                   for k in ("S", "M_W", "M_S"))
        worst = re.search(r"rank \d+ \(dp (\d+), stage (\d+)\)", text)
        if abs(s / slowdown - 1) > 0.02 or abs(w - workers) > 0.05 or abs(m - stages) > 0.1:
            wrong.append(f"{name}: S {s}, M_W {w}, M_S {m}")
        if blamed and (int(worst[1]), int(worst[2])) != blamed:
            wrong.append(f"{name}: blames {worst[0]}")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
