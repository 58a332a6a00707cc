#!/usr/bin/env python3
"""test_report.py HEADWAY [--long] [--many PROGRAM] [--pictures FOLDER]: the page of `headway report` in a browser.

Trains a tiny model, writes its page, and drives it: does it draw, zoom, speak, fit a narrow screen,
keep quiet on the console and in the network? Without Chromium it says so and ends with 77. --long
adds pages of long and of hostile runs. Pictures are for looking at."""
import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from browser import Absent, Browser  # noqa: E402

RECIPE = """model: {spec: laptop-2m, override: {layers: 2, width: 64, hidden: 96, heads: 4}}
data: {sources: data, tokenizer: tok.json}
train: {steps: 40, batch: 2, seq: 32, threads: 1}
lr: {schedule: constant, warmup: 2}
eval: {every: 10, tokens: 200}
log: {every: 1, health: 10}
run: {name: NAME}
"""
NASTY = '</script><script>document.title="run"</script><img src=x onerror=alert(1)>\x1b[2J'
failures = []


def check(holds, what):
    print(("  ok    " if holds else "  FAIL  ") + what)
    if not holds:
        failures.append(what)


# --- runs ---------------------------------------------------------------------------


def shell(folder, *words):
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=120, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}\n{done.stdout.decode(errors='replace')}")
    return done.stdout.decode(errors="replace")


def train(headway, folder):
    with open(folder + "/text.txt", "w", encoding="utf-8") as f:
        for i in range(400):
            f.write(f"the cat number {i} sat on mat {i * 7 % 31} and saw {i * i % 97} birds\n\n")
    shell(folder, headway, "tokenizer", "train", "text.txt", "--vocab-size", "300", "--out",
          "tok.json", "--quiet")
    shell(folder, headway, "data", "prepare", "text.txt", "--format", "paragraphs", "--least", "1",
          "--val-fraction", "0.1", "--tokenizer", "tok.json", "--out", "data", "--quiet")
    for name, sets in (("one", []), ("two", ["--set", "optim.lr=3e-3"])):
        with open(folder + "/recipe.yaml", "w", encoding="utf-8") as f:
            f.write(RECIPE.replace("NAME", name))
        shell(folder, headway, "train", "recipe.yaml", "--quiet", *sets)


def write_lines(path, lines):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(line) + "\n" for line in lines)


def make_long_run(folder, steps):
    write_lines(folder + "/metrics.jsonl", (
        {"event": "step", "t": 1e9 + i, "step": i + 1, "loss": 2 + 8 / (i + 9) ** 0.5 +
         (zlib.crc32(b"%d" % i) % 1000) / 4000 + (5 if i == steps // 2 else 0), "lr": 1e-3,
         "tokens": 1024 * (i + 1), "tokens_per_s": 1000 + i % 7, "step_s": 1} for i in range(steps)))


def make_hostile_run(folder):
    write_lines(folder + "/metrics.jsonl", [
        {"event": "step", "t": 1, "step": i, "loss": 3, "sources": {NASTY: 2, "__proto__": 3}}
        for i in range(5)] + [{"event": NASTY, "step": 3, "text": NASTY}])
    with open(folder + "/manifest.json", "w", encoding="utf-8") as f:
        json.dump({"model": {"name": NASTY, "parameters": "many"}, "config": {NASTY: NASTY},
                   "segments": [None, 7, {"from_step": NASTY}],
                   "data": [{"name": NASTY, "path": NASTY}], "machine": 7}, f)
    with open(folder + "/log.txt", "w", encoding="utf-8") as f:
        f.write(NASTY)
    with open(folder + "/energy.json", "w", encoding="utf-8") as f:
        f.write('{"J": ')


def report(headway, folder, *runs):
    out = os.path.join(folder, "page.html")
    shell(folder, headway, "report", *runs, "--out", out)
    return out


# --- the page -----------------------------------------------------------------------

NAMELESS = """[...document.querySelectorAll('button, select, input, canvas, svg.plot')].filter((e) =>
    !(e.textContent.trim() || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby')
      || e.closest('label'))).map((e) => e.outerHTML.slice(0, 80))"""

# Contrast of text with what is behind it (WCAG 2: (L1 + 0.05) / (L2 + 0.05)).
CONTRAST = """(() => {
  const light = (name) => {
    const c = document.createElement('canvas').getContext('2d');
    c.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
    const hex = parseInt(c.fillStyle.slice(1), 16);
    return [16, 8, 0].map((s) => (hex >> s & 255) / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  };
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)];
    return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
  };
  const texts = ['--ink', '--soft', '--accent'].flatMap((t) => [[t, ratio(t, '--card'), 4.5], [t, ratio(t, '--page'), 4.5]]);
  const lines = [...Array(8).keys()].map((i) => ['--c' + i, ratio('--c' + i, '--card'), 3]);
  return [...texts, ...lines].filter(([, have, want]) => have < want);
})()"""


def check_quiet(page, file, what):
    check(page.complaints == [], f"{what}: nothing on the console {page.complaints}")
    check(page.requests == ["file://" + file], f"{what}: no request but the page {page.requests}")


def check_drawing(page):
    charts = page.evaluate("document.querySelectorAll('figure svg.plot').length")
    drawn = page.evaluate("[...document.querySelectorAll('svg.plot')].filter((p) => "
                          "p.querySelector('path')?.getAttribute('d').startsWith('M')).length")
    check(charts >= 6 and drawn == charts, f"{drawn} of {charts} charts are drawn")
    check(page.evaluate(NAMELESS) == [], f"every control has a name {page.evaluate(NAMELESS)}")
    check(page.evaluate("[...document.querySelectorAll('figure')].every((f) => "
                        "f.querySelector('details summary'))"),
          "a table stands behind every picture")
    page.evaluate("document.querySelector('#curves details').open = true")
    page.wait("document.querySelectorAll('#curves details tbody tr').length > 10")
    check(True, "the table opens")


def axis(page, selector):
    return page.evaluate(f"[...document.querySelectorAll({json.dumps(selector + ' text')})]"
                         ".map((t) => t.textContent).join(' ')")


def check_zoom(page):
    plot = "#curves svg.plot"
    before = axis(page, plot)
    x, y, w, h = page.box(plot)
    page.drag(x + w * 0.3, y + h / 2, x + w * 0.6, y + h / 2)
    near = axis(page, plot)
    check(near != before, "dragging looks closer")
    page.mouse("mouseMoved", x + w * 0.5, y + h / 2)
    check(page.evaluate("!document.getElementById('tip').hidden"), "pointing shows values")
    page.evaluate(f"document.querySelector('{plot}').focus()")
    page.key("0")
    check(axis(page, plot) == before, "0 shows everything again")
    page.key("+")
    check(axis(page, plot) != before, "+ looks closer")
    page.key("ArrowRight")
    said = page.evaluate("document.getElementById('said').textContent")
    check(said.startswith("step ") and "training" in said, f"arrow keys read values: {said}")
    page.key("Escape")


# The share of the canvas that is drawn upon, in per mille.
DRAWN = """(() => { const c = document.querySelector('canvas.timeline');
  const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let n = 0; for (let i = 3; i < p.length; i += 4) n += p[i] > 0;
  return Math.round(4000 * n / p.length); })()"""
PIXELS = """(() => { const c = document.querySelector('canvas.timeline'); return c.toDataURL(); })()"""


def check_timeline(page):
    x, y, w, h = page.box("canvas.timeline")
    page.frame()
    drawn = page.evaluate(DRAWN)
    check(drawn > 150, f"the timeline is drawn: {drawn} of 1000 pixels")
    before = page.evaluate(PIXELS)
    page.evaluate("document.querySelector('canvas.timeline').focus()")
    page.key("ArrowRight")
    said = page.evaluate("document.getElementById('said').textContent")
    check("rank 0" in said and "into step" in said, f"arrow keys read spans: {said}")
    page.key("+")
    near = page.evaluate(PIXELS)
    check(near != before, "+ looks closer")
    page.drag(x + w * 0.6, y + h / 2, x + w * 0.4, y + h / 2)
    check(page.evaluate(PIXELS) != near, "dragging moves it")
    page.key("0")
    check(page.evaluate("document.querySelectorAll('#findings .share i').length > 0"),
          "findings say where a step's time goes")
    check(page.evaluate("document.querySelectorAll('#findings .ladder .rung').length") >= 7,
          "the ladder has its rungs")
    off = page.evaluate("(() => { const l = JSON.parse(document.getElementById('data').textContent)"
                        ".runs[0].record.ladder; return l.mfu === null ? 0 : Math.abs("
                        "l.factors.reduce((p, f) => p * (f.value ?? 1), 1) / l.mfu - 1); })()")
    check(off < 1e-9, f"its factors multiply to the MFU: off by {off}")
    for part in ("roofline", "memory"):
        check(page.evaluate(f"document.querySelectorAll('#{part} svg.plot path').length > 0"),
              f"the {part} is drawn")


def check_themes(page):
    back = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(back)
    check(page.evaluate(CONTRAST) == [], f"light has contrast {page.evaluate(CONTRAST)}")
    page.prefer("dark")
    page.frame()
    dark = page.evaluate(back)
    check(dark != light, "dark where the reader prefers dark")
    check(page.evaluate(CONTRAST) == [], f"dark has contrast {page.evaluate(CONTRAST)}")
    page.evaluate("document.getElementById('theme').click()")
    check(page.evaluate(back) == light, "the button changes it")
    page.prefer("light")


# What is seen beyond the right edge, but for what its own scroller holds.
OUTSIDE = """[...document.querySelectorAll('body *')].filter((e) => {
  const r = e.getBoundingClientRect(), inside = e.closest('.scroll, nav, pre.log');
  return r.width > 1 && r.right > innerWidth + 1 && (!inside || inside === e);
}).map((e) => e.tagName + '.' + e.className)"""
# Tables with a column of numbers at their end, of few columns, that is out of sight.
CUT = """[...document.querySelectorAll('#findings .scroll')].filter((e) => e.clientWidth > 0 &&
  e.querySelectorAll('thead th').length <= 4 && e.scrollWidth > e.clientWidth + 1)
  .map((e) => `${e.getAttribute('aria-label')}: ${e.scrollWidth} of ${e.clientWidth}`)"""


def check_narrow(page):
    page.resize(320, 640)
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        page.evaluate("document.querySelectorAll('details').forEach((d) => d.open = true)")
        page.frame()
        page.frame()
        wide = page.evaluate("document.documentElement.scrollWidth")
        check(wide <= 320, f"320 pixels are enough, {scheme}: {wide}")
        check(page.evaluate(OUTSIDE) == [], f"nothing sticks out {page.evaluate(OUTSIDE)}")
        shown = page.evaluate("document.querySelectorAll('#findings .scroll').length")
        check(shown >= 2 and page.evaluate(CUT) == [],
              f"{shown} tables beside findings are not cut {page.evaluate(CUT)}")
    page.prefer("light")
    least = page.evaluate("Math.min(...[...document.querySelectorAll('#settings table.data td:last-child')]"
                          ".map((e) => e.getBoundingClientRect().width))")
    check(least > 100, f"values are read in words, not letters: {least} pixels")
    page.resize(1280, 900)
    page.frame()


def check_print(page):
    paper = base64.b64decode(page.call("Page.printToPDF", printBackground=True)["data"])
    check(paper.startswith(b"%PDF") and len(paper) > 20000, f"prints: {len(paper)} bytes of PDF")


def check_one(browser, file, pictures):
    page = browser.open("file://" + file)
    page.frame()
    check_drawing(page)
    check_zoom(page)
    check_timeline(page)
    check_themes(page)
    check_narrow(page)
    check_print(page)
    check_quiet(page, file, "one run")
    if pictures:
        page.screenshot(pictures + "/one.png")
        page.prefer("dark")
        page.frame()
        page.screenshot(pictures + "/one-dark.png")


def check_resumed(browser, headway, folder):
    shell(folder, headway, "train", "recipe.yaml", "--quiet", "--resume", "--set", "train.steps=45")
    page = browser.open("file://" + report(headway, folder, "runs/two"))
    page.frame()
    said = page.evaluate("document.querySelector('#summary').textContent")
    check("Starts2at steps 0, 40" in said, f"a run that went on says so {said}")
    check("at step 40" in page.evaluate("document.querySelector('#settings').textContent"),
          "and when")


def check_short(browser, headway, folder):
    shell(folder, headway, "train", "recipe.yaml", "--quiet", "--set", "train.steps=2", "--set",
          "run.name=short")
    file = report(headway, folder, "runs/short")
    page = browser.open("file://" + file)
    page.frame()
    said = page.evaluate("document.querySelector('#findings').textContent")
    check("no steady step is recorded" in said and "above the noise" not in said,
          "a run without a steady step is not judged")
    check_quiet(page, file, "a run without a steady step")


def check_two(browser, file, pictures):
    page = browser.open("file://" + file)
    page.frame()
    check("optim.lr" in page.evaluate("document.querySelector('#settings tr.differs').closest('.card')"
                                      ".textContent"), "two runs: what differs is said")
    check(page.evaluate("document.querySelectorAll('#curves .legend')[0].textContent")
          .count("training") == 2, "two runs: curves of both")
    check_quiet(page, file, "two runs")
    page.resize(320, 640)
    page.frame()
    least = page.evaluate("Math.min(...[...document.querySelectorAll('#summary tbody > tr > :first-child')]"
                          ".map((e) => e.getBoundingClientRect().width))")
    check(least > 40, f"two runs: on a narrow screen, too, names are read in words: {least} pixels")
    page.resize(1280, 900)
    page.frame()
    if pictures:
        page.screenshot(pictures + "/two.png")


def check_simulated(browser, headway, folder):
    """What only one of the runs has says why the other lacks it."""
    shell(folder, headway, "train", "recipe.yaml", "--quiet", "--clock", "virtual", "--set",
          "run.name=virtual")
    page = browser.open("file://" + report(headway, folder, "runs/virtual", "runs/one"))
    page.frame()
    said = page.evaluate("document.querySelector('#summary').textContent")
    check("Training loss–  (simulated: nothing is computed" in said, f"a dash says why: {said}")
    check("Steps40  (of 40)" in said, "a simulated run has taken steps")
    check("the clock of virtual is computed" in said, "a computed clock is told from a measured one")
    check("Simulated in" in said, "what simulating took is no time of the run")
    shell(folder, headway, "train", "recipe.yaml", "--quiet", "--clock", "virtual", "--layout", "dp=4",
          "--set", "train.batch=4", "--rates", "link=1e7", "--set", "run.name=ranks")
    page = browser.open("file://" + report(headway, folder, "runs/ranks"))
    page.frame()
    said = page.evaluate("document.querySelector('#log').textContent")
    check("preflight: latency_s 2×10⁻⁵, bytes_per_s 10" in said and "{" not in said, f"events are words: {said}")
    under_way = page.evaluate("(() => { const r = JSON.parse(document.getElementById('data').textContent).runs[0].record; "
                              "const last = r.steps[r.steps.length - 1]; "
                              "return Math.max(...r.ranks.map((k) => k.seconds[7])) / (last.end * 1e-9); })()")
    check(0 < under_way <= 1, f"exchanges above each other are counted once: {under_way} of the time")


def check_uneven(browser, headway, folder):
    """What is waited for without a finding is said, as the command says it."""
    shell(folder, headway, "train", "recipe.yaml", "--quiet", "--clock", "virtual", "--layout", "pp=2",
          "--set", "model.override={layers: 3, width: 64, hidden: 96, heads: 4}", "--set",
          "train.accumulate=40", "--set", "run.name=uneven")
    page = browser.open("file://" + report(headway, folder, "runs/uneven"))
    page.frame()
    said = page.evaluate("document.querySelector('#findings').textContent")
    check("of waiting for other ranks is for stages of unequal length" in said and
          "above the noise" not in said, f"stages that cannot be even are told: {said[:300]}")


def check_numbers(browser, headway, folder):
    page = browser.open("file://" + report(headway, folder, "runs/one"))
    page.frame()
    said = page.evaluate("[number(Math.fround(1e-4)), number(2.111e-5), number(3e17)].join(' ')")
    check(said == "0.0001 2.11×10⁻⁵ 3×10¹⁷", f"numbers are as people write them: {said}")
    check("noise scale is not known: it takes two micro-batches" in
          page.evaluate("document.querySelector('#health').textContent"),
          "why there is no noise scale is said")


def check_long(browser, file):
    page = browser.open("file://" + file)
    page.frame()
    high = page.evaluate("document.querySelector('#curves figcaption').textContent")
    check(os.path.getsize(file) < 400000, f"a long run: {os.path.getsize(file)} bytes")
    check("and 7." in high, f"a long run: one step's spike is not lost: {high}")
    check_quiet(page, file, "a long run")


def check_many(browser, file, pictures):
    """Twice, since the first page also starts the browser's machinery."""
    for what in ("in a new browser", "again"):
        page = browser.open("file://" + file)
        page.frame()
        took = page.evaluate("performance.now()") / 1000
        check(took < 2, f"1,024 ranks, 10 steps, {os.path.getsize(file) / 1e6:.1f} MB, {what}: "
              f"{took:.2f} s until all is drawn")
    check("of 1024 ranks" in page.evaluate("document.querySelector('#timeline').textContent"),
          "1,024 ranks are there")
    frame = page.evaluate("(() => { const t = performance.now(); for (let i = 0; i < 20; i++) "
                          "document.querySelector('.timescroll').dispatchEvent(new Event('scroll'));"
                          "return (performance.now() - t) / 20; })()")
    check(frame < 50, f"1,024 ranks: the timeline is drawn in {frame:.1f} ms")
    check_quiet(page, file, "1,024 ranks")
    if pictures:
        page.screenshot(pictures + "/many.png")


def check_hostile(browser, file):
    page = browser.open("file://" + file)
    page.frame()
    check(page.evaluate("document.images.length") == 0, "hostile names are text")
    check(page.evaluate("document.title") != "run", "no script of a folder runs")
    check("energy.json" in page.evaluate("document.querySelector('#summary').textContent"),
          "what is damaged is named")
    check_quiet(page, file, "a hostile folder")


def main():
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("headway")
    asked.add_argument("--long", action="store_true")
    asked.add_argument("--many", metavar="PROGRAM", help="many_ranks: also a run of 1,024 ranks")
    asked.add_argument("--pictures")
    asked = asked.parse_args()
    asked.headway = os.path.abspath(asked.headway)
    folder = tempfile.mkdtemp(prefix="headway-report-")
    try:
        with Browser(seconds=120) as browser:
            train(asked.headway, folder)
            check_one(browser, report(asked.headway, folder, "runs/one"), asked.pictures)
            check_two(browser, report(asked.headway, folder, "runs/one", "runs/two"), asked.pictures)
            check_simulated(browser, asked.headway, folder)
            check_uneven(browser, asked.headway, folder)
            check_numbers(browser, asked.headway, folder)
            check_resumed(browser, asked.headway, folder)
            check_short(browser, asked.headway, folder)
            make_hostile_run(folder + "/runs/<b>hostile")
            check_hostile(browser, report(asked.headway, folder, "runs/<b>hostile"))
            if asked.many:
                shutil.copytree(folder + "/runs/one", folder + "/runs/many")
                shell(folder, os.path.abspath(asked.many), "runs/many", "1024", "10")
                file = report(asked.headway, folder, "runs/many")
                with Browser(seconds=60) as fresh:
                    check_many(fresh, file, asked.pictures)
            if asked.long:
                make_long_run(folder + "/runs/long", 200000)
                check_long(browser, report(asked.headway, folder, "runs/long"))
    except Absent as why:
        print(f"SKIP: {why}")
        sys.exit(77)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(failures)} failed" if failures else "all as it should be")
    sys.exit(1 if failures else 0)


main()
