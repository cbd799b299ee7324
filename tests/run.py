#!/usr/bin/env python3
"""run.py BUILD [PATTERN]: run the tests built in BUILD, and the scripts among the tests; with a PATTERN (as of file names) only
those whose path under tests/ without ending matches it, such as "python/*".  With KIND=long instead those scripts that take
minutes, whose names end in _long.

A test that exits with 77 is skipped.  Exits 1 if any failed or is not built, or if none ran.
JOBS tests run at a time, one more than there are cores unless it is set: many of them mostly wait.
A test has LIMIT_S seconds (1800, many times what the slowest takes); one that has not ended then fails, and what it was running
is printed.
"""

import concurrent.futures
import fnmatch
import glob
import os
import signal
import subprocess
import sys
import tempfile
import time

SRC = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
KIND = os.environ.get("KIND", "test")
LIMIT = float(os.environ.get("LIMIT_S", 1800))
SKIPPED, LATE = 77, 124
running = set()  # process groups, as numbers: for whoever ends this program


def processes(pid):
    """It and the processes below it, a line each with its age; from /proc, as ps is not everywhere."""
    parents = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                parents[int(path.split("/")[2])] = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            pass  # it has ended
    found = [pid]
    for one in found:  # grows
        found += [child for child, parent in parents.items() if parent == one]
    for one in found:
        try:
            with open(f"/proc/{one}/cmdline", encoding="utf-8", errors="replace") as file:
                words = file.read(400).replace("\0", " ").strip()
            yield f"{time.time() - os.stat(f'/proc/{one}').st_mtime:.0f} s: {words}"
        except OSError:
            pass


def signal_group(group, number):
    """Whether there was one."""
    try:
        os.killpg(group, number)
        return True
    except ProcessLookupError:
        return False


def end_late(process, output):
    """Says what it was running, then ends it: kindly, then not."""
    output.write("\n".join([f"not ended after {LIMIT:g} s; running now:", *processes(process.pid)]) + "\n")
    output.flush()
    for number in [signal.SIGTERM] + 20 * [0] + [signal.SIGKILL]:
        process.poll()  # or it would stay a zombie, and its group with it
        if not signal_group(process.pid, number):
            break
        time.sleep(0 if number else 0.5)
    process.wait()


def run(name, command, variables):
    """The exit code of one test, after its line is printed."""
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        environment = {**os.environ, **variables}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        running.add(process.pid)
        try:
            code = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            output.seek(0, os.SEEK_END)
            end_late(process, output)
            code = LATE
        running.discard(process.pid)
        output.seek(0)
        lines = output.read().splitlines()
    code = code if code >= 0 else 128 - code
    took = f"{name} {time.monotonic() - begin:.1f} s"
    said = {0: f"ok {took}", SKIPPED: f"skipped {took}: {lines[-1] if lines else ''}"}
    failed = "\n    ".join([f"FAILED {took} (exit code {code})", *lines])
    print(said.get(code, failed), flush=True)
    return code


def tests(build, wanted):
    """(name, command, variables), the longest first; what starts ranks gives each one thread, as there may be as many tests and
    ranks as cores."""
    one = {"OMP_NUM_THREADS": "1"}
    python = os.path.join(os.environ["BREGMAN_VENV"], "bin", "python")
    python = python if os.access(python, os.X_OK) else "python3"
    for path in wanted(SRC, f"*_{KIND}.sh"):
        yield path, [f"{SRC}/tests/{path}"], one
    for path in wanted(SRC, f"*_{KIND}.py"):
        yield path, [python, f"{SRC}/tests/{path}"], one
    if KIND != "test":
        return
    for path in wanted(build, "*_mpitest"):
        for ranks in range(1, 5):
            yield f"{path}({ranks})", [f"{SRC}/scripts/mpi", str(ranks), f"{build}/tests/{path}"], one
    for path in wanted(build, "*_test"):
        yield path, [f"{build}/tests/{path}"], {}


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    build = os.path.realpath(sys.argv[1])
    pattern = sys.argv[2] if len(sys.argv) == 3 else "*"

    def wanted(root, names):
        found = sorted(glob.glob(f"{root}/tests/*/{names}"))
        paths = [os.path.relpath(path, f"{root}/tests") for path in found if os.path.isfile(path)]
        return [path for path in paths if fnmatch.fnmatchcase(os.path.splitext(path)[0], pattern)]

    def ended(number, frame):
        for group in list(running):
            signal_group(group, signal.SIGTERM)
        os._exit(128 + number)

    signal.signal(signal.SIGINT, ended)
    signal.signal(signal.SIGTERM, ended)
    os.environ.setdefault("BREGMAN_VENV", f"{build}/venv")
    os.environ.update(SRC=SRC, BUILD=build, BREGMAN_SCHEMA=f"{build}/share/schema.json")
    jobs = int(os.environ.get("JOBS", len(os.sched_getaffinity(0)) + 1))
    with tempfile.TemporaryDirectory() as shared, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        os.environ["BREGMAN_HASH_CACHE"] = f"{shared}/hashes"
        codes = list(pool.map(lambda test: run(*test), tests(build, wanted)))
    built = wanted(build, "*test")
    unbuilt = [path[:-2] for path in wanted(SRC, "*test.c") if path[:-2] not in built]
    if unbuilt:
        print("not built, make all tests builds them:", *unbuilt)
    skipped, passed = codes.count(SKIPPED), codes.count(0)
    failed = len(codes) - skipped - passed
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed or unbuilt or not passed else 0)


if __name__ == "__main__":
    main()
