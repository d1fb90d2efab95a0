"""Has many clients watch the studio and click, while it makes pictures; measures answers and memory. Or fuzzes it.

Example: python tests/studio_load.py --clients=50 --seconds=120; exit code 1 where an answer is an error.
Example: python tests/studio_load.py --hostile=5000; exit code 1 where one is an error of the studio's own.
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

from tests.studio_test import Server, hostile


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
                ("GET", "/static/app.js", None),
            ]
        )
        began = time.monotonic()
        answer = server.ask(method, path, body)
        took.append(time.monotonic() - began)
        counts["errors"] += answer.status >= 400
        time.sleep(chance.uniform(0.2, 2))


def fuzz(count: int) -> int:
    """Send hostile requests, and print how they were answered."""
    chance, counts = random.Random(count), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "studio")
        job = server.make()
        server.ended(job)
        before = sorted(path.name for path in server.folder.iterdir())
        for _ in range(count):
            method, path, body = hostile(chance, job)
            if (method, path) != ("DELETE", f"/api/jobs/{job}"):
                counts[server.ask(method, path, body).status] += 1
        same = before == sorted(path.name for path in server.folder.iterdir())
        alone = [path.name for path in Path(folder).iterdir()] == ["studio"]
        server.close()
    print(f"answers by status: {dict(sorted(counts.items()))}; no other file: {same and alone}")
    return int(any(status >= 500 for status in counts) or not (same and alone))


def main() -> int:
    """Run the clients, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hostile", type=int, default=0)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    if options.hostile:
        return fuzz(options.hostile)
    took: list[float] = []
    counts: collections.Counter = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "studio")
        jobs = [server.make(iterations=5000), server.make()]
        server.until(jobs[0], lambda found: found["step"] > 0)
        first, until = resident(server.process.pid), time.monotonic() + options.seconds
        threads = [
            threading.Thread(target=watch, args=(server, until, counts)) for _ in range(options.clients)
        ]
        threads += [
            threading.Thread(target=click, args=(server, until, jobs, took, counts))
            for _ in range(options.clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        last = resident(server.process.pid)
        server.close()
    times = statistics.quantiles(took, n=100)
    print(
        f"{options.clients} clients, {len(took)} answers, {counts['events']} events, {counts['errors']} errors"
    )
    print(f"median {1000 * times[49]:.0f} ms, 99 of 100 within {1000 * times[98]:.0f} ms")
    print(f"memory of the server {first:.0f} MiB at first, {last:.0f} MiB at last")
    return int(counts["errors"] > 0)


if __name__ == "__main__":
    sys.exit(main())
