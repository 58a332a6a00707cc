#!/usr/bin/env python3
"""test_serve.py HEADWAY [--long]: `headway serve` under attack, and live in a browser.

Connections that dribble, heads without end, requests within requests, other names and other sites;
then a page that follows a run which goes on. Without the HTTP module it says so and ends with 77;
without Chromium only the part with the browser is left out. --long adds 500 connections that dribble."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from browser import Absent, Browser  # noqa: E402

failures = []


def check(holds, what):
    print(("  ok    " if holds else "  FAIL  ") + what)
    if not holds:
        failures.append(what)


def append(folder, first, last):
    with open(folder + "/metrics.jsonl", "a", encoding="utf-8") as f:
        for step in range(first, last):
            f.write(json.dumps({"event": "step", "t": time.time(), "step": step,
                                "loss": 8 / (step + 1), "tokens_per_s": 100}) + "\n")


class Server:
    def __init__(self, headway, folder):
        self.process = subprocess.Popen([headway, "serve", folder], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.match(r"http://127\.0\.0\.1:(\d+)/([0-9a-f]{32})/$", line)
        if not found:
            said = self.process.communicate()[1]
            if "libmicrohttpd" in said:
                print("SKIP: this build has no module for HTTP (libmicrohttpd-dev)")
                sys.exit(77)
            sys.exit(f"it said {line!r} {said!r}")
        self.address, self.port, self.token = line.strip(), int(found[1]), found[2]

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def ask(self, text):
        """The status of the answer, 0 where the connection was just closed."""
        with self.connect() as s:
            try:
                s.sendall(text)
                answer = b""
                while True:
                    part = s.recv(65536)
                    if not part:
                        break
                    answer += part
                    if b"\r\n\r\n" in answer and not answer.startswith(b"HTTP/1.1 200"):
                        break
            except (ConnectionResetError, BrokenPipeError, TimeoutError):
                answer = answer if answer else b""
        found = re.match(rb"HTTP/1\.[01] (\d+)", answer)
        return int(found[1]) if found else 0

    def get(self, path="", host=None, more=""):
        host = host or f"127.0.0.1:{self.port}"
        return self.ask(f"GET /{self.token}/{path} HTTP/1.1\r\nHost: {host}\r\n{more}"
                        "Connection: close\r\n\r\n".encode())

    def resident(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1])

    def close(self):
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def check_requests(server):
    check(server.get() == 200, "the page")
    check(server.get("data") == 200, "its data")
    check(server.get(host="evil.example") == 403, "another name (DNS rebinding)")
    check(server.get(more="Origin: http://evil.example\r\n") == 403, "another site's page")
    check(server.get("..%2f..%2fetc%2fpasswd") == 404, "a way out of the folder")
    check(server.get("%00") == 400 and server.get("%00data") == 400 and
          server.get("data%00") == 400 and server.get("\0") == 400 and
          server.get("data\0") == 400 and server.get("\0?seen=1") == 400, "a NUL in the path")
    check(server.get("?seen=\0") == 400 and server.get("data?\0seen=1") == 400,
          "a NUL behind the path")
    check(all(server.get(text) == 400 for text in ("\1", "\x1b[31m", "%1b", "%0a", "%7F", "\x7f",
                                                   "data?\x02")), "other control characters")
    check(server.get("%2") == 404 and server.get("%zz") == 404 and server.get("%20") == 404 and
          server.get("\u00e4") == 404, "other characters are no control characters")
    check(server.get("data?seen=1&x=2") == 200 and server.get("?") == 200, "what follows a ? is free")
    check(server.get(more=f"Host: 127.0.0.1:{server.port}\r\n") == 400, "two names")
    check(server.get(more="host: evil.example\r\n") == 400, "two different names")
    check(server.get(more=2 * f"Origin: http://127.0.0.1:{server.port}\r\n") == 400, "two origins")
    check(server.get("data?seen=%00") == 200, "escapes behind the path are no matter")
    check(server.ask(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % server.port)
          == 404, "no token")
    check(server.get(more="X: " + "a" * 9000 + "\r\n") in (413, 414, 431, 0), "a head of 9 kB")
    check(server.get(more="".join(f"X{i}: a\r\n" for i in range(80))) == 431, "80 fields")
    within = f"GET /{server.token}/ HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n"
    both = ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + within)
    check(server.ask((f"POST /{server.token}/ HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n" + both)
                     .encode()) in (400, 405, 413, 0), "a request within a request")
    check(server.ask(b"\x16\x03\x01\x02\x00\x01\x00" + b"\0" * 60) in (400, 0), "bytes of no request")
    check(server.ask(b"GET " * 4000) in (400, 414, 431, 0), "a line without an end")


def check_patience(server):
    """Five hundred that say little, slowly; somebody who asks properly is answered soon."""
    before, held = server.resident(), []
    for _ in range(500):
        try:
            s = socket.create_connection(("127.0.0.1", server.port), timeout=2)
            s.sendall(b"GET / HTTP/1.1\r\nHost: ")
            held.append(s)
        except OSError:
            break
    begin, closed = time.monotonic(), 0
    while time.monotonic() - begin < 9:
        time.sleep(1)
        for s in held:
            try:
                s.sendall(b"a")
            except OSError:
                closed += 1
        if server_answers(server):
            break
    took = time.monotonic() - begin
    check(took < 9, f"{len(held)} connections that dribble are shown out: answered after {took:.1f} s")
    for s in held:
        s.close()
    time.sleep(0.3)
    check(server.get() == 200, "and all is well again")
    grown = server.resident() - before
    check(grown < 8192, f"memory: {grown} kB more")


def server_answers(server):
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=1) as s:
            s.settimeout(1)
            s.sendall(f"GET /{server.token}/ HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
                      "Connection: close\r\n\r\n".encode())
            return s.recv(100).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def check_live(server, folder):
    with Browser(seconds=60) as browser:
        page = browser.open(server.address)
        page.wait("document.querySelectorAll('#curves svg.plot path').length > 0")
        last = "document.querySelector('#summary .tile dd').textContent"
        check(page.evaluate(last) == "9", "the page shows the run as it is")
        page.evaluate("document.querySelector('#curves svg.plot').focus()")
        page.key("+")
        near = page.evaluate("live.runs.curves.from !== null")
        append(folder, 10, 30)
        page.wait(last + " === '29'", seconds=10)
        check(True, "and follows it")
        check(near and page.evaluate("live.runs.curves.from !== null && "
                                     "live.runs.curves.charts[0].lines[0].n === 29"),
              "without losing what somebody looks at")
        strange = [r for r in page.requests if not r.startswith(server.address)]
        check(strange == [] and page.complaints == [],
              f"nothing else is asked for {strange}, nothing on the console {page.complaints}")


def main():
    headway = os.path.abspath(sys.argv[1])
    folder = tempfile.mkdtemp(prefix="headway-serve-")
    append(folder, 1, 10)
    server = Server(headway, folder)
    try:
        check_requests(server)
        if "--long" in sys.argv:
            check_patience(server)
        try:
            check_live(server, folder)
        except Absent as why:
            print(f"  skip  the page in a browser: {why}")
    finally:
        code = server.close()
        shutil.rmtree(folder, ignore_errors=True)
    check(code == 0, f"Ctrl-C ends it: {code}")
    print(f"{len(failures)} failed" if failures else "all as it should be")
    sys.exit(1 if failures else 0)


main()
