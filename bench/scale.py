"""How time and memory of Kiln grow: `bench/run --scale`.

Each family builds the same thing in growing sizes, on a daemon of its own. A point is the time of one command (the median of `--repeat`, and of three
at least where one takes less than two seconds), the highest resident size of the daemon while it ran, and that of the client. The exponent
beside a point is the slope from the point before it: 1.0 is linear growth, and less is better.
"""

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MIB = 1 << 20
# What takes less time than this varies by a fifth from one sample to the next.
SHORT_SECONDS = 2
SHORT_SAMPLES = 3


def measured(argv, env):
    """Seconds, and the highest resident size of the client in KiB."""
    begun = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([str(a) for a in argv], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            out.seek(0)
            sys.exit(f"bench: {' '.join(map(str, argv))} failed:\n{out.read().decode(errors='replace')[-3000:]}")
    return time.monotonic() - begun, usage.ru_maxrss


def reset_peak(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM:"))


# ---------------------------------------------------------------- families
# Each is (unit, sizes, prepare): prepare(place, size) returns a function that runs one sample and gives (seconds, client KiB).

class Place:
    """Where a family works: a tool of its own, a folder of its own."""

    def __init__(self, tool, data):
        self.tool, self.data = tool, data
        self.folder = Path(tempfile.mkdtemp(dir=data.work))
        self.mark = 0

    def fresh(self):
        self.mark += 1
        return self.mark

    def context(self, dockerfile, name="c"):
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "Dockerfile").write_text(dockerfile)
        return folder

    def build(self, folder, *flags):
        return measured(self.tool.build(folder, *flags), self.tool.env)


def many_files(place, files):
    """A context of so many files of 100 bytes, 100 to a folder."""
    folder = place.context("FROM scratch\nCOPY . /data\n", f"files{files}")
    for number in range(files):
        if number % 100 == 0:
            inner = folder / f"d{number // 10000}" / f"e{number // 100 % 100}"
            inner.mkdir(parents=True)
        (inner / f"f{number}").write_bytes(b"%-100d" % number)
    return folder


def contexts(place, files):
    """A context of so many files, copied with an empty cache."""
    folder = many_files(place, files)

    def sample():
        place.tool.empty()
        return place.build(folder)
    return sample, lambda: shutil.rmtree(folder)


def copies(place, files):
    """The same files copied by `cp -r`: what the file system alone makes of it. The daemon has nothing to do."""
    folder, out = many_files(place, files), place.folder / "copied"

    def sample():
        shutil.rmtree(out, ignore_errors=True)
        return measured(["cp", "-r", folder, out], place.tool.env)
    return sample, lambda: (shutil.rmtree(folder), shutil.rmtree(out))


def layers(place, mib):
    """A layer with one file of so many MiB, every other one random, made and written as a gzip OCI archive."""
    folder = place.context("FROM scratch\nCOPY big /big\n", f"layer{mib}")
    with open(folder / "big", "wb") as out:
        for number in range(mib):
            out.write(os.urandom(MIB) if number % 2 else b"0123456789abcdef" * (MIB // 16))

    def sample():
        place.tool.empty()
        return place.build(folder, f"--output=type=oci,dest={place.folder}/out.tar")
    return sample, lambda: (shutil.rmtree(folder), (place.folder / "out.tar").unlink(missing_ok=True))


def chains(place, steps):
    """So many steps one after the other."""
    def sample():
        mark = place.fresh()
        place.build(place.context(f"FROM {place.data.base}\nRUN true\n"))
        lines = "".join(f"RUN true {steps} {mark} {step}\n" for step in range(steps))
        return place.build(place.context(f"FROM {place.data.base}\n{lines}"))
    return sample, lambda: None


def tree(place, vertices, mark):
    """A graph of about so many file operations: leaves, and stages that copy from ten of the row below. Each copies one file, so that a
    larger graph has more steps, and not larger ones."""
    lines, row, count = [], [], 0
    for number in range(max(1, vertices * 9 // 20)):
        lines.append(f"FROM scratch AS l{number}\nCOPY f /l{number}-{mark}\n")
        row.append((f"l{number}", f"/l{number}-{mark}"))
    while len(row) > 1:
        above = []
        for first in range(0, len(row), 10):
            name = f"n{count}"
            count += 1
            lines.append(f"FROM scratch AS {name}\n")
            lines += [f"COPY --from={stage} {path} /x/{name}/{at}\n" for at, (stage, path) in enumerate(row[first:first + 10])]
            above.append((name, f"/x/{name}/0"))
        row = above
    folder = place.context("".join(lines))
    (folder / "f").write_text("one")
    return folder


def graphs(place, vertices):
    """A graph of so many file operations, none cached."""
    def sample():
        return place.build(tree(place, vertices, place.fresh()))
    return sample, lambda: None


def cached(place, vertices):
    """The same graph again, all of it cached."""
    def sample():
        folder = tree(place, vertices, place.fresh())
        place.build(folder)
        return place.build(folder)
    return sample, lambda: None


def at_once(place, builds):
    """So many builds at once, each of three steps of its own and a context of 100 files."""
    def sample():
        mark, env = place.fresh(), place.tool.env
        folders = []
        for number in range(builds):
            folder = place.context(f"FROM {place.data.base}\nCOPY . /c\nRUN true {mark} {number}\nRUN echo {mark} > /a\nRUN cat /a\n", f"b{number}")
            for file in range(100):
                (folder / f"f{file}").write_text(f"{mark} {number} {file}")
            folders.append(folder)
        begun, processes = time.monotonic(), []
        for folder in folders:
            argv = [str(a) for a in place.tool.build(folder)]
            processes.append(subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        client = 0
        for process in processes:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            client = max(client, usage.ru_maxrss)
            if process.returncode:
                sys.exit("bench: one of the builds at once failed")
        return time.monotonic() - begun, client
    return sample, lambda: None


def records(place, count):
    """A cached build of 13 vertices beside so many other records."""
    made = getattr(place, "records", 0)
    while made < count:
        step = min(2000, count - made)
        place.build(tree(place, step, f"r{place.fresh()}"))
        made += step
    place.records = made

    def sample():
        folder = tree(place, 13, "same")
        place.build(folder)
        return place.build(folder)
    return sample, lambda: None


FAMILIES = {
    "contexts": ("files", (1_000, 10_000, 100_000, 1_000_000), contexts),
    "copies": ("files", (1_000, 10_000, 100_000, 1_000_000), copies),
    "layers": ("MiB", (64, 256, 1024, 8192), layers),
    "chains": ("steps", (10, 30, 100, 300, 1000), chains),
    "graphs": ("vertices", (10, 100, 1000, 10_000), graphs),
    "cached": ("vertices", (10, 100, 1000, 10_000), cached),
    "at-once": ("builds", (1, 4, 16, 64), at_once),
    "records": ("records", (10, 1000, 10_000, 100_000), records),
}


def run(make_tool, data, names, limit, repeat, out):
    """Measures the families; `limit` says how far each goes, as a share of its largest size."""
    result = {"date": time.strftime("%Y-%m-%d"), "cpus": os.cpu_count(), "repeat": repeat, "families": {}}
    print(f"{'family':<10}{'size':>10} {'unit':<10}{'seconds':>9}{'exponent':>10}{'daemon':>11}{'client':>10}", flush=True)
    for name in names:
        unit, sizes, prepare = FAMILIES[name]
        tool = make_tool(name)
        place = Place(tool, data)
        points = []
        try:
            # What every daemon pays once is no part of the curve.
            place.build(place.context(f"FROM {data.base}\nRUN true\n"))
            for size in sizes:
                if size > sizes[-1] * limit and len(points) > 1:
                    break
                sample, clean = prepare(place, size)
                reset_peak(tool.process.pid)
                samples = [sample() for _ in range(repeat)]
                while len(samples) < SHORT_SAMPLES and samples[-1][0] < SHORT_SECONDS:
                    samples.append(sample())
                seconds = statistics.median(taken for taken, _ in samples)
                point = {"size": size, "seconds": seconds, "daemon_kib": peak(tool.process.pid), "client_kib": max(kib for _, kib in samples)}
                slope = ""
                if points:
                    before = points[-1]
                    slope = f"{math.log(seconds / before['seconds']) / math.log(size / before['size']):.2f}"
                points.append(point)
                print(f"{name:<10}{size:>10} {unit:<10}{seconds:>9.3f}{slope:>10}{point['daemon_kib'] / 1024:>8.0f}MiB"
                      f"{point['client_kib'] / 1024:>7.0f}MiB", flush=True)
                clean()
        finally:
            tool.stop()
        result["families"][name] = {"unit": unit, "points": points}
        shutil.rmtree(place.folder)
        subprocess.run(["rm", "-rf", str(tool.work)])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    return result
