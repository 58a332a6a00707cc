#!/usr/bin/env python3
"""Whole training steps of Headway beside PyTorch's and llm.c's, in turn, step by step.

    step_table.py                                   every case, about half an hour on two cores
    step_table.py --case gpt2-1024-fp32 --rounds 5  one case, more repetitions
    step_table.py --llmc ~/llm.c                    llm.c too

Headway and one peer live at the same time, warm; a round is one step of each, so that a slow
minute of the machine hits both. Printed are medians, the spread of single steps, peak memory
(VmHWM) and how many times faster Headway is: the median of the rounds' ratios, and their range.
The share of the peak counts Headway's model FLOPs, for every program, over the peak that Headway
measures before and after. A peer that is absent is one line that begins with SKIP.

For llm.c at T 1024, change B and T at the top of its main, build, and call the program
train_gpt2_1x1024 (or 4x1024, which needs 20 GB) in the same folder.
"""
import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class Absent(Exception):
    """A peer that is not there, or that broke; the text says which."""


@dataclasses.dataclass
class Case:
    name: str
    model: str
    batch: int
    seq: int
    precision: str

    def shape(self):
        return ["--model", self.model, "--batch", str(self.batch), "--seq", str(self.seq)]

    def title(self):
        return f"{self.model}, B {self.batch} x T {self.seq}, {self.precision}"


CASES = [Case(f"{short}-{seq}-{precision}", model, batch, seq, precision)
         for short, model, batch, seq in (("gpt2", "gpt2-124m", 4, 1024),
                                          ("gpt2", "gpt2-124m", 4, 64),
                                          ("llama", "llama-125m", 2, 2048))
         for precision in ("fp32", "bf16")]

# What "bf16" is in PyTorch: fp32 weights and autocast, as Headway does it, or bf16 throughout.
TORCH_PRECISIONS = {"fp32": ["fp32"], "bf16": ["bf16-autocast", "bf16"]}


class Program:
    """A program that takes a step when told to, as torch_step.py --gate describes it."""

    def __init__(self, name, command, environment=None):
        self.name, self.seconds = name, []
        self.process = subprocess.Popen([str(c) for c in command], text=True, cwd=ROOT,
                                        env=os.environ | (environment or {}),
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.answer("ready")

    def answer(self, word):
        """The rest of the next line that begins with this word."""
        for line in self.process.stdout:
            if line.startswith(word):
                return line[len(word):].strip()
            if line.startswith("SKIP"):
                self.process.wait()
                raise Absent(line.strip())
        raise Absent(f"FAILED: {self.name} ended without saying '{word}', "
                     f"with code {self.process.wait()}")

    def step(self):
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        self.seconds.append(float(self.answer("step")))

    def finish(self):
        self.process.stdin.close()
        self.result = json.loads("{" + self.answer("{"))
        self.process.wait()


def headway(args, case, steps):
    program = args.build.resolve() / "bench_step"
    if not os.access(program, os.X_OK):
        sys.exit(f"{program} is not there; build it with ./run build")
    return Program("Headway", [program, *case.shape(), "--precision", case.precision,
                               "--threads", args.threads, "--steps", steps, "--gate", "--json"])


def torch(args, case, precision, mode):
    command = [sys.executable, HERE / "torch_step.py", *case.shape(), "--precision", precision,
               "--mode", mode, "--threads", args.threads, "--steps", args.rounds, "--warmup",
               2 if mode == "compile" else 1, "--gate", "--json"]
    return Program(f"PyTorch {precision} {mode}", command, {"TORCHINDUCTOR_CACHE_DIR": args.cache})


def llmc(args, case):
    """llm.c at this T, at the batch of the case or, to save memory, at batch 1."""
    for batch in case.batch, 1:
        name = f"train_gpt2_{batch}x{case.seq}"
        if (args.llmc / name).exists() or (case.seq == 64 and batch == 4):
            name = name if (args.llmc / name).exists() else "train_gpt2"
            return Program(f"llm.c (B {batch})",
                           [sys.executable, HERE / "llmc_step.py", "--dir", args.llmc, "--binary",
                            name, "--batch", batch, "--seq", case.seq, "--threads", args.threads,
                            "--warmup", 0 if case.seq > 64 else 1, "--steps", args.rounds,
                            "--gate", "--json"])
    raise Absent(f"SKIP: llm.c for T {case.seq} is missing; get it with: see --help")


def peers(args, case):
    """The programs to be measured beside Headway: functions that start them."""
    for precision in TORCH_PRECISIONS[case.precision]:
        for mode in "eager", "compile":
            if not args.peer or mode in args.peer or precision in args.peer:
                yield lambda p=precision, m=mode: torch(args, case, p, m)
    if args.llmc and case.model == "gpt2-124m" and case.precision == "fp32" and \
            (not args.peer or "llm.c" in args.peer):
        yield lambda: llmc(args, case)


# --- measuring ----------------------------------------------------------------------------


def take_round(programs):
    for program in programs:
        program.step()


def measure(ours, start, rounds):
    """One peer beside ours; the peer, with the seconds of our steps in the same rounds."""
    peer = start()
    before = len(ours.seconds)
    for i in range(rounds):
        take_round((ours, peer) if i % 2 else (peer, ours))
    peer.finish()
    peer.ours = ours.seconds[before:]
    return peer


# --- printing -----------------------------------------------------------------------------


def spread(values, digits=1):
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def row(case, program, flops_per_token, peak, ratios):
    batch = program.result["batch"]
    rates = [batch * case.seq / s for s in program.seconds]
    median = statistics.median(rates)
    ratio = f"{statistics.median(ratios):.2f} x ({spread(ratios, 2)})" if ratios else ""
    print(f"| {program.name} | {median:.1f} ({spread(rates)}, n = {len(rates)}) "
          f"| {100 * median * flops_per_token / peak:.1f} % "
          f"| {program.result['peak_rss_bytes'] / 1e9:.2f} GB | {ratio} |", flush=True)


def print_case(case, ours, found):
    flops = ours.result["model_flops"] / (case.batch * case.seq)
    peak, fma = ours.result["peak_flops"], ours.result["fma_peak_flops"]
    print(f"\n**{case.title()}**, AdamW; measured peak {peak / 1e9:.1f} GFLOP/s (fp32 multiply-adds: "
          f"{fma / 1e9:.1f}), {flops / 1e6:.0f} MFLOP per token\n")
    print("| program | tokens/s | share of peak | peak memory | Headway is faster by |")
    print("|---|---|---|---|---|")
    row(case, ours, flops, peak, None)
    for peer in found:
        scale = case.batch / peer.result["batch"]
        row(case, peer, flops, peak, [scale * p / o for p, o in zip(peer.seconds, peer.ours)])
    predicted = ours.result["predicted_bytes"]
    print(f"\nHeadway said {predicted / 1e9:.2f} GB before it began; the loader was waited for "
          f"{100 * ours.result['loader_wait_share']:.4f} % of the time.", flush=True)


def run_case(args, case):
    """All programs of a case; their results."""
    wanted = list(peers(args, case))
    ours = headway(args, case, args.rounds * max(1, len(wanted)))
    found = []
    for start in wanted:
        try:
            found.append(measure(ours, start, args.rounds))
            print(f"{case.name}: {found[-1].name} is measured", file=sys.stderr, flush=True)
        except (Absent, BrokenPipeError) as absent:
            print(absent, flush=True)
    if not found:
        for _ in range(args.rounds):
            take_round([ours])
    ours.finish()
    print_case(case, ours, found)
    return [program.result for program in (ours, *found)]


def print_versions(results):
    versions = {}
    for result in results:
        versions |= result.get("versions", {})
    print("\nVersions: " + ", ".join(f"{k} {v}" for k, v in sorted(versions.items())))


def options():
    o = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    o.add_argument("--case", action="append", choices=[c.name for c in CASES],
                   help="only this case; may be repeated")
    o.add_argument("--peer", action="append",
                   choices=("eager", "compile", "fp32", "bf16", "bf16-autocast", "llm.c"),
                   help="only peers of this mode or precision; may be repeated")
    o.add_argument("--rounds", type=int, default=3)
    o.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    o.add_argument("--llmc", type=Path, help="llm.c's folder, built")
    o.add_argument("--build", type=Path, default=ROOT / "build/release")
    o.add_argument("--cache", default=str(ROOT / "build/torch-compiled"),
                   help="where torch.compile keeps what it compiled")
    o.add_argument("--out", type=Path, help="append every program's result here, as JSON Lines")
    return o.parse_args()


def main():
    args = options()
    # These halve the speed of whatever uses OpenBLAS where an environment sets them.
    for variable in "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE":
        os.environ.pop(variable, None)
    results = []
    for case in CASES:
        if args.case and case.name not in args.case:
            continue
        results += run_case(args, case)
    print_versions(results)
    if args.out:
        with open(args.out, "a") as file:
            file.writelines(json.dumps(result) + "\n" for result in results)


if __name__ == "__main__":
    main()
