"""Runs nst-batch on a Ray cluster of two workers on this machine, one of which goes away in the middle.

Example: python tests/batch_ray.py --rows=60; exit code 1 where a row is missing, broken or not reported.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import batch_kill
from ray.cluster_utils import Cluster


def main(arguments: list[str] | None = None) -> int:
    """Run with the command line's arguments; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--size", type=int, default=64)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = batch_kill.make_rows(folder, asked.rows)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        _, second = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
        on_ray = ["--runner=ray", "--workers=4", "--cpus_per_worker=1"]
        command = batch_kill.command(asked.size, *on_ray)
        environment = os.environ | {"RAY_ADDRESS": cluster.address}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(folder.glob("o/*.png"))) < asked.rows // 3:
            time.sleep(0.05)
        before = len(list(folder.glob("o/*.png")))
        cluster.remove_node(second, allow_graceful=False)
        code = process.wait()
        cluster.shutdown()
        for left in folder.glob("o/.nst_jax-*.tmp"):
            left.unlink()
        wrong = batch_kill.check(folder, rows)
    print(f"{len(rows)} rows, a node removed after {before}, exit code {code}: {len(wrong)} wrong")
    print(*wrong, sep="\n")
    return int(bool(wrong) or code != 3)


if __name__ == "__main__":
    sys.exit(main())
