#!/usr/bin/env python3
"""Times training steps of llm.c's CPU program: one JSON line.

    llmc_step.py --dir ~/llm.c --steps 5 --json

Needs a folder where llm.c's train_gpt2 has been built already. That program has its shape written
in its source, B 4 and T 64, and trains GPT-2 124M in fp32; for another T, build it so and name it
with --binary and --seq. It is run in a temporary folder on a checkpoint of random weights and a
file of random tokens, both written here.
"""
import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../tests/peers"))
import peer  # noqa: E402

VOCAB, PADDED, POSITIONS, LAYERS, HEADS, WIDTH = 50257, 50304, 1024, 12, 12, 768
HEADER = 256  # int32 words at the start of both kinds of files


def options():
    o = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    o.add_argument("--dir", type=Path, required=True, help="llm.c's folder")
    o.add_argument("--binary", default="train_gpt2", help="program in that folder")
    o.add_argument("--batch", type=int, default=4, help="what the program was built with")
    o.add_argument("--seq", type=int, default=64, help="what the program was built with")
    o.add_argument("--steps", type=int, default=5, help="steps that are timed")
    o.add_argument("--warmup", type=int, default=1, help="steps before them")
    o.add_argument("--threads", type=int, default=2)
    o.add_argument("--gate", action="store_true", help="one timed step per line on stdin")
    o.add_argument("--json", action="store_true", help="print JSON instead of a sentence")
    return o.parse_args()


def write_checkpoint(np, path):
    """Random weights in llm.c's format 3: each kind of parameter for all layers, one after another."""
    rng = np.random.default_rng(1)
    C, L = WIDTH, LAYERS
    matrices_and_vectors = [  # (count, deviation, mean)
        (PADDED * C, 0.02, 0), (POSITIONS * C, 0.02, 0),
        (L * C, 0, 1), (L * C, 0, 0), (L * 3 * C * C, 0.02, 0), (L * 3 * C, 0, 0),
        (L * C * C, 0.02, 0), (L * C, 0, 0), (L * C, 0, 1), (L * C, 0, 0),
        (L * 4 * C * C, 0.02, 0), (L * 4 * C, 0, 0), (L * 4 * C * C, 0.02, 0), (L * C, 0, 0),
        (C, 0, 1), (C, 0, 0),
    ]
    header = np.zeros(HEADER, np.int32)
    header[:8] = 20240326, 3, POSITIONS, VOCAB, LAYERS, HEADS, WIDTH, PADDED
    with open(path, "wb") as file:
        header.tofile(file)
        for count, deviation, mean in matrices_and_vectors:
            values = rng.standard_normal(count, np.float32) * np.float32(deviation)
            (values + np.float32(mean)).tofile(file)


def write_tokens(np, path, count):
    """Random tokens in llm.c's format 1."""
    header = np.zeros(HEADER, np.int32)
    header[:3] = 20240520, 1, count
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        header.tofile(file)
        np.random.default_rng(2).integers(VOCAB, size=count, dtype=np.uint16).tofile(file)


def took(line):
    """Seconds, when the line tells that a step is done."""
    found = re.match(r"step \d+: .*\(took ([\d.]+) ms\)", line)
    return float(found[1]) / 1e3 if found else None


def start(binary, folder, args):
    """The program before its first step: it has evaluated the loss on held-out tokens."""
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    # stdbuf, because llm.c does not flush the lines that we wait for
    program = subprocess.Popen(["stdbuf", "-oL", binary], cwd=folder, env=environment, text=True,
                               stdout=subprocess.PIPE)
    for line in program.stdout:
        if line.startswith("val loss"):
            return program
    sys.exit(f"{binary} ended before its first step, with code {program.wait()}")


def step(program):
    for line in program.stdout:
        if took(line):
            return took(line)
    sys.exit(f"{program.args[-1]} ended too early, with code {program.wait()}")


def gated_step(program):
    """A step of a program that knows no gate: it is stopped between steps by a signal, and its
    own clock, which would count that rest, is replaced by ours."""
    begin = time.perf_counter()
    program.send_signal(signal.SIGCONT)
    step(program)
    seconds = time.perf_counter() - begin
    program.send_signal(signal.SIGSTOP)
    return seconds


def run(binary, folder, args):
    """Runs until enough steps are done; returns their seconds and the peak memory."""
    program = start(binary, folder, args)
    for _ in range(args.warmup):
        step(program)
    seconds = []
    if args.gate:
        program.send_signal(signal.SIGSTOP)
        print("ready", flush=True)
    for _ in range(args.steps):
        if not args.gate:
            seconds.append(step(program))
        elif sys.stdin.readline():
            seconds.append(gated_step(program))
            print(f"step {seconds[-1]:.6f}", flush=True)
    peak = peer.peak_rss_bytes(program.pid)
    program.kill()
    program.wait()
    return seconds, peak


def main():
    args = options()
    np = peer.need("numpy")
    binary = args.dir.resolve() / args.binary
    if not os.access(binary, os.X_OK):
        peer.skip(f"llm.c's program {binary}", f"clone karpathy/llm.c, then make {args.binary}")
    with tempfile.TemporaryDirectory(prefix="llmc-") as folder:
        folder = Path(folder)
        write_checkpoint(np, folder / "gpt2_124M.bin")
        for part in "train", "val":  # the names that llm.c looks for
            write_tokens(np, folder / f"dev/data/tinyshakespeare/tiny_shakespeare_{part}.bin",
                         64 * args.batch * args.seq + 1)
        seconds, peak = run(binary, folder, args)
    result = {
        "peer": "llm.c", "model": "gpt2-124m", "batch": args.batch, "seq": args.seq,
        "precision": "fp32", "threads": args.threads,
        "tokens_per_s": args.batch * args.seq / statistics.median(seconds),
        "step_s": seconds, "peak_rss_bytes": peak,
    }
    if args.json:
        print(json.dumps(result))
    else:
        print(f"llm.c gpt2-124m fp32: {result['tokens_per_s']:.1f} tokens/s, {peak / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
