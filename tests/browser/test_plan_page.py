#!/usr/bin/env python3
"""test_plan_page.py HEADWAY: the page of `headway plan search --html` in a browser.

Without Chromium it says so and ends with 77."""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from browser import Absent, Browser  # noqa: E402

failures = []


def check(holds, what):
    print(("  ok    " if holds else "  FAIL  ") + what)
    if not holds:
        failures.append(what)


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "plan.html")
        subprocess.run([sys.argv[1], "plan", "search", "--model", "llama3-8b", "--gpus", "64", "--layout", "pp=4",
                        "--tokens", "1T", "--front", "--price", "2USD/h", "--html", path],
                       check=True, stdout=subprocess.DEVNULL)
        with Browser() as browser:
            for scheme, width in (("light", 1280), ("dark", 420)):
                page = browser.open("file://" + path, width=width, scheme=scheme)
                page.wait("document.documentElement.dataset.ready === 'yes'")
                check(not page.complaints, f"{scheme}: no complaints {page.complaints}")
                check([r for r in page.requests if not r.startswith(("file:", "data:"))] == [], f"{scheme}: asks nothing of any network")
                bars = page.evaluate("document.querySelectorAll('#timeline rect').length")
                check(bars > 100, f"{scheme}: {bars} bars of a timeline")
                check(page.evaluate("[...document.querySelectorAll('#timeline rect')].every((r) => r.getAttribute('width') > 0 && r.getAttribute('x') >= 0)"), f"{scheme}: each with a place")
                check(page.evaluate("document.querySelectorAll('#waterfall rect').length") >= 5, f"{scheme}: a waterfall")
                check(page.evaluate("document.querySelectorAll('#front circle').length") >= 2, f"{scheme}: a front")
                check(page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{scheme}: nothing runs out of {width} columns")
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Absent as absent:
        print(f"SKIP: {absent}")
        sys.exit(77)
