"""Runs nst-batch against an object store on this machine that answers "slow down" now and then.

Needs moto[server] and s3fs. Example: python tests/batch_s3.py; exit code 1 where something is not as it should be.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import batch_kill
import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "pictures"
BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Store:
    """An S3 server that refuses requests by chance, and all that name a certain text."""

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.chance, self.never, self.asked, self.refused = 0.0, "", 0, 0
        self.random = random.Random(0)

    def __call__(self, environment, start):
        self.asked += 1
        if self.random.random() < self.chance or self.never and self.never in environment["PATH_INFO"]:
            self.refused += 1
            environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
            start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(BUSY)))])
            return [BUSY]
        return self.app(environment, start)


class Quiet(WSGIRequestHandler):
    """Prints nothing."""

    def log(self, *message) -> None:
        pass


@contextlib.contextmanager
def served(store: Store) -> Iterator[str]:
    """Yield the address of a store, in a thread."""
    server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class Check:
    """Runs nst-batch, and notes what is not as it should be."""

    def __init__(self, folder: Path, address: str, store: Store, size: int):
        self.folder, self.store, self.size, self.wrong = folder, store, size, list[str]()
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        self.environment = keys | {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ |= self.environment
        self.client = boto3.client("s3")

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=name, Body=data)

    def keys(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return [one["Key"] for one in found if not one["Key"].startswith("in/")]

    def run(self, what: str, code: int, made: list[str], *more: str, bucket: str = BUCKET) -> list[str]:
        """Expect an exit code and the rows that are made; return the lines of errors."""
        at, out = f"s3://{BUCKET}", f"s3://{bucket}/out"
        places = [f"--manifest={at}/in/rows.jsonl", f"--output={out}/{{id}}.png", f"--style={at}/in/1.png"]
        command = [sys.executable, str(batch_kill.ROOT / "bin/nst-batch"), *places, "--quiet"]
        command += [f"--size={self.size}", *batch_kill.QUICK, *more]
        began, asked, refused = time.monotonic(), self.store.asked, self.store.refused
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        told = sorted(done.stdout.splitlines())
        errors = done.stderr.splitlines()
        good = (done.returncode, told) == (code, [f"{out}/{name}.png" for name in made])
        if not good or len(errors) > 2:
            self.wrong.append(f"{what}: exit code {done.returncode}, {told}\n{done.stderr[-3000:]}")
        counts = f"{self.store.asked - asked} requests, {self.store.refused - refused} refused"
        print(f"{what}: {time.monotonic() - began:.0f} s, {counts}", *errors, sep="\n  ")
        return errors


def main(arguments: list[str] | None = None) -> int:
    """Run with the command line's arguments; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4, choices=range(2, 11))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--chance", type=float, default=0.2)
    asked = parser.parse_args(arguments)
    store = Store()
    with tempfile.TemporaryDirectory() as name, served(store) as address:
        folder = Path(name)
        check = Check(folder, address, store, asked.size)
        check.client.create_bucket(Bucket=BUCKET)
        rows = batch_kill.make_rows(folder, asked.rows)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        there = [row | {"content": f"s3://{BUCKET}/in/{row['content']}"} for row in rows]
        check.put("in/rows.jsonl", "".join(json.dumps(row) + "\n" for row in there).encode())
        for picture in folder.glob("*.png"):
            check.put(f"in/{picture.name}", picture.read_bytes())
        names = [row["id"] for row in rows]

        check.run("first", 0, names)
        subprocess.run(batch_kill.command(asked.size), cwd=folder, stdout=subprocess.DEVNULL, check=True)
        for row in names:
            picture = check.client.get_object(Bucket=BUCKET, Key=f"out/{row}.png")["Body"].read()
            if picture != (folder / "o" / f"{row}.png").read_bytes():
                check.wrong.append(f"{row}: other bytes than of local files")
        check.run("again", 0, [])
        check.put("in/2.png" if asked.rows > 2 else "in/0.png", (folder / "5.png").read_bytes())
        check.run("a picture is another", 0, [names[2 if asked.rows > 2 else 0]])
        store.chance = asked.chance
        check.run("busy now and then", 0, names, "--content_weight=2")
        store.chance, store.never = 0.0, f"out/{names[0]}"
        check.run("busy for one of them", 3, names[1:], "--content_weight=3")
        store.never = ""
        check.run("and no more", 0, names[:1], "--content_weight=3", "--retry_failed")
        keys = check.keys()
        if strange := [key for key in keys if not key.startswith("out/results/part-")][len(names) :]:
            check.wrong.append(f"other files: {strange}")
        store.never = "rows.jsonl"
        check.run("no manifest", 2, [])
        store.never = ""
        check.run("another bucket", 5, [], bucket="misspelt")
        buckets = [one["Name"] for one in check.client.list_buckets()["Buckets"]]
        if buckets != [BUCKET]:
            check.wrong.append(f"buckets: {buckets}")
    print(f"{len(names)} rows: {len(check.wrong)} wrong", *check.wrong, sep="\n")
    return int(bool(check.wrong))


if __name__ == "__main__":
    sys.exit(main())
