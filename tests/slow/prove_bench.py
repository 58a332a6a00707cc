"""prove_bench.py: what both parts of prove_diagnose share: data to train on, what diagnose said
judged against what is true, and the scoreboard as Markdown. Python's standard library only."""
import collections
import os
import platform
import re
import statistics
import subprocess
import sys

STEPS = 40
# gain False: what the fault adds to a step is not what mending gives back (rows that differ, say); a
# function: flags with which the same fault shows that
Case = collections.namedtuple("Case", "kind name world fault gain also")
Verdict = collections.namedtuple(
    "Verdict", "kind fault top right place true noise gain inside near width moved", defaults=[None])


def ms(seconds):
    return f"{1e3 * max(seconds, 1e-6):.4f}ms"


def lane(c, axis):
    return next(x for x in c["lanes"] if x["axis"] == axis)


def command(arguments, folder, timeout=600, env=None):
    done = subprocess.run(arguments, cwd=folder, text=True, capture_output=True, timeout=timeout,
                          env=env, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")
    return done.stdout


def prepare(program, folder, val_fraction=0):
    """A text, a tokenizer and shards of it, and a recipe r.yaml."""
    with open(f"{folder}/t.txt", "w", encoding="utf-8") as out:
        for i in range(1, 6001):
            out.write(f"the cat number {i} sat on mat {i * 7 % 31} and saw {i * i % 97} birds\n")
            if val_fraction and i % 60 == 0:
                out.write("\n\n") # documents, of which some are held out
    command([program, "tokenizer", "train", "t.txt", "--vocab-size", "300", "--out", "tok.json",
             "--quiet"], folder)
    command([program, "data", "prepare", "t.txt", "--format",
             "paragraphs" if val_fraction else "text", "--tokenizer", "tok.json",
             "--licence", "none", "--val-fraction", str(val_fraction), "--out", "data",
             "--quiet"], folder)
    with open(f"{folder}/r.yaml", "w", encoding="utf-8") as out:
        out.write(f"""model: {{spec: laptop-2m}}
data: {{sources: data, tokenizer: tok.json, prefetch: 1}}
train: {{steps: {STEPS}, batch: 8, accumulate: 8, seq: 128, threads: 1, precision: fp32}}
lr: {{schedule: constant, warmup: 2}}
eval: {{every: 0}}
log: {{every: 40}}
checkpoint: {{interval: 0}}
""")


# --- judging -------------------------------------------------------------------------------

def judge(case, fault, where, found, true, noise):
    """found: what diagnose said of the slowed run. true: seconds a step that it takes longer than
    without the fault, None where no step gets longer; noise: three standard errors of that."""
    top = found["findings"][0] if found["findings"] else None
    if not top:
        return Verdict(case.kind, fault, "-", False, False, true, noise, None, False, False, None)
    low, mid, high = top["gain_s"]
    right = top["id"] in (case.kind, *case.also)
    near_steps = all(abs((top["place"][k] or 0) - v) <= 1 for k, v in where.items()
                     if k.endswith("_step"))
    place = right and near_steps and all(
        top["place"][k] == v for k, v in where.items() if not k.endswith("_step"))
    if "rank" not in where and "peer" not in where:
        place = place and top["place"]["rank"] is None
    return Verdict(case.kind, fault, top["id"], right, place, true, noise, top["gain_s"],
                   true is not None and low <= true <= high,
                   true is not None and abs(mid - true) <= max(0.25 * true, noise),
                   (high - low) / mid if mid > 0 else None)


def show(v, flags, note=""):
    gain = "-" if not v.gain else "/".join(f"{1e3 * g:.1f}" for g in v.gain)
    true = "?" if v.true is None else f"{1e3 * v.true:.1f} ± {1e3 * v.noise / 3:.1f}"
    fine = v.right and v.place and (v.true is None or v.inside and v.near)
    print(f"{v.kind} {v.fault}: first {v.top}, place {'ok' if v.place else 'WRONG'}, true {true} "
          f"ms, predicted {gain}{note}{'' if fine else '   <<< ' + flags}", flush=True)


# --- the scoreboard ------------------------------------------------------------------------

def share(verdicts, test):
    n = sum(bool(test(v)) for v in verdicts)
    return f"{n} of {len(verdicts)} ({100 * n / max(1, len(verdicts)):.0f} %)"


def near_interval(v):
    """What a fault costs was measured, too, with this error."""
    low, _, high = v.gain
    return low - v.noise / 3 <= v.true <= high + v.noise / 3


def summary(verdicts, cleans, diagnose_s):
    right = [v for v in verdicts if v.right and v.true is not None]
    errors = sorted(abs(v.gain[1] - v.true) / v.true for v in right if v.true > 0)
    widths = [v.width for v in right if v.width]
    about = {True: [], False: []} # the run itself; the machine only: its clock, others' work
    for c in cleans:
        own = [f["id"] for f in c["findings"] if f.get("about") != "machine"]
        if c["findings"]:
            about[bool(own)].append((own or [c["findings"][0]["id"]])[0])
    noisy = about[True]
    rows = [("the cause is named first", share(verdicts, lambda v: v.right)),
            ("and its place is right", share(verdicts, lambda v: v.place)),
            ("the true gain lies in the predicted interval", share(right, lambda v: v.inside)),
            ("or no further from it than the truth's own standard error",
             share(right, lambda v: v.inside or near_interval(v))),
            ("the prediction is within 25 % or 3 standard errors",
             share(right, lambda v: v.near))]
    if errors:
        rows.append(("error of the prediction: median, 90 %",
                     f"{100 * statistics.median(errors):.1f} %, "
                     f"{100 * errors[int(0.9 * (len(errors) - 1))]:.1f} %"))
    if widths:
        rows.append(("(high - low) / prediction, median", f"{statistics.median(widths):.2f}"))
    rows.append(("runs without a fault that have a finding about themselves",
                 f"{len(noisy)} of {len(cleans)}{': ' if noisy else ''}{', '.join(noisy)}"))
    if about[False]:
        rows.append(("and those that are told of the machine only: of its clock, or of others' work on it",
                     f"{len(about[False])} of {len(cleans)}"))
    rows.append(("time to diagnose 40 steps: median, most",
                 f"{1e3 * statistics.median(diagnose_s):.0f} ms, "
                 f"{1e3 * max(diagnose_s):.0f} ms"))
    return rows


def table(rows):
    return ["| asked | result |", "|---|---|"] + [f"| {a} | {b} |" for a, b in rows]


def machine_name():
    name = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        name = next((l.split(":")[1].strip() for l in file if l.startswith("model name")), name)
    return f"{os.cpu_count()} cores ({name})"


def tracing_cost(program):
    """Lines: steps of one process with spans and their record and without, two by two; none where the
    program that alternates them was not built."""
    bench = os.path.join(os.path.dirname(program), "bench_record")
    if not os.path.exists(bench):
        return []
    steps = ["--steps", "700", "--batch", "1", "--seq", "32", "--threads", "1"]
    said = command([bench, "overhead", *steps], None)
    found = re.findall(r"^(\S+)\s+(\S+) ms a step; recording costs (\S+) % \(standard error (\S+), "
                       r"(\d+) pairs\)", said, re.M)
    rows = [(f"{what}{' time' if what == 'processor' else ''}, {pairs_n} pairs", f"{step} ms",
             f"{cost} % ± {error}") for what, step, cost, error, pairs_n in found]
    return ["Steps of one process in pairs with spans and their record and without; the median of the "
            "differences of neighbouring pairs, with its standard error. Processor time is that of all "
            f"threads, the writing one included: `bench_record overhead {' '.join(steps)}`, "
            f"{said.splitlines()[0]}, on {machine_name()}.", "", "| | step without | recording costs |", "|---|---|---|",
            *(f"| {a} | {b} | {c} |" for a, b, c in rows)]


def confusion(verdicts):
    counts = collections.Counter((v.kind, v.top) for v in verdicts)
    out = ["", "Injected, and what was named first how often:", "", "| injected | named first |",
           "|---|---|"]
    for kind in sorted({k for k, _ in counts}):
        named = sorted(((n, top) for (k, top), n in counts.items() if k == kind), reverse=True)
        out.append(f"| {kind} | {', '.join(f'{top} {n}' for n, top in named)} |")
    return out


def pairs(rows):
    """rows: kinds, what was injected, the ids of the first three findings, whether both are."""
    return ["", "Two faults at once:", "", "| kinds | injected | first three | both |",
            "|---|---|---|---|"] + [f"| {k} | `{f}` | {', '.join(ids)} | {'yes' if ok else 'no'} |"
                                    for k, f, ids, ok in rows]


def moves(clean, faulty):
    """Points by which each factor of the ladder fell."""
    before, after = clean["ladder"], faulty["ladder"]
    return {k: 100 * (before[k] - after[k]) for k in before
            if before[k] is not None and after[k] is not None}


def ladder_moves(verdicts):
    """Of each kind: which factor falls most, and how far the others go, either way."""
    by_kind = collections.defaultdict(list)
    for v in verdicts:
        if v.moved:
            by_kind[v.kind].append(v)
    out = ["", "What a fault moves on the ladder, in points: the factor that falls most, and the one "
           "that moves most of all others.", "",
           "| injected | falls most, how often | by, median | another moves by, median, most | which | "
           "by more than 2 |", "|---|---|---|---|---|---|"]
    for kind, list_ in sorted(by_kind.items()):
        first = [max(v.moved, key=v.moved.get) for v in list_]
        others = [max((k for k in v.moved if k != f), key=lambda k, m=v.moved: abs(m[k]))
                  for v, f in zip(list_, first)]
        sizes = [abs(v.moved[k]) for v, k in zip(list_, others)]
        counts = collections.Counter(first).most_common()
        fell = statistics.median(v.moved[f] for v, f in zip(list_, first))
        out.append(f"| {kind} | {', '.join(f'{k} {n}' for k, n in counts)} | {fell:.1f} | "
                   f"{statistics.median(sizes):.1f}, {max(sizes):.1f} | "
                   f"{others[sizes.index(max(sizes))]} | "
                   f"{sum(x > 2 for x in sizes) or 'never'} |")
    return out


def details(verdicts):
    out = ["", "| kind | injected | named first | place | it takes longer, ms | predicted, ms |",
           "|---|---|---|---|---|---|"]
    for v in verdicts:
        gain = "" if not v.gain else (f"{1e3 * v.gain[1]:.1f} [{1e3 * v.gain[0]:.1f}, "
                                      f"{1e3 * v.gain[2]:.1f}]")
        true = "" if v.true is None else f"{1e3 * v.true:.1f}"
        if v.true is not None and v.noise > 0:
            true += f" ± {1e3 * v.noise / 3:.1f}"
        out.append(f"| {v.kind} | `{v.fault}` | {v.top} | "
                   f"{'right' if v.place else 'wrong'} | {true} | {gain} |")
    return out
