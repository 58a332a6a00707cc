"""The rows of bench/LAYOUTS.md on a computed clock are those that the program gives now.

    python3 weak_table.py BENCH_WEAK LAYOUTS.md
"""
import re
import subprocess
import sys

OTHER = ["--flops", "2e14", "--memory", "2e12", "--link", "5e10", "--latency", "1e-5"]


def rows_of(lines):
    """By axis and ranks: the row's numbers."""
    rows = {}
    for line in lines:
        m = re.match(r"\| (\S.*?)\s+\|\s*(\d+) \|(.*)", line)
        if m:
            rows[m[1], int(m[2])] = [float(x) for x in re.findall(r"\d+\.\d+", m[3])]
    return rows


def alike(x, y):
    """Of numbers with three digits or one behind the point: the last one may be rounded otherwise."""
    return len(x) == len(y) and all(abs(a - b) <= (0.0011 if i < 3 else 0.11)
                                    for i, (a, b) in enumerate(zip(x, y)))


def main():
    program, page = sys.argv[1:]
    text = open(page).read().split("# Scaling on a computed clock")[1].split("\n# ")[0]
    tables = re.split(r"\n(?=GPT-2 124M)", text)[1:]
    bad = 0
    for args, table in zip(([], OTHER), tables, strict=True):
        out = subprocess.run([program, *args], capture_output=True, text=True, check=True).stdout
        now, shown = rows_of(out.split("\n")), rows_of(table.split("\n"))
        if out.split("\n")[0] != table.split("\n")[0] or len(shown) < 10:
            print(f"{page}: no table of '{out.split(chr(10))[0]}'")
            bad += 1
        for key, numbers in shown.items():
            if not alike(numbers, now.get(key, [])):
                print(f"{page}: {key[0]} at {key[1]} ranks is {numbers}, the program says {now.get(key)}")
                bad += 1
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
