"""Has many clients watch the studio and click, while it makes pictures; measures answers and memory. Or fuzzes it.
Or measures how soon its page is there.

Example: python tests/studio_load.py --clients=50 --seconds=120
Example: python tests/studio_load.py --hostile=5000
Example: python tests/studio_load.py --starts=5 (needs playwright and Debian's Chromium)

The exit code is 1 where an answer is an error (of the studio's own, if the requests are hostile), the median takes
MEDIAN_SECONDS, the server's memory grows by GROWTH_MIB, its stderr has a traceback, it writes elsewhere, or the page comes later than it may.
"""

import argparse
import collections
import http.client
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.studio.studio_test import Server, hostile

MEDIAN_SECONDS = 0.2  # of the answers
USABLE_SECONDS, PAINTED_SECONDS = 3.0, 1.0
CHROMIUM = "/usr/bin/chromium"
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
BYTES = """performance.getEntries().filter((one) => ['navigation', 'script', 'link', 'css'].includes(
  one.initiatorType)).reduce((sum, one) => sum + one.decodedBodySize, 0)"""
GROWTH_MIB = 64  # 50 clients' buffers and threads; 5000 answers that each left 16 kB would be more


def resident(process: int) -> float:
    """Return the MiB that a process has in memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def watch(server: Server, until: float, counts: collections.Counter) -> None:
    """Read the stream of events."""
    connection = http.client.HTTPConnection(server.host, timeout=30)
    connection.request("GET", "/api/events", headers=server.headers)
    response = connection.getresponse()
    while time.monotonic() < until:
        line = response.readline()
        counts["events"] += line.startswith(b"event:")
    connection.close()


def click(
    server: Server, until: float, jobs: list[str], took: list[float], counts: collections.Counter
) -> None:
    """Ask for what a page asks for, at a person's pace."""
    chance = random.Random()
    while time.monotonic() < until:
        job = chance.choice(jobs)
        method, path, body = chance.choice(
            [
                ("GET", "/", None),
                ("GET", "/api/about", None),
                ("GET", f"/api/jobs/{job}", None),
                ("GET", "/api/pictures/example:cat/thumb.jpg", None),
                ("POST", f"/api/jobs/{job}/rename", {"title": f"{chance.random()}"}),
                ("POST", f"/api/jobs/{jobs[-1]}/front", None),
                ("POST", f"/api/jobs/{jobs[1]}/{chance.choice(['pause', 'carry_on'])}", None),
                ("GET", f"/api/jobs/{jobs[0]}/live.jpg", None),
                ("GET", "/static/app.js", None),
            ]
        )
        began = time.monotonic()
        answer = server.ask(method, path, body)
        took.append(time.monotonic() - began)
        if answer.status == 400 and path.endswith(("/pause", "/carry_on")):  # another did it before
            counts["late"] += 1
        else:
            counts["errors"] += answer.status >= 400
        time.sleep(chance.uniform(0.2, 2))


class Observed:
    """A studio, and what it leaves besides its answers."""

    def __init__(self, folder: Path):
        self.folder, self.errors = folder, (folder / "stderr").open("w+")
        self.server = Server(folder / "studio", errors=self.errors.fileno())
        self.before: list[str] = []

    def settle(self) -> None:
        """Take note of the files that are there."""
        self.before = sorted(path.name for path in self.server.folder.iterdir())

    def close(self) -> bool:
        """End the studio; return whether it had no traceback and wrote only where it may."""
        same = self.before == sorted(path.name for path in self.server.folder.iterdir())
        alone = sorted(path.name for path in self.folder.iterdir()) == ["stderr", "studio"]
        self.server.close()
        self.errors.seek(0)
        tracebacks = self.errors.read().count("Traceback")
        print(f"tracebacks: {tracebacks}; no other file: {same and alone}")
        return tracebacks == 0 and same and alone


def fuzz(count: int) -> int:
    """Send hostile requests, and print how they were answered."""
    chance, counts = random.Random(count), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        observed = Observed(Path(folder))
        server = observed.server
        job = server.make()
        server.ended(job)
        observed.settle()
        for _ in range(count):
            method, path, body = hostile(chance, job)
            if (method, path) != ("DELETE", f"/api/jobs/{job}"):
                counts[server.ask(method, path, body).status] += 1
        good = observed.close()
    print(f"answers by status: {dict(sorted(counts.items()))}")
    return int(any(status >= 500 for status in counts) or not good)


def load(clients: int, seconds: float) -> int:
    """Have clients watch and click, and print what came of it."""
    took: list[float] = []
    counts: collections.Counter = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        observed = Observed(Path(folder))
        server = observed.server
        jobs = [server.make(iterations=100_000) for _ in range(3)]  # one is made, two wait
        server.until(jobs[0], lambda found: found["picture"] > 0)
        observed.settle()
        first, until = resident(server.process.pid), time.monotonic() + seconds
        threads = [threading.Thread(target=watch, args=(server, until, counts)) for _ in range(clients)]
        threads += [
            threading.Thread(target=click, args=(server, until, jobs, took, counts)) for _ in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        grown = resident(server.process.pid) - first
        good = observed.close()
    times = statistics.quantiles(took, n=100)
    told = f"{len(took)} answers, {counts['events']} events, {counts['errors']} errors"
    print(f"{clients} clients, {told}, {counts['late']} clicks too late")
    print(f"median {1000 * times[49]:.0f} ms, 99 of 100 within {1000 * times[98]:.0f} ms")
    print(f"memory of the server {first:.0f} MiB at first, {first + grown:.0f} MiB at last")
    good = good and not counts["errors"] and len(took) >= clients
    return int(not (good and times[49] < MEDIAN_SECONDS and grown < GROWTH_MIB))


def starts(count: int) -> int:
    """Start the studio and open its page so many times, and print the seconds that it takes."""
    from playwright.sync_api import sync_playwright

    usable, painted, size = [], [], 0
    with sync_playwright() as started, started.chromium.launch(executable_path=CHROMIUM) as browser:
        for _ in range(count):
            with tempfile.TemporaryDirectory() as folder:
                began = time.monotonic()
                server = Server(Path(folder))
                page = browser.new_page()
                page.goto(server.address)
                page.wait_for_selector(".look")
                usable.append(time.monotonic() - began)
                painted.append(page.evaluate(PAINTED) / 1000)
                size = page.evaluate(BYTES)
                page.close()
                server.close()
    print(f"from the command to a page that can be used: {statistics.median(usable):.2f} s, {count} starts")
    print(f"from the address to the first paint: {statistics.median(painted):.2f} s")
    print(f"page without pictures: {size / 1000:.0f} kB")
    return int(max(usable) >= USABLE_SECONDS or max(painted) >= PAINTED_SECONDS)


def main() -> int:
    """Run the clients, the hostile requests or the starts; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hostile", type=int, default=0)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--starts", type=int, default=0)
    options = parser.parse_args()
    if options.starts:
        return starts(options.starts)
    return fuzz(options.hostile) if options.hostile else load(options.clients, options.seconds)


if __name__ == "__main__":
    sys.exit(main())
