#!/usr/bin/env python3
"""prove_diagnose.py HEADWAY [--only REGEX] [--real] [--seeds N] [--out FILE]: is `headway diagnose`
right?

Runs are slowed down in a known way (headway train --inject) beside runs that are not. Of each
slowed run it is asked: is its cause named first, is the place right, and does the predicted gain
hold what the run without the fault really took less? Runs without a fault must have no finding,
and of two faults both must be among the first three.

Runs of eight and more ranks are walked on a clock that is computed, which the machine's noise does
not reach; model, layout, rates, place and level are drawn anew for each. With --real, one or two
real ranks train as well, with and without the fault by turns, so that the machine's wandering
cancels. Prints the scoreboard as Markdown and writes it to FILE. Python's standard library only."""
import argparse
import collections
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

STEPS = 40
# gain False: what the fault adds to a step is not what mending gives back (rows that differ, say)
Case = collections.namedtuple("Case", "kind name world fault gain also")
Trial = collections.namedtuple("Trial", "case level fault flags clean faulty where")


def ms(seconds):
    return f"{1e3 * max(seconds, 1e-6):.4f}ms"


def lane(c, axis):
    return next(x for x in c["lanes"] if x["axis"] == axis)


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
            f" --rates flops={r.choice([2e11, 3e11]):g},memory=4e9,link=8e9,"
            f"latency=1e-5"), n


def long_pipeline(r):
    return (f"--layout pp=2,dp=2,zero=1 --set model.spec=laptop-5m --set train.batch=4 "
            f"--set train.accumulate=96 --set train.seq=64 --rates flops=1e11,memory=2e10,"
            f"link={r.choice([2e8, 3e8]):g},latency=1e-5"), 4


def thin_pipeline(r):
    return (f"--layout pp=2,dp=2,zero=1 --set model.spec=laptop-5m --set train.batch=16 "
            f"--set train.accumulate=32 --set train.seq=32 --rates "
            f"flops={r.choice([2e11, 3e11]):g},memory=4e9,link=4e9,latency=1e-5"), 4


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


def episode(x, c, r, n):
    rank, first = r.randrange(n), r.randrange(10, 16)
    last = first + r.randrange(12, 18)
    return f"slow_compute={1 + 2 * x:.3f}@{rank}:{first}-{last}", {
        "rank": rank, "first_step": first, "last_step": last}


def pair(x, c, r, n):
    a = 2 * r.randrange(n // 2)
    rate = lane(c, "tp")["bytes"] / (x * c["step_s"])
    return f"pair_bw={a}-{a + 1}:{1e-6 * rate:.6f}MB/s", {"rank": a, "peer": a + 1}


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
]

TWO = "--ranks 2 --layout dp=2,zero=1"
REAL = [
    Case("D1", "loader_spin", lambda r: ("", 1), VIRTUAL[0].fault, None, ["D2"]),
    Case("H4", "malloc_churn", lambda r: ("", 1), everywhere(
        lambda x, c, r: f"malloc_churn={c['step_s'] * x / 2e-6 / 256:.0f}MiB"), None, []),
    Case("H9", "pause", lambda r: ("", 1), everywhere(
        lambda x, c, r: f"pause={ms(8 * x * c['step_s'])}/8"), None, []),
    Case("K4", "phi_override@r", lambda r: (TWO, 2), somewhere(
        lambda x, c, r: f"phi_override={1 / (1 + x):.3f}"), None, []),
    Case("B1", "slow_compute@r", lambda r: (TWO, 2), somewhere(
        lambda x, c, r: f"slow_compute={1 + x:.3f}"), None, []),
    Case("K10", "recompute", lambda r: ("", 1), everywhere(lambda x, c, r: "recompute=full"),
         None, []),
    Case("C5", "comm_delay", lambda r: (TWO, 2), VIRTUAL[16].fault, None, []),
]

PAIRS = [
    ("B1 C4", "slow_compute=1.5@1", comm), ("D1 K4", "phi_override=0.7@1", VIRTUAL[1].fault),
    ("K4 C4", "phi_override=0.7", comm), ("H9 B1", "slow_compute=1.4@2", VIRTUAL[4].fault),
]


# --- running -------------------------------------------------------------------------------

class Bench:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.runs, self.diagnose_s = 0, []

    def say(self, *arguments):
        done = subprocess.run([self.program, *arguments], cwd=self.folder, text=True,
                              capture_output=True, timeout=600)
        if done.returncode:
            sys.exit(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def run(self, flags, fault=None):
        """What diagnose says of a run with these flags."""
        self.runs += 1
        name = f"r{self.runs}"
        self.say("train", "r.yaml", "--quiet", "--set", f"run.name={name}", *flags.split(),
                 *(["--inject", fault] if fault else []))
        begin = time.monotonic()
        found = json.loads(self.say("diagnose", f"runs/{name}", "--json"))
        self.diagnose_s.append(time.monotonic() - begin)
        shutil.rmtree(f"{self.folder}/runs/{name}")
        given = dict(re.findall(r"([a-z_.]+)=(\d+)", flags))
        found["micro_batches"] = int(given.get("train.accumulate", 8))
        found["stages"] = int(given.get("pp", 1))
        return found


def prepare(bench):
    with open(f"{bench.folder}/t.txt", "w", encoding="utf-8") as out:
        out.writelines(f"the cat number {i} sat on mat {i * 7 % 31} and saw {i * i % 97} birds\n"
                       for i in range(1, 6001))
    bench.say("tokenizer", "train", "t.txt", "--vocab-size", "300", "--out", "tok.json", "--quiet")
    bench.say("data", "prepare", "t.txt", "--format", "text", "--tokenizer", "tok.json",
              "--licence", "none", "--val-fraction", "0", "--out", "data", "--quiet")
    with open(f"{bench.folder}/r.yaml", "w", encoding="utf-8") as out:
        out.write(f"""model: {{spec: laptop-2m}}
data: {{sources: data, tokenizer: tok.json, prefetch: 1}}
train: {{steps: {STEPS}, batch: 8, accumulate: 8, seq: 128, threads: 1, precision: fp32}}
lr: {{schedule: constant, warmup: 2}}
eval: {{every: 0}}
log: {{every: 40}}
checkpoint: {{interval: 0}}
""")


def mean_of(runs):
    out = dict(runs[0])
    out["step_s"] = statistics.mean(r["step_s"] for r in runs)
    return out


# --- judging -------------------------------------------------------------------------------

Verdict = collections.namedtuple("Verdict", "trial top right place true gain inside near width")


def judge(t):
    true = t.faulty["step_s"] - t.clean["step_s"]
    noise = 3 * (t.faulty["step_se_s"] ** 2 + t.clean["step_se_s"] ** 2) ** 0.5
    top = t.faulty["findings"][0] if t.faulty["findings"] else None
    if not top:
        return Verdict(t, "-", False, False, true, None, False, False, None)
    low, mid, high = top["gain_s"]
    right = top["id"] in (t.case.kind, *t.case.also)
    rank = top["place"]["rank"]
    near_steps = all(abs((top["place"][k] or 0) - v) <= 1 for k, v in t.where.items()
                     if k.endswith("_step"))
    place = right and near_steps and all(
        top["place"][k] == v for k, v in t.where.items() if not k.endswith("_step"))
    if "rank" not in t.where and "peer" not in t.where:
        place = place and rank is None
    priced = t.case.gain is None
    return Verdict(t, top["id"], right, place, true if priced else None, top["gain_s"],
                   low <= true <= high if priced else None,
                   abs(mid - true) <= max(0.25 * true, noise) if priced else None,
                   (high - low) / mid if mid > 0 else None)


def told(seconds):
    return "-" if seconds is None else f"{1e3 * seconds:.1f}"


def is_wrong(v):
    return not (v.right and v.place) or v.inside is False or v.near is False


def show(v):
    gain = "-" if not v.gain else "/".join(f"{1e3 * g:.1f}" for g in v.gain)
    print(f"{v.trial.case.kind} {v.trial.fault}: first {v.top}, place "
          f"{'ok' if v.place else 'WRONG'}, true {told(v.true)} ms, predicted {gain}"
          f"{'   <<< ' + v.trial.flags if is_wrong(v) else ''}",
          flush=True)


def virtual_trials(bench, cases, seeds, cleans):
    for c in cases:
        for seed in range(seeds):
            for level, x in (("mild", 0.13), ("strong", 0.5)):
                r = random.Random(f"{c.name} {seed} {level}")
                flags, n = c.world(r)
                flags += " --clock virtual"
                clean = bench.run(flags)
                fault, where = c.fault(x * r.uniform(0.85, 1.3), clean, r, n)
                yield Trial(c, level, fault, flags, clean, bench.run(flags, fault), where)
                if c.world not in (pipeline, unsplit): # which have a bubble, and copies
                    cleans.append(clean)
                    for f in clean["findings"][:1]:
                        print(f"clean {flags}: {f['id']} {f['gain_s']}", flush=True)


def real_trials(bench, cases, seeds, cleans):
    for c in cases:
        for level, x in (("mild", 0.13), ("strong", 0.5)):
            r = random.Random(f"real {c.name} {level}")
            flags, n = c.world(r)
            bare, faulty = [bench.run(flags)], []
            fault, where = c.fault(x, bare[0], r, n)
            for _ in range(seeds):
                faulty.append(bench.run(flags, fault))
                bare.append(bench.run(flags))
            cleans += bare
            for f in faulty:
                yield Trial(c, level, fault, flags, mean_of(bare), f, where)


def try_pairs(bench):
    """Of two faults, are both among the first three?"""
    rows = []
    for kinds, one, other in PAIRS:
        r = random.Random(kinds)
        flags, n = data(r, 8)
        flags += " --clock virtual"
        clean = bench.run(flags)
        two, _ = other(0.9 if "D1" in kinds else 0.4, clean, r, n)
        found = bench.run(flags, f"{one},{two}")["findings"][:3]
        ids = [f["id"] for f in found]
        rows.append((kinds, f"{one},{two}", ids, all(k in ids for k in kinds.split())))
        print(f"{kinds}: {ids}", flush=True)
    return rows


# --- the scoreboard ------------------------------------------------------------------------

def share(verdicts, test):
    n = sum(bool(test(v)) for v in verdicts)
    return f"{n} of {len(verdicts)} ({100 * n / max(1, len(verdicts)):.0f} %)"


def summary(verdicts, cleans, bench):
    right = [v for v in verdicts if v.right and v.true is not None]
    errors = sorted(abs(v.gain[1] - v.true) / v.true for v in right if v.true > 0)
    widths = [v.width for v in right if v.width]
    noisy = [c["findings"][0]["id"] for c in cleans if c["findings"]]
    rows = [("the cause is named first", share(verdicts, lambda v: v.right)),
            ("and its place is right", share(verdicts, lambda v: v.place)),
            ("the true gain lies in the predicted interval", share(right, lambda v: v.inside)),
            ("the prediction is within 25 % or 3 standard errors",
             share(right, lambda v: v.near))]
    if errors:
        rows.append(("error of the prediction: median, 90 %",
                     f"{100 * statistics.median(errors):.1f} %, "
                     f"{100 * errors[int(0.9 * (len(errors) - 1))]:.1f} %"))
        rows.append(("(high - low) / prediction, median", f"{statistics.median(widths):.2f}"))
    rows.append(("runs without a fault that have a finding",
                 f"{len(noisy)} of {len(cleans)}{': ' if noisy else ''}{', '.join(noisy)}"))
    rows.append(("time to diagnose 40 steps: median, most",
                 f"{1e3 * statistics.median(bench.diagnose_s):.0f} ms, "
                 f"{1e3 * max(bench.diagnose_s):.0f} ms"))
    return ["| asked | result |", "|---|---|"] + [f"| {a} | {b} |" for a, b in rows]


def confusion(verdicts):
    counts = collections.Counter((v.trial.case.kind, v.top) for v in verdicts)
    out = ["", "Injected, and what was named first how often:", "", "| injected | named first |",
           "|---|---|"]
    for kind in sorted({k for k, _ in counts}):
        named = sorted(((n, top) for (k, top), n in counts.items() if k == kind), reverse=True)
        out.append(f"| {kind} | {', '.join(f'{top} {n}' for n, top in named)} |")
    return out


def details(verdicts):
    out = ["", "| kind | injected | named first | place | it takes longer, ms | predicted, ms |",
           "|---|---|---|---|---|---|"]
    for v in verdicts:
        gain = "" if not v.gain else (f"{1e3 * v.gain[1]:.1f} [{1e3 * v.gain[0]:.1f}, "
                                      f"{1e3 * v.gain[2]:.1f}]")
        out.append(f"| {v.trial.case.kind} | `{v.trial.fault}` | {v.top} | "
                   f"{'right' if v.place else 'wrong'} | {told(v.true)} | {gain} |")
    return out


def collect(trials):
    verdicts = []
    for t in trials:
        verdicts.append(judge(t))
        show(verdicts[-1])
    return verdicts


HEAD = """# Is the diagnosis right?

Made by `./run prove-diagnose`: runs that were slowed down in a known way, and what
`headway diagnose` says of them. Runs on a computed clock have no noise, so this is how well causes
are told apart and priced, not how well in noise; `--real` adds runs of one and two real ranks,
which want a machine that does nothing else.
"""


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    p.add_argument("program")
    p.add_argument("--only", default="")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--real", action="store_true")
    p.add_argument("--out")
    a = p.parse_args()
    out = [HEAD]
    with tempfile.TemporaryDirectory() as folder:
        bench, cleans = Bench(os.path.abspath(a.program), folder), []
        prepare(bench)
        wanted = [c for c in VIRTUAL if re.search(a.only, f"{c.kind} {c.name}")]
        verdicts = collect(virtual_trials(bench, wanted, a.seeds, cleans))
        out += ["## Four to sixteen ranks on a computed clock", ""]
        out += summary(verdicts, cleans, bench) + confusion(verdicts)
        if not a.only:
            out += ["", "Two faults at once:", "", "| kinds | injected | first three | both |",
                    "|---|---|---|---|"]
            out += [f"| {k} | `{f}` | {', '.join(ids)} | {'yes' if ok else 'no'} |"
                    for k, f, ids, ok in try_pairs(bench)]
        out += details(verdicts)
        if a.real:
            bench.diagnose_s, cleans = [], []
            wanted = [c for c in REAL if re.search(a.only, f"{c.kind} {c.name}")]
            verdicts = collect(real_trials(bench, wanted, 2, cleans))
            out += ["", "## One and two real ranks", ""]
            out += summary(verdicts, cleans, bench) + confusion(verdicts) + details(verdicts)
    text = "\n".join(out) + "\n"
    print(text)
    if a.out:
        with open(a.out, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
