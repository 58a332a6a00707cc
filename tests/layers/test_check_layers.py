"""What scripts/check-layers says of sources that break a promise, and of some that do not."""
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import tempfile
import traceback

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
# The form that test programs print in; .ci/run counts it.
PASSED, FAILED = "[       OK ]", "[  FAILED  ]"


def load():
    """the script as a module, though its name ends in no .py; nothing of it is left behind"""
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader(
        "check_layers", os.path.join(ROOT, "scripts", "check-layers"))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


check = load()


def columns(*lines, path="src/cli/x.c"):
    return list(check.check_columns(path, lines))


def a_line_may_have_a_hundred_columns():
    assert columns("x" * 100) == []
    assert columns("", "x" * 101) == ["src/cli/x.c:2: 101 columns; 100 is the limit"]
    assert columns("\u00b5" * 100) == [] # columns, not bytes


def rows_of_a_table_may_have_a_hundred_and_twenty():
    row = "    { " + "1, " * 36 + "}," # 116
    assert columns(row, row) == []
    assert columns("    { 0 },", row) == []
    assert columns(row) == ["src/cli/x.c:1: 116 columns; 100 is the limit"] # no table
    assert len(columns(row, "    " + row)) == 0
    assert columns(row, "     " + row)[0].endswith("121 columns; 120 is the limit")


def rooms_that_are_wide_yet_are_named():
    for room in check.WIDE:
        assert columns("x" * 101, path=room) == []
        assert os.path.exists(os.path.join(ROOT, room)), room


def rooms_include_from_those_above():
    def includes(line):
        return list(check.check_includes("src/graph/x.c", [line]))
    assert includes('#include "trace/trace.h"') == []
    assert includes('#include "cli/live.h"') == [
        "src/graph/x.c:1: graph may not include from cli (cli/live.h)"]


def a_function_may_have_eighty_lines():
    def lengths(n):
        lines = ["static int f(void)", "{"] + ["    x();"] * (n - 3) + ["}"]
        return list(check.check_lengths("src/cli/x.c", lines, []))
    assert lengths(80) == []
    assert lengths(81) == ["src/cli/x.c:1: f has 81 lines; 80 is the limit"]


def compiled(source, path, function):
    """what the function finds in a build whose only source this is"""
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(os.path.join(folder, os.path.dirname(path)))
        build = os.path.join(folder, "CMakeFiles", "core.dir")
        os.makedirs(os.path.join(build, os.path.dirname(path)))
        with open(os.path.join(folder, path), "w", encoding="utf-8") as f:
            f.write(source)
        here = os.getcwd()
        os.chdir(folder) # where the script looks for sources
        try:
            subprocess.run([os.environ.get("CC", "cc"), "-c", "-fPIC", path, "-o",
                            os.path.join(build, path + ".o")], check=True)
            return list(function(folder))
        finally:
            os.chdir(here)


def state_is_kept_by_base_alone():
    source = """
        static int of_the_file = 1;
        static const char *const names[] = { "a", "b" };
        const char *count(int i)
        {
            static const int sizes[] = { 1, 2 };
            static int calls;
            static __thread int own;
            return names[(of_the_file++ + calls++ + own++ + sizes[i]) % 2];
        }
        """
    faults = compiled(source, "src/cli/x.c", check.check_state)
    named = sorted(fault.split()[1] for fault in faults)
    assert named == ["calls", "of_the_file", "own"], faults
    assert compiled(source, "src/base/x.c", check.check_state) == []
    kept = "int stopped; int main(void) { return stopped; }"
    assert compiled(kept, "src/cli/cmd_serve.c", check.check_state) == []


def base_alone_calls_the_system():
    source = "#include <stdlib.h>\nvoid *x(void) { return malloc(1); }"
    assert compiled(source, "src/data/x.c", check.check_symbols) == [
        "src/data/x.c: calls malloc(); use base/sys.h"]
    assert compiled(source, "src/base/x.c", check.check_symbols) == []


TESTS = (a_line_may_have_a_hundred_columns, rows_of_a_table_may_have_a_hundred_and_twenty,
         rooms_that_are_wide_yet_are_named, rooms_include_from_those_above,
         a_function_may_have_eighty_lines, state_is_kept_by_base_alone,
         base_alone_calls_the_system)


def main():
    failed = 0
    for test in TESTS:
        print(f"[ RUN      ] {test.__name__}")
        try:
            test()
            print(f"{PASSED} {test.__name__}")
        except AssertionError:
            traceback.print_exc(file=sys.stdout)
            print(f"{FAILED} {test.__name__}")
            failed += 1
    sys.exit(1 if failed else 0)


main()
