"""What every comparison with another program needs: how to find it, and how to skip.

A peer that is absent is no failure: the script prints one line that says what is missing and how
to get it, and leaves with 77, the exit code that CTest and Automake read as "skipped".
"""
import importlib
import importlib.metadata
import sys

SKIPPED = 77


def skip(what, how):
    """Leaves the program: `what` is missing, and `how` tells the way to get it."""
    print(f"SKIP: {what} is missing; get it with: {how}")
    sys.exit(SKIPPED)


def need(module, package=None):
    """Imports a module of a peer, or skips. `package` is its name for pip where that differs."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = package or module.split(".")[0]
        skip(f"the Python module {module} ({error})", f"pip install {package}")


def versions(*packages):
    """The versions of installed packages, and of Python, for the record beside a number."""
    found = {name: importlib.metadata.version(name) for name in packages}
    found["python"] = sys.version.split()[0]
    return found


def peak_rss_bytes(pid="self"):
    """The most memory that a process ever had resident, as the operating system counts it."""
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no line VmHWM")
