"""prove_tune.py: recipes that were spoilt on purpose, and what `headway tune` makes of them.

    prove_tune.py PROGRAM [--folder F] [--budget 2m] [CASE...]

Each case is a recipe of a small model with settings that cost time, or with none, as a control. It
is tuned with --json; what was foretold, measured, and measured again in fresh processes is printed
as a section of Markdown per case, the diff of the recipe below it. A case that was done stays in
the folder (NAME.json) and is not run again."""
import argparse
import collections
import json
import pathlib
import subprocess
import sys
import time

Case = collections.namedtuple("Case", "what recipe flags")

PLAIN = {"model.spec": "laptop-2m", "train.batch": 4, "train.seq": 128}


def of(base, **more):
    return base | {key.replace("__", "."): value for key, value in more.items()}


CASES = {
    "as-it-is": Case("nothing is spoilt", PLAIN, ""),
    "recompute": Case("everything is computed again", of(PLAIN, train__recompute="full"), ""),
    "one-thread": Case("one thread", of(PLAIN, train__threads=1), ""),
    "thin": Case("micro-batches of one short row",
                 of(PLAIN, train__batch=1, train__accumulate=16, train__seq=32), ""),
    "generic": Case("kernels without vectors", PLAIN, "--backend generic"),
    "bf16": Case("bf16, for which this processor has no instructions",
                 of(PLAIN, train__precision="bf16"), ""),
    "loader": Case("a loader whose batches come unevenly, one read ahead",
                   of(PLAIN, data__prefetch=1, run__inject="loader_lognormal=100ms"), ""),
    "bucket": Case("two ranks, gradients in messages of 2 KiB",
                   of(PLAIN, layout__dp=2, layout__bucket="2KiB", train__batch=2), "--ranks 2"),
    "split": Case("two ranks that split all state", of(PLAIN, layout__dp=2, layout__zero=3),
                  "--ranks 2"),
    "many": Case("recompute, one thread and thin micro-batches at once",
                 of(PLAIN, train__recompute="full", train__threads=1, train__batch=1,
                    train__accumulate=8, train__seq=64), ""),
    "energy": Case("everything is computed again; tokens per joule are asked for",
                   of(PLAIN, train__recompute="full"), "--objective energy"),
    "loss": Case("one thread; the time to the recipe's loss is asked for",
                 of(PLAIN, train__threads=1), "--objective loss"),
}


def run(words, folder, **more):
    return subprocess.run([str(w) for w in words], cwd=folder, capture_output=True, text=True, **more)


def make_data(program, folder):
    """Some text of its own kind: the program's sources."""
    root = pathlib.Path(__file__).resolve().parents[2]
    if (folder / "data").exists():
        return
    text = "".join(p.read_text() for p in sorted((root / "src").rglob("*.c")))
    (folder / "t.txt").write_text(text)
    for words in ([program, "tokenizer", "train", "t.txt", "--vocab-size", 2048, "--out", "tok.json"],
                  [program, "data", "prepare", "t.txt", "--format", "text", "--tokenizer", "tok.json",
                   "--licence", "none", "--val-fraction", "0", "--out", "data"]):
        done = run(words + ["--quiet"], folder)
        if done.returncode:
            sys.exit(done.stderr)


def write_recipe(folder, name, settings):
    lines = ["data.sources: data", "data.tokenizer: tok.json", "train.steps: 1000", "lr.warmup: 10"]
    lines += [f"{key}: {value}" for key, value in settings.items()]
    (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n")


def tune(program, folder, name, budget):
    case, done = CASES[name], folder / f"{name}.json"
    if done.exists():
        return json.loads(done.read_text())
    write_recipe(folder, name, case.recipe)
    begin = time.time()
    out = run([program, "tune", f"{name}.yaml", "--budget", budget, "--json"] + case.flags.split(),
              folder)
    if out.returncode:
        print(f"{name}: {out.stderr}", file=sys.stderr)
        return None
    found = json.loads(out.stdout) | {"wall_s": time.time() - begin, "diagnosis": [
        line.split("the diagnosis: ")[1] for line in out.stderr.splitlines()
        if "the diagnosis: " in line]}
    done.write_text(json.dumps(found))
    return found


def percent(value):
    return "–" if value is None else f"{100 * value:+.1f} %"


def measured(t):
    if t["rounds"] == 0:
        return t.get("why", "not reached")
    if t["verdict"] == "unknown":
        return "one round"
    words = {"noise": "too noisy to tell: ", "even": "no different: ", "faster": "", "slower": ""}
    text = f"{words[t['verdict']]}{percent(t['gain'])} ± {100 * t['bar']:.1f}, {t['rounds']} rounds"
    if t["fate"] != "tried":
        text += f"; {t['fate']}: {t['why']}"
    return text


def section(name, found):
    case = CASES[name]
    trials = [t for t in found["trials"] if t["rounds"] or t["fate"] != "not tried"]
    left = [t for t in found["trials"] if t not in trials]
    flags = f", `{case.flags}`" if case.flags else ""
    print(f"\n### {name}: {case.what}\n\n`"
          + ", ".join(f"{k} {v}" for k, v in case.recipe.items()) + f"`{flags}\n")
    print(f"{1000 * found['step_s']:.1f} ms a step, trials of {found['trial_steps']} steps, one round is "
          f"off by {100 * found.get('noise', 0):.1f} %; {found['wall_s']:.0f} s in all. The diagnosis: "
          + ("; ".join(found["diagnosis"]) or "nothing") + ".\n")
    print("| change | predicted | by | actual |\n|---|---|---|---|")
    for t in trials:
        print(f"| {t['label']} | {percent(t.get('predicted'))} | {t.get('predicted_by', 'forecast')} | "
              f"{measured(t)} |")
    if left:
        most = max((t.get("predicted", 0) for t in left))
        print(f"\nNot tried: {len(left)}, of which the best promised {percent(most)}.")
    if "best" in found:
        print(f"\n**{found['best']}**: in fresh processes {percent(found['proven'])} ± "
              f"{100 * found['proven_bar']:.1f} ({found['proven_rounds']} rounds).\n\n```diff\n"
              + found["diff"].strip() + "\n```")
    elif "proven" in found:
        print(f"\nNothing is proven: the best was {percent(found['proven'])} ± "
              f"{100 * found['proven_bar']:.1f} when it ran again.")
    else:
        print("\nNothing is proven.")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("program", type=pathlib.Path)
    p.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("build/prove-tune"))
    p.add_argument("--budget", default="2m")
    p.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    a = p.parse_intermixed_args()
    program, folder = a.program.resolve(), a.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    make_data(program, folder)
    for name in a.cases or CASES:
        found = tune(program, folder, name, a.budget)
        if found:
            section(name, found)
            sys.stdout.flush()


main()
