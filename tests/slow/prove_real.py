"""prove_real.py: the part of prove_diagnose.py that trains in real processes.

A world is a model, a layout and a number of ranks. In most of them tasks sleep as long as they
would compute (`--compute none`), so that eight ranks run side by side on two cores while loader,
lanes and loop are real; in the others kernels compute. Twice, one after the other, each world is
run without a fault and with each of its faults by turns, so that the machine's wandering cancels:
what a fault costs is the median of its runs less the median of those without.

Every run's folder stays in build/prove-real/BACKEND, so that what was interrupted goes on, families can be
run one by one, and what diagnose says can be judged anew (--judge) by another build."""
import collections
import contextlib
import json
import os
import random
import re
import shutil
import statistics
import threading
import time

from prove_bench import (Case, command, confusion, details, judge, lane, machine_name, ms, pairs,
                         prepare, share, show, summary, table)

ROUNDS = 2
LEVELS = {"mild": 0.13, "strong": 0.5}
World = collections.namedtuple("World", "flags ranks kind") # kind: sleep, compute, mpi
Fault = collections.namedtuple("Fault", "family case levels")

SLEEP = "--compute none --rates flops=1e11,memory=5e10 --measure "
SMALL = "--set train.batch=4 --set train.accumulate=2 --set train.seq=64 "
DP4 = SLEEP + "--layout dp=4,zero=1 --set train.batch=4 --set train.accumulate=4 "
WORLDS = {
    "sleep4": World(DP4, 4, "sleep"),
    "sleep8": World(SLEEP + "--layout dp=8,zero=1 --set train.batch=8 --set train.accumulate=4 ",
                    8, "sleep"),
    "pipeline": World(SLEEP.replace("1e11", "4e11") + "--layout pp=2,dp=2 "
                      "--set train.batch=8 --set train.accumulate=16 ", 4, "sleep"),
    "tensor": World(SLEEP + "--layout dp=2,tp=2 --set model.spec=laptop-5m "
                    "--set train.batch=4 --set train.accumulate=2 --set train.seq=64 ", 4, "sleep"),
    "turned": World(SLEEP + "--layout dp=2,tp=2,order=dp-tp-pp --set model.spec=laptop-5m "
                    "--set train.batch=4 --set train.accumulate=8 --set train.seq=64 ", 4, "sleep"),
    "mpi4": World(DP4, 4, "mpi"),
    "unsplit": World(SLEEP.replace("1e11", "2e11") + "--layout dp=4 --set model.spec=laptop-5m "
                     "--set train.batch=4 --set train.accumulate=4 --set train.seq=64 ", 4,
                     "sleep"),
    "short": World(SLEEP.replace("5e10", "1e10") + "--layout dp=4,zero=1 "
                   "--set model.spec=laptop-5m --set train.batch=4 --set train.accumulate=1 "
                   "--set train.seq=64 ", 4, "sleep"),
    "thin": World(SLEEP.replace("1e11", "2e11").replace("5e10", "4e9") + "--layout dp=4,zero=1 "
                  "--set model.spec=laptop-5m --set train.batch=64 --set train.accumulate=1 "
                  "--set train.seq=32 ", 4, "sleep"),
    "thin_pipeline": World(SLEEP.replace("1e11", "2e11").replace("5e10", "4e9") +
                           "--layout pp=2,dp=2,zero=1 --set model.spec=laptop-5m --set "
                           "train.batch=16 --set train.accumulate=16 --set train.seq=32 ", 4,
                           "sleep"),
    "long_pipeline": World(SLEEP + "--layout pp=2,dp=2,zero=1 --set model.spec=laptop-5m "
                           "--set train.batch=4 --set train.accumulate=32 --set train.seq=64 ", 4,
                           "sleep"),
    "tiny": World("--set train.batch=4 --set train.accumulate=1 --set train.seq=32 --measure ", 1,
                  "compute"), # so short that a line of the log is a share of it
    "one": World(SMALL + "--measure ", 1, "compute"),
    "served": World(SMALL + "--set eval.tokens=4K ", 1, "compute"), # it evaluates and saves
    "threads": World(SMALL + "--set train.threads=2 --measure ", 1, "compute"),
    "rows": World('--set train.batch=2 --set train.accumulate=1 --set train.seq=2048 '
                  '--set model.override={"positions":2048} --layout dp=2,zero=1 --measure ', 2,
                  "compute"), # attention is what a row costs
    "experts": World('--set model.spec=laptop-moe --set model.override={"router.bias":true} '
                     "--set train.batch=4 --set train.accumulate=1 --set train.seq=64 "
                     "--layout dp=2,ep=2 --measure ", 2, "compute"),
    "two": World(SMALL + "--layout dp=2,zero=1 --measure ", 2, "compute"),
}
# A bubble, copies, short tasks, experts that are not equally full: also without a fault.
TROUBLED = ("pipeline", "thin_pipeline", "long_pipeline", "unsplit", "tiny", "experts")


# --- faults: (x, what diagnose says without it, ranks, random) to what to inject and where ---

def at(key, text):
    def fault(x, c, n, r):
        rank = r.randrange(n)
        return f"{text(x, c)}@{rank}", {key: rank}
    return fault


def all_over(text):
    return lambda x, c, n, r: (text(x, c), {})


def spin(x, c):
    return f"loader_spin={ms(c['step_s'] * (1 + x))}"


def slow_storage(x, c):
    return f"loader_bw={1e-6 * c['loader_bytes'] / (c['step_s'] * (1 + x)):.9f}MB/s"


def pause(x, c):
    return f"pause={ms(8 * x * c['step_s'])}/8"


def phi(x, c):
    return f"phi_override={1 / (1 + x):.3f}"


def slow(x, c):
    return f"slow_compute={1 + x:.3f}"


def link(x, c):
    busy = lane(c, "dp")
    return f"comm_bw={1e-6 * busy['bytes'] / (x * c['step_s'] + busy['busy_s']):.6f}MB/s"


def delay(x, c):
    return f"comm_delay={ms(x * c['step_s'] / lane(c, 'dp')['calls'])}"


def one_link(x, c, n, r):
    a = 2 * r.randrange(n // 2)
    rate = lane(c, "tp")["bytes"] / (x * c["step_s"])
    return f"pair_bw={a}-{a + 1}:{1e-6 * rate:.6f}MB/s", {"rank": a, "peer": a + 1}


def between_hosts(x, c, n, r):
    """Each link between two halves of the ranks, as if these were hosts."""
    busy = lane(c, "tp")
    rate = 1e-6 * busy["bytes"] / (x * c["step_s"] + busy["busy_s"])
    return ",".join(f"pair_bw={a}-{b}:{rate:.6f}MB/s" for a in range(n // 2)
                    for b in range(n // 2, n)), {"lane": "tp"}


def episode(x, c, n, r):
    rank, first = r.randrange(n), r.randrange(10, 16)
    last = first + r.randrange(12, 18)
    return f"slow_compute={1 + 2 * x:.3f}@{rank}:{first}-{last}", {
        "rank": rank, "first_step": first, "last_step": last}


def churn(x, c):
    return f"malloc_churn={max(64, round(x * c['step_s'] / 5e-4))}MiB" # malloc keeps less


def fixed(text, where=None):
    return lambda x, c, n, r: (text, where or {})


# What the fault adds to a step is not what mending gives back: rows hold less, cost unequally, or are
# fewer; experts are unequally full without it, too; links stay slow when ranks lie otherwise.
UNTIMED = ("D5", "D6", "B5", "B7", "C7")


def faults():
    both, strong = ("mild", "strong"), ("strong",)

    def one(family, kind, world, fault, levels=both, also=()):
        gain = None if kind not in UNTIMED else False
        return Fault(family, Case(kind, world, world, fault, gain, also), levels)
    return [
        one("data", "D1", "sleep4", at("rank", spin), also=["D2"]),
        one("data", "D1", "one", all_over(spin), also=["D2"]),
        one("data", "D2", "sleep4", at("rank", slow_storage), also=["D1"]),
        one("data", "D4", "sleep8", at("rank", lambda x, c: "loader_lognormal="
                                       f"{ms(c['step_s'] * (1.3 + 2 * x))}")),
        one("data", "D5", "one", fixed("padding=30%"), strong),
        one("data", "D6", "rows", fixed("seqlen_zipf=1.1"), strong),
        one("host", "H2", "served", fixed("eval_every=2"), strong),
        one("host", "H3", "served", fixed("ckpt_every=5"), strong),
        one("host", "H1", "tiny", fixed("log_every=1"), strong),
        one("host", "H4", "one", all_over(churn), strong), # a small one malloc keeps
        one("host", "H8", "one", fixed("neighbour=3"), strong),
        one("host", "H9", "sleep4", at("rank", pause)),
        one("host", "H9", "one", all_over(pause)),
        one("kernel", "K1", "threads", fixed("threads=8"), strong),
        one("kernel", "K2", "threads", fixed("serial=linear_dx"), strong),
        one("kernel", "K4", "sleep4", at("rank", phi)),
        one("kernel", "K4", "sleep8", all_over(phi)),
        one("kernel", "K4", "one", all_over(phi)),
        one("kernel", "K8", "one", fixed("isa=scalar"), strong),
        one("kernel", "K10", "sleep4", fixed("recompute=full"), strong),
        one("kernel", "K10", "one", fixed("recompute=full"), strong),
        one("kernel", "K7", "thin", fixed("micro_batch=4"), strong),
        one("kernel", "K14", "short", fixed("zero=0"), strong),
        one("comm", "C1", "unsplit", fixed("overlap=off"), strong),
        one("comm", "C10", "long_pipeline", fixed("sync_every_microbatch=on"), strong, also=["C4"]),
        one("comm", "C2", "unsplit", fixed("bucket=16KiB"), strong),
        one("comm", "C3", "unsplit", fixed("bucket=all"), strong),
        one("comm", "C4", "sleep4", all_over(link), also=["C10"]),
        one("comm", "C5", "sleep4", all_over(delay)),
        one("comm", "C5", "mpi4", all_over(delay)),
        one("comm", "C11", "tensor", one_link),
        one("comm", "C7", "turned", between_hosts, strong),
        one("balance", "B1", "sleep4", at("rank", slow)),
        one("balance", "B1", "sleep8", at("rank", slow)),
        one("balance", "B1", "mpi4", at("rank", slow)),
        one("balance", "B1", "pipeline", at("rank", lambda x, c: slow(0.25 + x, c)), also=["B5"]),
        one("balance", "B1", "two", at("rank", slow)),
        one("balance", "B2", "sleep4", episode),
        one("balance", "B3", "sleep8", all_over(lambda x, c: f"jitter={100 * x:.0f}%"),
            also=["H8"]),
        one("balance", "B5", "pipeline", fixed("accumulate=2"), strong),
        one("balance", "B6", "thin_pipeline", fixed("micro_batch=2"), strong),
        one("balance", "B7", "experts", fixed("router_zipf=1"), strong),
        one("balance", "B4", "pipeline", fixed("stage_skew=1", {"stage": 1}), strong, ["B5"]),
    ]


PAIRS = [("B1 C4", "slow_compute=1.5@1", link, 0.4), ("D1 K4", "phi_override=0.7@1", spin, 0.9),
         ("H9 B1", "slow_compute=1.4@2", pause, 0.4), ("D2 C5", "comm_delay=1ms", slow_storage, 1)]


# --- running -------------------------------------------------------------------------------

class Canary:
    """Sleeps briefly again and again on one core, as eager as the runs are (in real time more so: there
    those that are as eager wait until the run does): what it oversleeps, beyond what its turn
    may take, something took that comes before the runs. Then a run is no fair trial, whatever
    diagnose says of it."""
    NAP_S, TURN_S, FAIR = 0.05, 0.01, 0.02 # it wakes so rarely that it takes nothing itself

    def __init__(self):
        self.late = {core: 0.0 for core in os.sched_getaffinity(0)}
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.watch, args=(core,)) for core in self.late]

    def watch(self, core):
        os.sched_setaffinity(0, {core}) # of this thread
        if os.sched_getscheduler(0) == os.SCHED_FIFO:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))
        while not self.stop.is_set():
            begin = time.monotonic()
            time.sleep(self.NAP_S)
            late = time.monotonic() - begin - self.NAP_S
            self.late[core] += late if late > self.TURN_S else 0

    def __enter__(self):
        self.begin = time.monotonic()
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for t in self.threads:
            t.join()
        self.taken = max(self.late.values()) / (time.monotonic() - self.begin)


def best_precision(machine):
    """Where bf16 is faster, fp32 is a fault of its own (K8)."""
    return "bf16" if machine["bf16_all_flops"] > 1.1 * machine["f32_all_flops"] else "fp32"


@contextlib.contextmanager
def real_time(wanted):
    """What is begun within comes before all else on the machine, by turns of its own making."""
    if wanted:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    yield
    if wanted:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class Lab:
    def __init__(self, program, folder, backend, realtime=False):
        self.program, self.folder, self.realtime = program, folder, realtime
        self.backend = ["--backend", backend] # of worlds in which kernels compute
        self.chose_kernels = backend != "auto"
        self.env = dict(os.environ, XDG_CACHE_HOME=f"{folder}/cache")
        nice = os.nice(0)
        if os.geteuid() == 0:
            os.nice(-20 - nice)
        if not os.path.exists(f"{folder}/data"):
            os.makedirs(folder, exist_ok=True)
            for threads in (1, 2): # what this machine can do at best
                command([program, "machine", "--threads", str(threads), "--quiet",
                         *self.backend], folder, env=self.env)
            prepare(program, folder, 0.1)
        found = command([program, "machine", "--threads", "1", "--json", "--quiet",
                         *self.backend], folder, env=self.env)
        self.kernels = json.loads(found)["backend"] # that were measured, also where none was named
        self.precision = best_precision(json.loads(found))

    def path(self, name):
        return f"{self.folder}/runs/{name}"

    def has(self, name):
        return os.path.exists(f"{self.path(name)}/proof.json")

    def run(self, name, world, fault, about, more=()):
        """Trains, and keeps of its folder what diagnose reads."""
        w = WORLDS[world]
        mpi = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(w.ranks)]
        flags = [*w.flags.split(), *more] # tasks that sleep have the rates that are given
        if w.kind == "compute":
            flags += ["--set", f"train.precision={self.precision}", *self.backend]
        ranks = ["--ranks", str(w.ranks)] if w.ranks > 1 and w.kind != "mpi" else []
        begin = time.monotonic()
        rests = ((w.kind == "sleep" or w.kind == "compute" and w.ranks == 1) and
                 not re.search("threads=|neighbour=", fault or "")) # two ranks look for each other
        for again in range(2):
            shutil.rmtree(self.path(name), ignore_errors=True)
            with real_time(self.realtime and rests), Canary() as canary:
                command([*(mpi if w.kind == "mpi" else []), self.program, "train", "r.yaml",
                         "--quiet", "--set", f"run.name={name}", *ranks, *flags,
                         *(["--inject", fault] if fault else [])], self.folder, 300, self.env)
            if canary.taken < canary.FAIR:
                break
        for waste in ("checkpoints", "trace.json", "trace.pftrace"):
            path = f"{self.path(name)}/{waste}"
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.exists(path):
                os.remove(path)
        about = {"fault": fault} | about | {"world": world, "load": os.getloadavg()[0],
                  "again": again, "taken": canary.taken,
                  "train_s": time.monotonic() - begin}
        with open(f"{self.path(name)}/proof.json", "w", encoding="utf-8") as out:
            json.dump(about, out)

    def diagnose(self, name):
        with open(f"{self.path(name)}/proof.json", encoding="utf-8") as file:
            about = json.load(file)
        begin = time.monotonic()
        steps = ["--steps", about["steps"]] if "steps" in about else []
        found = json.loads(command([self.program, "diagnose", f"runs/{name}", "--json", *steps],
                                   self.folder, env=self.env))
        return found | {"about": about, "diagnose_s": time.monotonic() - begin}


Job = collections.namedtuple("Job", "name world fault level round")


def plan(wanted):
    """Runs in order: a world's, with one without a fault before, between and behind each two."""
    jobs, worlds = [], {}
    for f in wanted:
        worlds.setdefault(f.case.world, []).append(f)
    for turn in range(ROUNDS):
        for world, those in worlds.items():
            slowed = [(f, level) for f in those for level in f.levels]
            for i, (f, level) in enumerate(slowed):
                if i % 2 == 0:
                    jobs.append(Job(f"{world}-{turn}-{f.case.kind}-{level}-clean", world, None, "",
                                    turn))
                jobs.append(Job(f"{world}-{turn}-{f.case.kind}-{level}", world, f, level, turn))
            jobs.append(Job(f"{world}-{turn}-last-clean", world, None, "", turn))
    return jobs


def inject(job, base):
    r = random.Random(f"{job.name} {job.fault.case.kind}".replace(f"-{job.round}-", "-"))
    x = LEVELS[job.level] * r.uniform(0.85, 1.3)
    return job.fault.case.fault(x, base, WORLDS[job.world].ranks, r)


def base_of(lab, jobs, world):
    """What a fault's size is reckoned from: the world's first run without one."""
    path = f"{lab.folder}/{world}.json"
    if not os.path.exists(path):
        name = next((j.name for j in jobs if j.world == world and not j.fault and
                     lab.has(j.name)), None) or f"{world}-base"
        if not lab.has(name):
            lab.run(name, world, None, {})
        with open(path, "w", encoding="utf-8") as out:
            json.dump(lab.diagnose(name), out)
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def run_all(lab, jobs):
    left = [j for j in jobs if not lab.has(j.name)]
    begin, done = time.monotonic(), 0
    for j in left:
        fault, where = inject(j, base_of(lab, jobs, j.world)) if j.fault else (None, {})
        if STEPWISE.match(fault or ""):
            lab.run(j.name, j.world, by_turns(fault),
                    {"where": where, "steps": f"{FIRST}-{LAST}", "fault": fault}, WITHIN)
        else:
            lab.run(j.name, j.world, fault, {"where": where})
        done += 1
        eta = (time.monotonic() - begin) / done * (len(left) - done)
        print(f"[{len(jobs) - len(left) + done}/{len(jobs)}] {j.name} {fault or ''}: "
              f"{eta / 60:.1f} min to go", flush=True)


# --- what a fault costs, within one run -------------------------------------------------------

# What acts step by step is put into the steps that are judged, and behind these, in the same process, into
# every other block of steps: each is compared with those around it, so that neither the machine's wandering
# from run to run matters nor that within one. Two runs of one recipe may differ by half. What comes every
# eighth step is in the midst of a block.
BLOCK, BLOCKS = 8, 11
FIRST, LAST = 4, 43 # with the fault, and judged; counted from 1, behind those that are not steady
STEPWISE = re.compile(r"^(((slow_compute|phi_override|comm_delay|comm_bw|loader_spin|loader_bw|"
                      r"malloc_churn|serial|pause)=[^,:]+)|pair_bw=[^,:]+:[^,:]+)$")
WITHIN = ["--set", f"train.steps={LAST + BLOCK * BLOCKS}", "--set", "log.every=1"]


def by_turns(fault):
    begins = range(LAST + 1 + BLOCK, LAST + BLOCK * BLOCKS, 2 * BLOCK)
    return ",".join(f"{fault}:{a}-{b}" for a, b in [(FIRST, LAST)] + [(b, b + BLOCK - 1) for b in begins])


def cost_by_turns(lab, name, fault):
    """Seconds a step that the fault costs, and the standard error: each block against the mean of
    those around it. What was read ahead of a change is used up first."""
    settling = 2 if fault.startswith("loader") else 0
    with open(f"{lab.path(name)}/metrics.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    took = {s["step"]: s["step_s"] for s in lines if s.get("event") == "step"}
    begins = range(LAST + 1, LAST + BLOCK * BLOCKS, BLOCK)
    blocks = [statistics.mean(took[s] for s in range(b + settling, b + BLOCK)) for b in begins]
    apart = [(blocks[b] - (blocks[b - 1] + blocks[b + 1]) / 2) * (1 if b % 2 else -1)
             for b in range(1, BLOCKS - 1)]
    return statistics.median(apart), 1.25 * statistics.stdev(apart) / len(apart) ** 0.5


def run_pairs(lab):
    base = base_of(lab, [], "sleep4")
    for kinds, one, other, x in PAIRS:
        name = f"pair-{kinds.replace(' ', '-')}"
        if not lab.has(name):
            two = other(x, base) + ("@2" if other in (spin, slow_storage, pause) else "")
            lab.run(name, "sleep4", f"{one},{two}", {"where": {}})


# --- judging -------------------------------------------------------------------------------

def beside(jobs, at, step):
    """The nearest run without a fault before (step -1) or behind (1) one, in its turn."""
    job, at = jobs[at], at + step
    while 0 <= at < len(jobs) and (jobs[at].world, jobs[at].round) == (job.world, job.round):
        if not jobs[at].fault:
            return jobs[at].name
        at += step
    return None


def true_cost(jobs, found, job):
    """Seconds a step that the fault costs, and the standard error of that: the median over turns
    of its run less the mean of those without it before and behind; the error is of turns from
    each other, and of steps within them."""
    apart, within = [], 0
    for at, j in enumerate(jobs):
        if j.fault != job.fault or j.level != job.level:
            continue
        clean = [found[n] for n in (beside(jobs, at, -1), beside(jobs, at, 1)) if n]
        if clean:
            apart.append(found[j.name]["step_s"] - statistics.mean(c["step_s"] for c in clean))
            within += (found[j.name]["step_se_s"] ** 2 +
                       sum(c["step_se_s"] ** 2 for c in clean) / len(clean) ** 2)
    if not apart:
        return None, 0
    between = statistics.variance(apart) / len(apart) if len(apart) > 1 else 0
    return statistics.median(apart), (within / len(apart) ** 2 + between) ** 0.5


def apart_from(case, found, clean):
    """What was found, but for what the runs without the fault, before and behind, have too: the
    machine's own faults. Of those at least half the gain must be there."""
    def is_there(f):
        return clean and f["id"] not in (case.kind, *case.also) and all(any(g["id"] == f["id"] and g["gain_s"][1] >= 0.5 * f["gain_s"][1]
                                 for g in c["findings"]) for c in clean)
    return found | {"findings": [f for f in found["findings"] if not is_there(f)]}


def but_for_choice(lab, job, found):
    """Where the proof itself chose kernels, that they are not the fastest (K8) is its own doing."""
    if lab.chose_kernels and not (job.fault and job.fault.case.kind == "K8"):
        found["findings"] = [f for f in found["findings"] if f["id"] != "K8"]
    return found


def is_of_other_kernels(lab, job, found):
    """What a finding promises of kernels that the proof did not choose, its other runs do not show."""
    return job.fault.case.kind == "K8" and any(
        f["id"] == "K8" and f["fix"] != f"--backend {lab.kernels}" for f in found["findings"])


def judge_all(lab, jobs):
    jobs = [j for j in jobs if lab.has(j.name)]
    found = {j.name: but_for_choice(lab, j, lab.diagnose(j.name)) for j in jobs}
    verdicts, cleans, sleeps, alone = [], [], [], []
    for at, j in enumerate(jobs):
        if j.fault:
            about = found[j.name]["about"]
            true, error = (cost_by_turns(lab, j.name, about["fault"]) if "steps" in about else
                           true_cost(jobs, found, j))
            if j.fault.case.gain is False or is_of_other_kernels(lab, j, found[j.name]):
                true = None
            v = judge(j.fault.case, about["fault"], about["where"], found[j.name], true,
                      3 * error)
            show(v, j.name)
            verdicts.append(v)
            sleeps.append(WORLDS[j.world].kind != "compute")
            clean = [found[n] for n in (beside(jobs, at, -1), beside(jobs, at, 1)) if n]
            alone.append(judge(j.fault.case, about["fault"], about["where"],
                               apart_from(j.fault.case, found[j.name], clean), true,
                               3 * error))
        elif j.world not in TROUBLED:
            cleans.append(found[j.name])
            for f in found[j.name]["findings"][:1]:
                print(f"clean {j.name}: {f['id']} {f['gain_s']} {f['evidence'][:2]}", flush=True)
    return verdicts, cleans, found, sleeps, alone


def founded(cleans):
    """Of runs without a fault, those with a finding, and whether it is true all the same: the run
    takes longer than the quietest one of its world by what the finding promises at least, and by half
    of what it promises. Other work on the machine is a fault that nobody put in."""
    quietest = {}
    for c in cleans:
        world = c["about"]["world"]
        quietest[world] = min(c["step_s"], quietest.get(world, c["step_s"]))
    def is_true(c):
        low, mid, _ = c["findings"][0]["gain_s"]
        return c["step_s"] - quietest[c["about"]["world"]] >= max(low, mid / 2)
    return [(c, is_true(c)) for c in cleans if c["findings"]]


def alarms(cleans):
    """The same as a row of the scoreboard."""
    found = founded(cleans)
    false = [c["findings"][0]["id"] for c, true in found if not true]
    return ("of these, runs that are not slower than the quietest of their world by what the finding "
            "promises at least, and half of what it promises: false alarms",
            f"{len(false)} of {len(cleans)}{': ' if false else ''}{', '.join(false)}")


def by_world(verdicts, cleans, sleeps):
    """Where kernels compute, other work on the machine is a cause of its own, with or without a
    fault."""
    rows = []
    for name, sleeping in (("tasks sleep", True), ("kernels compute", False)):
        those = [v for v, s in zip(verdicts, sleeps) if s == sleeping]
        bare = [c for c in cleans
                if (WORLDS[c["about"]["world"]].kind != "compute") == sleeping]
        rows.append((f"of these where {name}: the cause is first, and the place right",
                     f"{share(those, lambda v: v.right)}, {share(those, lambda v: v.place)}"))
        priced = [v for v in those if v.right and v.true is not None]
        rows.append((f"of these where {name}: the true gain lies in the predicted interval",
                     share(priced, lambda v: v.inside)))
        rows.append((f"of these where {name}: without a fault and with a finding; but H8",
                     f"{sum(bool(c['findings']) for c in bare)} of {len(bare)}; "
                     f"{sum(any(f['id'] != 'H8' for f in c['findings'][:1]) for c in bare)}"))
    return rows


def where_it_costs(verdicts):
    """A fault that does not slow a run by what can be measured was not put in."""
    those = [v for v in verdicts if v.true is None or v.true > 2 / 3 * v.noise]
    priced = [v for v in those if v.right and v.true is not None]
    return (f"but for the {len(verdicts) - len(those)} faults that cost less than two standard errors of their "
            "cost: the cause is first, the place right, the gain inside",
            f"{share(those, lambda v: v.right)}, {share(those, lambda v: v.place)}, "
            f"{share(priced, lambda v: v.inside)}")


def judge_pairs(lab):
    rows = []
    for kinds, _, _, _ in PAIRS:
        name = f"pair-{kinds.replace(' ', '-')}"
        if lab.has(name):
            d = lab.diagnose(name)
            ids = [f["id"] for f in d["findings"][:3]]
            rows.append((kinds, d["about"]["fault"], ids, all(k in ids for k in kinds.split())))
    return rows


def about_machine(found, kernels, realtime):
    loads = [d["about"]["load"] for d in found.values()]
    again = sum(d["about"]["again"] for d in found.values())
    unfair = sum(d["about"]["taken"] >= Canary.FAIR for d in found.values())
    return (f"{len(found)} runs of 40 steps on {machine_name()}, kernels of backend {kernels}, which other work "
            f"wanted too: the load was {min(loads):.1f} to {max(loads):.1f}, "
            f"{statistics.median(loads):.1f} in the median, and these runs came first "
            f"({'in real time, but for those that never rest' if realtime else 'nice -20'}). "
            f"{again} runs were repeated, once, because something that came before them took "
            f"2 % of a core or more; {unfair} were kept all the same. "
            "What a fault costs, where it can be had in some steps only, is measured behind the steps that are "
            "judged, in the same run, of which every other block of 8 steps has it; else it is what its run takes longer than "
            "those without it before and behind, median over turns; ± is its standard error.")


def prove(program, families, only, fresh, judge_only, backend, realtime):
    """Lines of Markdown. Runs of each backend have a folder of their own."""
    folder = os.path.abspath(f"build/prove-real/{backend}")
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    lab = Lab(program, folder, backend, realtime)
    mpi = (shutil.which("mpirun") is not None and
           os.path.exists(f"{os.path.dirname(program)}/headway-mpi-openmpi.so"))
    chosen = [f for f in faults() if (mpi or WORLDS[f.case.world].kind != "mpi") and
              re.search(only, f"{f.case.kind} {f.case.world}")]
    wanted = [f for f in chosen if not families or f.family in families]
    if not judge_only:
        run_all(lab, plan(wanted))
        if not only and (not families or "pairs" in families):
            run_pairs(lab)
    verdicts, cleans, found, sleeps, alone = judge_all(lab, plan(wanted if only else chosen))
    rows = summary(verdicts, cleans, [d["diagnose_s"] for d in found.values()])
    rows.append(where_it_costs(verdicts))
    rows.append(alarms(cleans))
    rows += by_world(verdicts, cleans, sleeps)
    rows.append(("but for what the runs beside it without the fault have too: the cause is first, and "
                 "the place right",
                 f"{share(alone, lambda v: v.right)}, {share(alone, lambda v: v.place)}"))
    both = judge_pairs(lab)
    return ([about_machine(found, lab.kernels, realtime), "", *table(rows), *confusion(verdicts)] +
            (pairs(both) if both else []) + details(verdicts))
