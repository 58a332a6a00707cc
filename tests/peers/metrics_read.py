#!/usr/bin/env python3
"""Has Prometheus' own reader check what a run says to monitoring.

    metrics_read.py promtool FILE.prom           `promtool check metrics` on log.openmetrics' file
    metrics_read.py live HEADWAY RUN             the same on /metrics of `headway serve`
    metrics_read.py openmetrics FILE             the OpenMetrics parser of prometheus_client

promtool is taken from PATH. Ends with 1 when a reader refuses or finds fault, or finds other names in
what is live than in the format.
"""
import shutil
import subprocess
import sys
import urllib.request

import peer

LEAST = {"headway_steps_total", "headway_trained_tokens_total", "headway_loss_nats",
         "headway_step_seconds", "headway_updated_timestamp_seconds"}


def check(text, what):
    promtool = shutil.which("promtool")
    if not promtool:
        peer.skip("promtool", "apt-get install prometheus (Debian and Ubuntu), and have it on PATH")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True,
                          check=False)
    said = (done.stdout + done.stderr).strip()
    if done.returncode or said:
        sys.exit(f"promtool on {what} ends with {done.returncode}:\n{said}")
    names = {line.split("{")[0] for line in text.splitlines() if line[0] != "#"}
    if not LEAST <= names:
        sys.exit(f"{what} lacks {sorted(LEAST - names)}")
    version = subprocess.run([promtool, "--version"], capture_output=True, text=True, check=False)
    print(f"{(version.stdout + version.stderr).split(' (')[0]}: no fault in {what}, "
          f"{len(names)} names")


def live(headway, run):
    server = subprocess.Popen([headway, "serve", run], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
    try:
        address = server.stdout.readline().strip()
        if not address.startswith("http://127.0.0.1:"):
            peer.skip("headway's module for HTTP", "libmicrohttpd-dev, and build again")
        with urllib.request.urlopen(address + "metrics", timeout=10) as answer:
            kind, text = answer.headers["Content-Type"], answer.read().decode()
        if "version=0.0.4" not in kind:
            sys.exit(f"the type is {kind}")
        check(text, "/metrics of headway serve")
    finally:
        server.terminate()
        server.wait()


def openmetrics(path):
    parser = peer.need("prometheus_client.openmetrics.parser", "prometheus_client")
    with open(path, encoding="utf-8") as f:
        families = list(parser.text_string_to_metric_families(f.read()))
    samples = {s.name: s for family in families for s in family.samples}
    if not LEAST <= set(samples):
        sys.exit(f"it lacks {sorted(LEAST - set(samples))}")
    kinds = {family.name: family.type for family in families}
    if kinds.get("headway_steps") != "counter" or kinds.get("headway_loss_nats") != "gauge":
        sys.exit(f"kinds: {kinds}")
    print(f"prometheus_client {peer.versions('prometheus_client')['prometheus_client']}: "
          f"{len(families)} families, step {samples['headway_steps_total'].value:.0f}")


def main():
    words = sys.argv[1:]
    if len(words) == 2 and words[0] == "promtool":
        with open(words[1], encoding="utf-8") as f:
            check(f.read(), words[1].rsplit("/", 1)[-1])
    elif len(words) == 3 and words[0] == "live":
        live(words[1], words[2])
    elif len(words) == 2 and words[0] == "openmetrics":
        openmetrics(words[1])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
