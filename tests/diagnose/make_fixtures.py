#!/usr/bin/env python3
"""Writes the recorded runs in tests/vectors/records: what cannot be put into a run on an ordinary
machine with one NUMA node, no swap and no GPU.

    make_fixtures.py [FOLDER]

It shares no code with the program: chunks, structs and JSON are written from what trace/record.h,
trace/sample.h, trace/trace.h and train/record_json.c say of them, so that a change of the format
that would lose old records is found. What the host counts is taken from texts in sources/, in the
formats of proc(5), numa(5) and the kernel's Documentation/accounting/psi.rst; they are made up, and
their numbers are what the test expects findings to say. Checksums are those of libxxhash.
"""
import ctypes
import ctypes.util
import json
import re
import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "vectors" / "records"
MS = 1_000_000  # ns
STEPS = 40

xxhash = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0")
xxhash.XXH3_64bits_withSeed.restype = ctypes.c_uint64
xxhash.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]

TASK, CALL, WAIT, STEP = 0, 1, 2, 3  # enum span_kind
COMPUTE, HOST, DP, AWAY = 0, 1, 6, 14  # enum trace_lane
BF16 = 1  # enum dtype
LANES = 12  # of a program; its lane n has the trace's lane n + 3


def chunk(kind, payload):
    checksum = xxhash.XXH3_64bits_withSeed(payload, len(payload),
                                           int.from_bytes(kind, "little")) & 0xffffffff
    head = struct.pack("<4sIQ", kind, checksum, len(payload))
    return head + payload + bytes(-len(payload) % 8)


# --- what the host counts, from its texts ---------------------------------------------------


def source(name):
    return (HERE.parent / "vectors" / "records" / "sources" / name).read_text(encoding="utf-8")


def vmstat(name):
    return {key: int(value) for key, value in (line.split() for line in source(name).splitlines())}


def stalled_us(name):
    return int(re.search(r"^some .*total=(\d+)$", source(name), re.M)[1])


def numa_bytes(name, near):
    """Bytes of anonymous memory on node `near` and on others."""
    found = [0, 0]
    for line in source(name).splitlines():
        if "anon=" in line:
            page = 1024 * int(re.search(r"kernelpagesize_kB=(\d+)", line)[1])
            for node, pages in re.findall(r"\bN(\d+)=(\d+)", line):
                found[int(node) != near] += page * int(pages)
    return found


# fields of struct sample in order, with the letter of struct.pack
SAMPLE = [("at_ns", "Q"), ("covers_ns", "Q"), ("step", "I"), ("has", "I")] + [
    (name, "Q") for name in (
        "run_ns queue_ns pool_run_ns pool_queue_ns user_ns system_ns minor_faults major_faults "
        "voluntary involuntary read_bytes written_bytes throttled throttled_ns cpu_pressure_ns "
        "io_pressure_ns memory_pressure_ns steal_ns rss_bytes peak_rss_bytes limit_bytes").split()
] + [("phi", "d"), ("threads", "I"), ("processors", "I")] + [
    (name, "Q") for name in
    "loader_read_bytes loader_used_bytes loader_busy_ns loader_cpu_ns".split()
] + [(name, "I") for name in "loader_ready loader_ahead loader_threads documents".split()
     ] + [("tokens", "Q"), ("tokens_idle", "Q"), ("attended", "d"),
          ("near_bytes", "Q"), ("far_bytes", "Q"), ("far_speed", "d")]
HAS = {"sched": 1, "usage": 2, "io": 4, "throttle": 8, "pressure": 16, "steal": 32, "memory": 64,
       "clock": 128, "loader": 256, "rows": 512, "numa": 1024}


def sample(parts, **fields):
    fields["has"] = sum(HAS[part] for part in parts.split())
    unknown = set(fields) - {name for name, _ in SAMPLE}
    assert not unknown, unknown
    return struct.pack("<" + "".join(letter for _, letter in SAMPLE),
                       *(fields.get(name, 0) for name, _ in SAMPLE))


# --- a program ------------------------------------------------------------------------------

FORWARD, BACKWARD, UPDATE = 1, 4, 7  # enum segment_kind


class Program:
    def __init__(self, dtype=0):
        self.tensors, self.tasks, self.segments, self.dtype = [], [], [], dtype

    def tensor(self, name, size):
        self.tensors.append([name, size, 1])
        return len(self.tensors) - 1

    def begin(self, kind):
        self.segments.append([kind, 0, len(self.tasks), 0])

    def task(self, op, seconds, reads, writes, lane=0, flops=0.0, moved_bytes=0.0, sent=0.0):
        kind = self.segments[-1][0]
        phase = {FORWARD: 0, BACKWARD: 1, UPDATE: 3}[kind]
        self.tasks.append((seconds, [
            op, -1, phase, 0, lane, self.dtype, 0, -1, 1, False, flops, flops, 0.7 * moved_bytes,
            0.3 * moved_bytes, sent, reads, writes, [reads[0]] if lane else []]))
        self.segments[-1][3] += 1
        return len(self.tasks) - 1

    def text(self):
        rows = [row for _, row in self.tasks]
        flops = sum(row[10] for row in rows)
        return json.dumps({"name": "step", "B": 8, "T": 256, "micro_batches": 1, "flops": flops,
                           "model_flops": flops, "tensors": self.tensors, "tasks": rows,
                           "segments": self.segments,
                           "actions": [[i, 0] for i in range(len(self.segments))]}).encode()


def head(rank, ranks, **more):
    about = {"version": 1, "rank": rank, "ranks": ranks, "part": 1, "layout": f"dp={ranks}",
             "host": "fixture", "pid": 100 + rank, "backend": "avx2", "processor": "made up",
             "precision": "fp32", "threads": 8, "cores": 8, "sharers": 1, "flops_f32": 4e11,
             "flops_bf16": 0.0, "memory_bytes_per_s": 4e10, "launch_s": 2e-6, "begin_ns": 0,
             "wall_begin": 1.7e9, "mesh": {
                 "islands": [0, 1], "pp": [0, 1], "dp": [rank, ranks], "cp": [0, 1], "tp": [0, 1],
                 "ep": [0, 1], "zero": 0},
             "groups": [list(range(ranks)) if lane == 3 and ranks > 1 else []
                        for lane in range(LANES)], "boundaries": []}
    about.update(more)
    return json.dumps(about).encode()


def span(begin, end, step, task, action, lane, kind, detail=0):
    return struct.pack("<QQIIHBBI", int(begin), int(end), step, task, action, lane, kind, detail)


def put_steps(program, about, spans_of, counts):
    """The bytes of a rank's file; spans_of(step, begin) gives spans and the step's end."""
    out = chunk(b"HEAD", about) + chunk(b"TABL", program.text())
    begin = 500 * MS
    for step in range(STEPS):
        spans, end = spans_of(step, begin)
        end = int(end)
        spans.append(span(begin, end, step, 0, 0, HOST, STEP))
        flags = 1  # the first of its step
        payload = struct.pack("<IIIIQQ", step, len(spans), 0, flags, begin, end) + b"".join(spans)
        out += chunk(b"SPAN", payload)
        counted = counts(step, begin, end)
        if counted:
            out += chunk(b"SAMP", counted)
        begin = end
    return out


def write(name, rank, data):
    folder = (Path(sys.argv[1]) if len(sys.argv) > 1 else OUT) / name / "trace"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"rank-{rank}.spans").write_bytes(data)


def wobble(step, task):
    """What differs from step to step on any machine: a hundredth at most."""
    return 1 + 0.01 * (((step * 7919 + task * 104729) % 1000) / 1000 - 0.5)


# --- one rank that computes -----------------------------------------------------------------


def plain_program(norm_ms):
    """A product of 6 ms and a norm, forward and backward, eight times; an update of 4 ms."""
    p = Program()
    x, w, g = p.tensor("x", 1 << 20), p.tensor("w", 1 << 20), p.tensor("g", 1 << 20)
    for kind, op in ((FORWARD, "linear"), (BACKWARD, "linear_dx")):
        p.begin(kind)
        for _ in range(8):
            p.task(op, 6e-3, [x, w], [g], flops=2e9, moved_bytes=3e6)
            p.task("rmsnorm" if kind == FORWARD else "rmsnorm_grad", 1e-3 * norm_ms, [x], [g],
                   flops=1e6, moved_bytes=4e7)
    p.begin(UPDATE)
    p.task("adamw", 4e-3, [g, w], [w], flops=1e7, moved_bytes=1.2e8)
    return p


def in_a_row(program):
    def spans_of(step, begin):
        spans, at = [], begin + 0.02 * MS
        for action, (_, _, first, n) in enumerate(program.segments):
            for task in range(first, first + n):
                end = at + 1e9 * program.tasks[task][0] * wobble(step, task)
                spans.append(span(at, end, step, task, action, COMPUTE, TASK))
                at = end + 2000
        return spans, at + 0.02 * MS
    return spans_of


def numa():
    """Two thirds of the memory on the other node, from where it comes at 10/21 of the speed."""
    near, far = numa_bytes("numa_maps", 0)
    speed = 10 / int(source("node0-distance").split()[1])
    p = plain_program(2.0)

    def counts(step, begin, end):
        return sample("numa memory usage clock", at_ns=end, covers_ns=end - begin, step=step,
                      minor_faults=3, system_ns=100_000, rss_bytes=near + far,
                      peak_rss_bytes=near + far, limit_bytes=64 << 30, phi=1.0, threads=8,
                      processors=8, near_bytes=near, far_bytes=far, far_speed=speed)
    write("numa", 0, put_steps(p, head(0, 1), in_a_row(p), counts))


def swap():
    """Pages come back from swap while the step computes: faults, and time that tasks stood still."""
    before, after = vmstat("vmstat-before"), vmstat("vmstat-after")
    stalled = stalled_us("pressure-memory-after") - stalled_us("pressure-memory-before")
    seconds = int(source("seconds"))
    p = plain_program(4.0)

    def counts(step, begin, end):
        share = 1e-9 * (end - begin) / seconds
        return sample("memory usage pressure clock", at_ns=end, covers_ns=end - begin, step=step,
                      minor_faults=20, system_ns=900_000,
                      major_faults=round(share * (after["pgmajfault"] - before["pgmajfault"])),
                      memory_pressure_ns=round(1000 * stalled * share), rss_bytes=int(7.8 * 2**30),
                      peak_rss_bytes=int(7.8 * 2**30), limit_bytes=8 << 30, phi=1.0, threads=8,
                      processors=8)
    write("swap", 0, put_steps(p, head(0, 1), in_a_row(p), counts))


# --- two ranks whose lanes are streams of a device -----------------------------------------


def gpu():
    """A device's lanes: computing, sums over ranks, copies. All gradients are summed at once, when the
    last of them is there, so that nothing hides it; activations are copied out beside computing."""
    p = Program(BF16)
    x, w, g, kept = (p.tensor(n, 1 << 24) for n in ("x", "w", "g", "kept"))
    p.begin(FORWARD)
    for _ in range(12):
        p.task("linear", 0.8e-3, [x, w], [x], flops=8e10, moved_bytes=1e7)
    copy = p.task("copy", 6e-3, [x], [kept], lane=11, moved_bytes=1e8)
    p.begin(BACKWARD)
    for _ in range(12):
        p.task("linear_dx", 1.7e-3, [x, w], [g], flops=1.6e11, moved_bytes=1e7)
    p.begin(UPDATE)
    reduce = p.task("all_reduce", 14e-3, [g], [g], lane=3, moved_bytes=1e8, sent=2e8)
    p.task("adamw", 1e-3, [g, w], [w], flops=1e8, moved_bytes=1e9)

    def spans_for(rank):
        def spans_of(step, begin):
            spans, at = [], begin + 0.05 * MS
            for action, (_, _, first, n) in enumerate(p.segments):
                for task in range(first, first + n):
                    took = 1e9 * p.tasks[task][0] * wobble(step, task + 5 * rank)
                    if task == copy:
                        spans.append(span(at, at + took, step, task, action, AWAY, CALL))
                        continue
                    if task == reduce:
                        took = 1e9 * p.tasks[task][0] * wobble(step, task)
                        end = begin + 46.5 * MS  # both ranks have come by then
                        spans.append(span(at, end, step, task, action, DP, CALL))
                        spans.append(span(at, end, step, task, action, COMPUTE, WAIT, DP))
                        at = end + 1000
                        continue
                    spans.append(span(at, at + took, step, task, action, COMPUTE, TASK))
                    at += took + 3000
            return spans, begin + 48 * MS
        return spans_of
    for rank in range(2):
        about = head(rank, 2, backend="device", processor="a device, made up", precision="bf16",
                     threads=1, cores=4, flops_bf16=1.2e14, flops_f32=2e13,
                     memory_bytes_per_s=1.5e12, launch_s=4e-6)
        write("gpu", rank, put_steps(p, about, spans_for(rank), lambda *_: None))


if __name__ == "__main__":
    numa()
    swap()
    gpu()
