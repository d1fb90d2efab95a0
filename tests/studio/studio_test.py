"""The studio over real sockets: who may ask, what is refused, jobs that outlive kills, and the page in a browser."""

import contextlib
import dataclasses
import hashlib
import http.client
import io
import json
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from PIL import Image, ImageColor

pytest.importorskip("starlette", reason="needs the extra studio")
pytest.importorskip("uvicorn", reason="needs the extra studio")

from nst_jax import images
from nst_jax.config import Config
from nst_jax.errors import InputError
from nst_jax.options import fields_of
from nst_jax.reports.report import resolved
from nst_jax.studio import recipes
from nst_jax.studio.recipes import Recipe, command, fewest, make_request, parse_recipe, restore
from nst_jax.studio.store import Store

ROOT = Path(__file__).parents[2]
QUICK = {
    "preset": "gatys",
    "size": 32,
    "iterations": 6,
    "style_layers": ["conv1_1", "conv2_1"],
    "content_layers": ["conv2_1"],
}
BOTH = {"content": "example:cat", "style": ["example:night"]}
SECONDS = 120.0  # that anything here takes at most


def drawn(seed: int, form: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, form)
    return data.getvalue()


def bomb(side: int) -> bytes:
    """Return a small PNG of side x side white pixels, one bit each."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = side.to_bytes(4) * 2 + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress((b"\0" + b"\xff" * ((side + 7) // 8)) * side, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class Answer:
    def __init__(self, response: http.client.HTTPResponse):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)


class Server:
    """A studio in a process of its own, and one who asks it."""

    def __init__(self, folder: Path, *flags: str, inside: Sequence[str] = (), errors: int | None = None):
        fixed = [f"--folder={folder}", "--port=0", "--checkpoint_every=0", "--keep_free=0", "--max_upload=2"]
        self.folder = folder
        self.process = subprocess.Popen(
            [*inside, sys.executable, str(ROOT / "bin/nst-studio"), *fixed, *flags],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert self.process.stdout
        self.address = self.process.stdout.readline().strip()
        self.host = urlsplit(self.address).netloc
        self.headers: dict[str, str] = {}
        entered = self.ask("GET", "/?" + urlsplit(self.address).query)
        self.cookie = entered.headers["set-cookie"]
        self.headers = {"Cookie": self.cookie.split(";")[0]}

    def ask(self, method, path, body=None, headers=None) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=SECONDS)
        with contextlib.closing(connection):
            given = body if isinstance(body, bytes | None) else json.dumps(body)
            connection.request(method, path, given, self.headers if headers is None else headers)
            return Answer(connection.getresponse())

    def make(self, inputs=BOTH, title="", **options) -> str:
        answer = self.ask("POST", "/api/jobs", {"inputs": inputs, "options": QUICK | options, "title": title})
        assert answer.status == 201, answer.body
        return answer.json["id"]

    def upload(self, data: bytes, name: str = "a.png") -> Answer:
        return self.ask("POST", f"/api/pictures?name={quote(name)}", data)

    def until(self, job: str, fits) -> dict:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            found = self.ask("GET", f"/api/jobs/{job}").json
            if fits(found):
                return found
            time.sleep(0.05)
        raise AssertionError(found)

    def ended(self, job: str) -> dict:
        return self.until(job, lambda found: found["status"] not in ("queued", "running"))

    def act(self, job: str, action: str, body=None) -> Answer:
        return self.ask("POST", f"/api/jobs/{job}/{action}", body)

    def result(self, job: str) -> str:
        return hashlib.sha256((self.folder / "jobs" / job / "result.png").read_bytes()).hexdigest()

    def children(self) -> list[int]:
        listed = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return [int(number) for number in Path(listed).read_text().split()]

    def child(self, name: str) -> int:
        return next(n for n in self.children() if name.encode() in Path(f"/proc/{n}/cmdline").read_bytes())

    def worker(self) -> int:
        return self.child("studio.worker")

    def close(self, number=signal.SIGTERM) -> int:
        self.process.send_signal(number)
        with self.process:
            return self.process.wait(SECONDS)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = Server(tmp_path_factory.mktemp("studio") / "folder")
    yield found
    assert found.close() == 128 + signal.SIGTERM


@pytest.fixture
def serve():
    """Return what starts a studio that ends with the test."""
    started = []

    def start(*arguments, **options) -> Server:
        started.append(Server(*arguments, **options))
        return started[-1]

    yield start
    for found in started:
        if found.process.poll() is None:
            found.close(signal.SIGKILL)


@pytest.fixture(scope="module")
def made(server):
    """Return a finished job of the module's server."""
    job = server.make(title="A cat")
    assert server.ended(job)["status"] == "done"
    return job


# Recipes


def test_a_recipe_becomes_a_request_and_back_from_the_settings_of_its_picture(server, made):
    picture = server.ask("GET", f"/api/jobs/{made}/download.png").body
    found = server.upload(picture, "dropped.png").json["recipe"]
    assert found["missing"] == []
    assert found["inputs"] == BOTH
    again = make_request(
        Recipe("", found["inputs"], found["options"]), str, Path("x"), overrides={}, every=1.0, max_pixels=9
    )
    first = make_request(Recipe("", BOTH, QUICK), str, Path("x"), overrides={}, every=1.0, max_pixels=9)
    assert resolved(again.config, 1) == resolved(first.config, 1)


def test_the_fewest_options_keep_a_dial():
    config = Config.from_preset(strength=0.7, size=64)
    assert fewest(json.loads(json.dumps(resolved(config, 1))), 1) == {"strength": 0.7, "size": 64}


def test_files_that_are_gone_are_named():
    config = {"content": "mine.jpg", "style": ["example:night"], "preset": "gatys"}
    text = json.dumps({"config": config, "sha256": {"content": ["a" * 64], "style": ["b" * 64]}})
    found = restore(text, lambda reference: reference == "example:night")
    assert found["missing"] == ["mine.jpg"]
    assert found["inputs"] == {"content": "", "style": ["example:night"]}


def test_the_command_says_all_options_and_is_quoted():
    recipe = Recipe(
        "",
        {"content": "a" * 64, "style": ["example:night", "example:ink"], "style_mask": ["b" * 64, ""]},
        {"size": 64, "crop": True, "style_mix": [1, 2]},
    )
    words = shlex.split(
        command(recipe, lambda reference: {"a": "my cat's.jpg", "b": "m.png"}.get(reference[0], reference))
    )
    assert words == ["nst", "--content=my cat's.jpg", "--style=example:night", "--style=example:ink", "--style_mask=m.png", "--style_mask=", "--size=64", "--crop=true", "--style_mix=1,2", "--output=picture.png", "--bit_depth=16"]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "a JSON object"),
        ({"options": {"sizes": 3}}, "did you mean size?"),
        ({"inputs": {"weights": "x"}}, "one of inputs"),
        ({"inputs": {"content": "/etc/passwd"}}, "uploaded, or example:NAME"),
        ({"inputs": {"style": ["../x"]}}, "uploaded, or example:NAME"),
        ({"inputs": {"style": ["example:night"] * 17}}, "at most 16"),
        ({"options": {"init": "/etc/passwd"}}, "uploaded, or example:NAME"),
        ({"inputs": {"clip": "/etc/passwd"}}, "uploaded, or example:NAME"),
        ({"inputs": {"clip": "a" * 64, "content": "b" * 64}}, "without `content`"),
        ({"title": 3}, "at most 120 letters"),
    ],
)
def test_a_wrong_recipe_is_one_line(data, said):
    with pytest.raises(InputError) as error:
        parse_recipe(data)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_options_of_the_page_name_no_file():
    told = recipes.metadata()
    names = {one["name"] for one in told["options"]}
    assert {field.name for field in fields_of(Config)} <= names
    assert not names & {"content", "style", "weights", "output", "report", "checkpoint", "max_pixels"}
    assert told["presets"].keys() == set(
        next(one for one in told["options"] if one["name"] == "preset")["choices"]
    )


# Who may ask


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Cookie": ""}, 401),
        ({"Cookie": "nst-studio-1=x"}, 401),
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:80"}, 421),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:8300"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_only_the_own_page_with_the_token_is_answered(server, headers, status):
    for path in ("/api/about", "/static/app.js"):
        assert server.ask("GET", path, headers={**server.headers, **headers}).status == status


def test_a_wrong_token_is_refused_and_the_right_one_is_a_strict_cookie(server):
    assert server.ask("GET", "/?token=wrong", headers={}).status == 401
    assert {"HttpOnly", "SameSite=strict"} <= set(server.cookie.split("; "))
    body = server.ask("GET", "/", headers={}).body
    assert urlsplit(server.address).query.removeprefix("token=") not in body.decode()


def test_nobody_else_can_read_the_token(server):
    for path in (server.folder, server.folder / "token"):
        assert path.stat().st_mode & 0o077 == 0


def test_every_answer_has_the_headers_that_keep_the_page_at_home(server):
    for path in ("/", "/static/app.js", "/api/about", "/nowhere"):
        headers = server.ask("GET", path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_the_page_is_small_and_names_no_other_host():
    files = [path for path in (ROOT / "nst_jax/studio/static").iterdir() if path.suffix != ".jpg"]
    assert sum(path.stat().st_size for path in files) < 150_000
    for path in files:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text, path
        assert "https:" not in text, path


# Uploads


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b"<!doctype html><p>no", "a web page"),
        (b"no picture at all", "the format is not known"),
        (drawn(1)[:200], "must be a whole picture file"),
        (drawn(1, "JPEG")[:300], "must be a whole picture file"),
        (bomb(15_000), "pixels"),
        (b"\0" * 2_000_001, "at most 2 MB"),
    ],
)
def test_a_broken_upload_is_one_line_and_leaves_nothing(server, data, said):
    before = set((server.folder / "pictures").iterdir())
    answer = server.upload(data)
    assert answer.status == 400
    assert said in answer.json["error"]
    assert str(server.folder) not in answer.json["error"]
    assert set((server.folder / "pictures").iterdir()) == before


def test_a_name_is_shown_and_never_a_path(server):
    data = drawn(2)
    found = server.upload(data, "../../../etc/\n\x1b[31mevil.png").json
    assert found["reference"] == hashlib.sha256(data).hexdigest()
    assert "\n" not in found["name"]
    assert "\x1b" not in found["name"]
    kept = {path.name for path in (server.folder / "pictures").iterdir()}
    assert {found["reference"], f"{found['reference']}.thumb.jpg"} <= kept
    assert (found["width"], found["height"]) == (40, 30)


@pytest.mark.parametrize(
    "reference", ["..", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "a" * 64, "example:no", "example:../x"]
)
def test_a_reference_that_is_none_finds_nothing(server, reference):
    assert server.ask("GET", f"/api/pictures/{reference}/view.jpg").status in (400, 404)


def test_a_dead_reader_is_told_and_started_again(server):
    reader = server.child("studio.reader")
    os.kill(reader, signal.SIGKILL)
    statuses = [server.upload(drawn(3)).status for _ in range(3)]
    assert statuses[-1] == 200


# Jobs


def test_a_studio_that_ends_tells_those_who_wait(tmp_path, serve):
    """As the page does that has just been opened, whose examples are being read."""
    with (tmp_path / "stderr").open("w+") as errors:
        found = serve(tmp_path / "folder", errors=errors.fileno())
        os.kill(found.child("studio.reader"), signal.SIGSTOP)
        places = [f"/api/pictures/example:{name}/thumb.jpg" for name in ("cat", "night", "ink")]
        with ThreadPoolExecutor() as pool:
            asked = [pool.submit(found.ask, "GET", place) for place in places]
            time.sleep(1)
            assert not any(one.done() for one in asked)
            found.close()
            assert [one.result().status for one in asked] == [503] * 3
        errors.seek(0)
        assert "Traceback" not in errors.read()


def test_a_job_is_the_bytes_of_the_command_that_it_tells(server, made, tmp_path):
    words = shlex.split(server.ask("GET", f"/api/jobs/{made}").json["command"])
    assert words[0] == "nst"
    subprocess.run(
        [sys.executable, ROOT / "bin/nst", *words[1:]], cwd=tmp_path, check=True, capture_output=True
    )
    assert hashlib.sha256((tmp_path / "picture.png").read_bytes()).hexdigest() == server.result(made)


def test_a_job_has_its_history_and_its_downloads(server, made, tmp_path):
    found = server.ask("GET", f"/api/jobs/{made}").json
    assert [point["step"] for point in found["history"]] == list(range(7))
    for suffix, depth in (("png", 16), ("jpg", 8), ("webp", 8), ("tif", 16)):
        answer = server.ask("GET", f"/api/jobs/{made}/download.{suffix}")
        (path := tmp_path / f"a.{suffix}").write_bytes(answer.body)
        assert images.load(path).rgb.shape == (21, 32, 3)
        assert (images.read(path).colors.dtype == np.uint16) == (depth == 16)
        assert json.loads(images.read_settings(path))["config"]["preset"] == "gatys"
        assert f'filename="A-cat.{suffix}"' in answer.headers["content-disposition"]
    assert server.ask("GET", f"/api/jobs/{made}/download.exe").status == 404


def test_two_styles_and_masks_at_once(server):
    def half(left: bool) -> str:
        pixels = np.zeros((30, 45), np.uint8)
        pixels[:, : 22 if left else None] = 255
        pixels[:, 22:] = 0 if left else 255
        pixels[:, :22] = 255 if left else 0
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        return server.upload(data.getvalue(), "mask.png").json["reference"]

    inputs = {**BOTH, "style": ["example:night", "example:glass"], "style_mask": [half(True), half(False)]}
    assert server.ended(server.make(inputs, style_mix=[3, 1]))["status"] == "done"


@pytest.mark.parametrize(
    ("inputs", "options", "said"),
    [
        ({"content": "example:cat", "style": []}, {}, "style"),
        (BOTH, {"size": 1}, "size"),
        (BOTH, {"size": "big"}, "size"),
        (BOTH, {"strength": 0.5, "style_weight": 3}, "strength"),
        (BOTH, {"learning_rate": 0.1}, "learning_rate"),
        ({**BOTH, "content": "a" * 64}, {}, "uploaded"),
    ],
)
def test_a_job_that_cannot_be_is_refused_at_once(server, inputs, options, said):
    answer = server.ask("POST", "/api/jobs", {"inputs": inputs, "options": QUICK | options})
    assert answer.status == 400
    assert said in answer.json["error"]


def test_what_only_shows_when_files_are_read_fails_the_job_in_one_line(server):
    mask = server.upload(drawn(5, size=(10, 90)), "mask.png").json["reference"]
    found = server.ended(server.make({**BOTH, "style_mask": [mask]}))
    assert found["status"] == "failed"
    assert found["error"].startswith("mask.png: a mask ")
    assert str(server.folder) not in found["error"]


def test_pause_carry_on_and_extend_come_to_the_bytes_of_a_job_left_alone(server):
    alone = server.make(iterations=30)
    stopped = server.make(iterations=20)
    assert server.ended(alone)["status"] == "done"
    server.until(stopped, lambda found: found["step"] >= 3)
    server.act(stopped, "pause")
    paused = server.ended(stopped)
    assert paused["status"] == "paused"
    assert 3 <= paused["step"] < 20
    assert server.act(stopped, "pause").status == 400
    server.act(stopped, "carry_on")
    assert server.ended(stopped)["step"] == 20
    assert server.act(stopped, "extend", {"steps": 10}).status == 200
    assert server.ended(stopped)["step"] == 30
    pixels = [np.asarray(Image.open(server.folder / "jobs" / job / "result.png")) for job in (alone, stopped)]
    np.testing.assert_array_equal(*pixels)


def test_a_job_goes_on_from_a_picture_at_a_larger_size(server, made):
    start = server.act(made, "as_picture").json
    found = server.ended(server.make(init=start["reference"], size=48, iterations=2))
    assert found["status"] == "done"
    assert "--init=A-cat.png" in found["command"]
    assert images.read(str(server.folder / "jobs" / found["id"] / "result.png")).size == (32, 48)


def test_the_queue_is_ordered_and_jobs_are_cancelled_and_deleted(server, made):
    first, second, third = (server.make(iterations=400) for _ in range(3))
    server.act(third, "front")
    assert server.act(made, "front").json["error"] == "job: one that waits; it is done"
    server.until(first, lambda found: found["step"] >= 1)
    assert server.act(first, "cancel").status == 200
    assert server.ended(first)["status"] == "cancelled"
    server.until(third, lambda found: found["status"] == "running")
    assert server.act(second, "cancel").json["status"] == "cancelled"  # it waits still
    assert server.act(third, "rename", {"title": "x" * 121}).status == 400
    for job in (first, second, third):
        assert server.ask("DELETE", f"/api/jobs/{job}").status == 200
        assert not (server.folder / "jobs" / job / "job.json").exists()
    assert server.ask("GET", f"/api/jobs/{third}").status == 400


def test_any_number_can_watch(server):
    def attach() -> socket.socket:
        host, port = server.host.split(":")
        found = socket.create_connection((host, int(port)), timeout=SECONDS)
        found.sendall(
            f"GET /api/events HTTP/1.1\r\nHost: {server.host}\r\nCookie: {server.headers['Cookie']}\r\n\r\n".encode()
        )
        return found

    watchers = [attach() for _ in range(3)]
    job = server.make()
    for watcher in watchers:
        text = b""
        while (
            f'"id": "{job}"'.encode() not in text or b'"status": "done"' not in text.split(job.encode())[-1]
        ):
            text += watcher.recv(65536)
        assert text.index(b"event: all") < text.index(b"event: job")
        watcher.close()


def has_ended(process):
    """Tell whether a process is gone, or waits for nothing but its parent."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_kills_of_the_worker_and_of_the_studio_change_no_byte(tmp_path, serve):
    first = serve(tmp_path / "a")
    job = first.make(iterations=30)
    first.until(job, lambda found: found["step"] >= 3)
    os.kill(first.worker(), signal.SIGKILL)
    first.until(job, lambda found: found["step"] >= 8)
    worker = first.worker()
    first.close(signal.SIGKILL)
    again = serve(tmp_path / "a")
    assert has_ended(worker)  # it has let go of the folder
    assert again.address.split("=")[1] == first.address.split("=")[1]
    found = again.ended(job)
    assert (found["status"], found["step"]) == ("done", 30)
    assert [point["step"] for point in found["history"]] == list(range(31))
    alone = again.make(iterations=30)
    again.ended(alone)
    assert again.result(job) == again.result(alone)
    again.close()


def test_a_worker_that_always_dies_fails_the_job_and_no_other(tmp_path, serve):
    store = Store(tmp_path, 0)
    record = store.create(Recipe("", BOTH, QUICK), 1.0)
    record.crashes = 2
    store.save(record)
    store.close()
    found = serve(tmp_path)
    found.until(record.id, lambda one: one["status"] == "running")
    os.kill(found.worker(), signal.SIGKILL)
    ended = found.ended(record.id)
    assert ended["status"] == "failed"
    assert "3 times" in ended["error"]
    assert found.ended(found.make())["status"] == "done"
    found.close()


# Clips


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    """Return a clip of eight frames that moves."""
    pytest.importorskip("av", reason="needs the extra video")
    from clip_files import encode, picture, rgb_frame

    path = tmp_path_factory.mktemp("clips") / "in.mkv"
    frames = [rgb_frame(picture(n)).reformat(format="bgr0") for n in range(8)]
    return Path(encode(path, frames, "ffv1")).read_bytes()


def upload_clip(server, data: bytes) -> Answer:
    return server.ask("POST", "/api/clips?name=in.mkv", data)


def test_a_frame_of_a_clip_is_a_picture_to_try_the_look_on(server, clip):
    from clip_files import picture

    found = upload_clip(server, clip).json
    assert (found["width"], found["height"], found["frames"], found["rate"]) == (48, 32, 8, 25)
    frame = server.ask("POST", f"/api/clips/{found['reference']}/frame", {"number": 5}).json
    assert frame["name"] == "in.mkv 5.png"
    kept = images.load(server.folder / "pictures" / frame["reference"]).rgb
    np.testing.assert_allclose(kept, picture(4), atol=1 / 255)
    assert server.ended(server.make({**BOTH, "content": frame["reference"]}))["status"] == "done"
    answer = server.ask("POST", f"/api/clips/{found['reference']}/frame", {"number": 9})
    assert (answer.status, answer.json["error"]) == (400, "frame: from 1 to 8; got 9")
    assert not list((server.folder / "pictures").glob("*.png"))


def test_pictures_and_clips_are_forecast(server, made, clip):
    reference = upload_clip(server, clip).json["reference"]
    for inputs in (BOTH, {"clip": reference, "style": ["example:night"]}):
        answer = server.ask("POST", "/api/forecast", {"inputs": inputs, "options": QUICK})
        assert answer.json["seconds"] > 0, answer.body


def test_a_picture_is_measured_when_somebody_asks(server, tmp_path):
    job = server.make()
    assert server.ended(job)["measures"] == []
    assert server.act(job, "judge").status == 200
    found = {one["name"]: one["value"] for one in server.ask("GET", f"/api/jobs/{job}").json["measures"]}
    result = tmp_path / "result.png"
    result.write_bytes((server.folder / "jobs" / job / "result.png").read_bytes())
    report = tmp_path / "judge.json"
    asked = [f"--result={result}", "--content=example:cat", "--style=example:night", f"--report={report}"]
    subprocess.run([sys.executable, ROOT / "bin/nst-judge", *asked], check=True, capture_output=True)
    told = json.loads(report.read_text())
    assert found
    assert found == {name: told[name] for name in found}
    assert server.act(job, "extend", {"steps": 1}).status == 200
    assert server.ended(job)["measures"] == []  # they were of the picture before


def test_what_has_no_picture_is_not_measured(server, clip):
    inputs = {"clip": upload_clip(server, clip).json["reference"], "style": ["example:night"]}
    job = server.make(inputs, frame_steps=1)
    for _ in range(2):
        answer = server.act(job, "judge")
        assert (answer.status, answer.json["error"]) == (400, "job: one that has a picture; it has none")
        server.ended(job)


def test_a_clip_is_made_through_kills_and_pauses_to_the_same_bytes(server, clip):
    inputs = {"clip": upload_clip(server, clip).json["reference"], "style": ["example:night"]}
    alone, other = (server.make(inputs, title="Waves", frame_steps=2, soft_masks=True) for _ in range(2))
    assert server.ended(alone)["status"] == "done"
    server.until(other, lambda found: found["step"] >= 2)
    os.kill(server.worker(), signal.SIGKILL)
    server.until(other, lambda found: found["step"] >= 4)
    server.act(other, "keep")  # part of a clip is no file
    paused = server.ended(other)
    assert (paused["status"], paused["result"]) == ("paused", False)
    server.act(other, "carry_on")
    found = server.ended(other)
    assert (found["status"], found["step"], found["result"]) == ("done", 8, True)
    assert [point["step"] for point in found["history"]] == list(range(1, 9))
    answer = server.ask("GET", f"/api/jobs/{other}/download.mp4")
    assert 'filename="Waves.mp4"' in answer.headers["content-disposition"]
    assert answer.body == server.ask("GET", f"/api/jobs/{alone}/clip.mp4").body
    assert answer.body == (server.folder / "jobs" / other / "result.mp4").read_bytes()
    assert server.ask("GET", f"/api/jobs/{other}/download.png").status == 404
    assert "nst-video --content=in.mkv --style=example:night --preset=gatys" in found["command"]
    assert not (server.folder / "jobs" / other / "result.mp4.frames").exists()


@pytest.mark.parametrize("data", [b"", b"no clip at all", drawn(1)])
def test_what_is_no_clip_is_one_line_and_leaves_nothing(server, data):
    before = set((server.folder / "pictures").iterdir())
    answer = upload_clip(server, data)
    assert answer.status == 400
    assert "a video that FFmpeg reads" in answer.json["error"]
    assert str(server.folder) not in answer.json["error"]
    assert set((server.folder / "pictures").iterdir()) == before


# The program


def refused(*flags: str, inside: Sequence[str] = ()) -> str:
    command = [*inside, sys.executable, str(ROOT / "bin/nst-studio"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_second_studio_on_a_folder_and_a_port_that_is_taken_are_refused(server, tmp_path):
    assert "another has it" in refused(f"--folder={server.folder}", "--port=0")
    assert "--port=" in refused(f"--folder={tmp_path}", f"--port={server.host.split(':')[1]}")


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "must be a folder" in refused(f"--folder={tmp_path / 'file'}", "--port=0")


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, mounting):
    inside = [*mounting, "sh", "-c", 'mount -t tmpfs -o ro tmpfs "$0" && exec "$@"', str(tmp_path)]
    for folder in (tmp_path, tmp_path / "new"):
        assert "Read-only file system" in refused(f"--folder={folder}", "--port=0", inside=inside)


def test_weights_that_are_missing_fail_the_job_and_no_other(tmp_path, serve, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = serve(tmp_path / "folder")
    ended = found.ended(found.make(network="vgg19"))
    assert ended["status"] == "failed"
    assert ended["error"].startswith("weights of vgg19: run nst-weights --fetch=")
    assert found.ended(found.make())["status"] == "done"
    found.close()


def test_a_disk_that_is_too_full_is_told(tmp_path, serve):
    found = serve(tmp_path, "--keep_free=1000000000")
    for answer in (
        found.upload(drawn(1)),
        found.ask("POST", "/api/jobs", {"inputs": BOTH, "options": QUICK}),
    ):
        assert answer.status == 400
        assert "are kept free" in answer.json["error"]
    found.close()


def test_a_disk_that_fills_up_is_told_and_the_studio_lives(tmp_path, mounting, serve):
    mount = 'mount -t tmpfs -o size=3m tmpfs "$0" && exec "$@"'
    found = serve(tmp_path, inside=[*mounting, "sh", "-c", mount, str(tmp_path)])
    full = [found.upload(drawn(number, size=(500, 300))) for number in range(12)][-1]
    assert full.json["error"].startswith("the disk: ")
    job = found.make(size=160)  # whose checkpoint is larger than what is left
    ended = found.ended(job)
    assert ended["status"] in ("done", "failed")
    assert re.search("No space left|MiB free", ended["error"] + " ".join(ended["notes"]))
    assert found.ask("GET", "/api/about").status == 200
    assert found.ask("DELETE", f"/api/jobs/{job}").status == 200
    found.close()


def test_a_damaged_record_is_left_alone_and_costs_no_other(tmp_path):
    store = Store(tmp_path, 0)
    good = store.create(Recipe("", BOTH, QUICK), 1.0)
    other = json.dumps(dataclasses.asdict(good) | {"id": "../../x"})
    for name, text in (("a" * 16, "{"), ("b" * 16, other), ("c" * 16, "[" * 100_000)):
        (store.jobs / name).mkdir()
        (store.jobs / name / "job.json").write_text(text)
    assert store.load().keys() == {good.id}
    store.close()


def test_a_record_of_earlier_days_has_the_options_of_today(tmp_path):
    store = Store(tmp_path, 0)
    old = store.create(Recipe("", BOTH, {"layer_weighting": "lower", "content_loss": "squares"}), 1.0)
    assert store.load()[old.id].options == {"style_layer_weights": "lower", "content_loss": "l2"}
    store.close()


# Hostile requests


def test_half_a_character_is_refused(server, made):
    for body in ({"title": "\ud800"}, {"\udfff": 1}):
        for path in (f"/api/jobs/{made}/rename", "/api/jobs"):
            answer = server.ask("POST", path, body)
            assert answer.status == 400
            assert "must be JSON" in answer.json["error"]


def hostile(chance: random.Random, job: str) -> tuple[str, str, bytes]:
    """Return a method, a path and a body, none of them as the page would ask."""
    values = [None, -1, 1e400, "x" * 9999, [[]], {"a": {}}, True, "../..", "\0", "example:cat", "\ud800"]
    text = "".join(chance.choice("/.%20ab:{}\\'\"<>?&=") for _ in range(chance.randrange(30)))
    places = ["/api/jobs", "/api/clips", f"/api/clips/{quote(text, safe='')}/frame", f"/api/jobs/{job}/extend", f"/api/jobs/{job}/rename", "/api/forecast", "/api/pictures", f"/api/jobs/{job}/{quote(text)}", f"/api/pictures/{quote(text, safe='')}/view.jpg", f"/static/{quote(text)}"]  # fmt: skip
    data = {chance.choice(["inputs", "options", "title", "steps", text]): chance.choice([*values, {chance.choice(["size", "content", "style", "init", text]): chance.choice(values)}]) for _ in range(3)}  # fmt: skip
    body = chance.choice([json.dumps(data).encode(), os.urandom(chance.randrange(99)), b"[" * 5000, b"{"])
    return chance.choice(["GET", "POST", "POST", "DELETE", "PUT"]), chance.choice(places), body


def test_hostile_requests_end_in_one_line_and_write_nowhere_else(server, made):
    chance, before = random.Random(1), {path.name for path in server.folder.iterdir()}
    for _ in range(300):
        method, path, body = hostile(chance, made)
        if (method, path) == ("DELETE", f"/api/jobs/{made}"):
            continue
        answer = server.ask(method, path, body)
        assert answer.status < 500, (method, path, body, answer.body)
        assert b"Traceback" not in answer.body
    assert {path.name for path in server.folder.iterdir()} == before
    assert server.ask("GET", "/api/about").status == 200


# The page

FINE = (200, 201, 206, 400)  # 206: a part of a clip; 400: what is wrong is told; all asked for is there


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with api.sync_playwright() as started:
        installed = [path for path in ("/usr/bin/chromium",) if Path(path).exists()]
        try:
            found = started.chromium.launch(
                executable_path=next(iter(installed), None), args=["--no-sandbox"]
            )
        except api.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        yield found
        found.close()


@contextlib.contextmanager
def visit(browser, server, address=""):
    """Yield the page; whatever it asks another host for, or lacks, is an error."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    wrong: list[str] = []
    found = context.new_page()
    found.set_default_timeout(1000 * SECONDS)
    found.on(
        "request",
        lambda one: None if urlsplit(one.url).netloc in (server.host, "") else wrong.append(one.url),
    )
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("console", lambda line: wrong.append(line.text) if "Content Security" in line.text else None)
    found.on(
        "response", lambda one: wrong.append(f"{one.status} {one.url}") if one.status not in FINE else None
    )
    found.goto(address or server.address)
    found.wait_for_selector(".look")
    yield found
    context.close()
    assert wrong == []


@pytest.fixture
def page(browser, server):
    with visit(browser, server) as found:
        yield found


def draft(page) -> dict:
    """Return what the page keeps of the next picture."""
    return json.loads(page.evaluate("localStorage['nst-studio-draft']"))


def quick(page, **more):
    """Have the page's next picture be a quick one."""
    options = {**QUICK, "iterations": [QUICK["iterations"]], **more}
    page.evaluate(
        "given => import('/static/draft.js').then((d) => { Object.assign(d.draft.options, given); d.changed(); })",
        options,
    )


def choose_examples(page):
    page.click('[aria-label="Use the example cat as photograph"]')
    page.click('[aria-label="Use the example night as painting"]')
    page.wait_for_selector('img[alt="example:night"]')


def test_no_command_line_shows_the_token_and_the_page_opens(browser, serve, tmp_path, monkeypatch):
    script, told = tmp_path / "browser", tmp_path / "told"
    script.write_text(f'#!/bin/sh\necho "$@" > {told}\n')
    script.chmod(0o700)
    monkeypatch.setenv("BROWSER", f"{script} %s")
    found = serve(tmp_path / "folder", "--open")
    end = time.monotonic() + SECONDS
    while not told.exists() or not told.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    entry = tmp_path / "folder" / "open.html"
    assert told.read_text().strip() == entry.as_uri()
    assert entry.stat().st_mode & 0o777 == 0o600
    with visit(browser, found, entry.as_uri()) as page:
        assert page.url.removesuffix("#make") == f"http://{found.host}/"
    found.close()
    assert not entry.exists()


def test_from_the_first_visit_to_the_download(page):
    choose_examples(page)
    quick(page)
    page.click("#go")
    page.wait_for_selector("#job-status:has-text('Finished')")
    page.click("text=Download")
    with page.expect_download() as download:
        page.click("text=WebP")
    assert download.value.suggested_filename == "cat-night.webp"


def test_a_picture_is_varied_and_measured(page, server, made):
    page.goto(f"http://{server.host}/#job/{made}")
    page.click("text=Vary")
    page.click("text=Five stroke sizes")
    page.wait_for_selector("#grid:not(:has(.mark)) li:nth-child(5)")  # all five are made
    names = page.eval_on_selector_all("#grid .cap", "all => all.map((one) => one.textContent)")
    assert sorted(names) == sorted(f"A cat · stroke size {size}" for size in ("0.5", "0.7", "1", "1.4", "2"))
    page.goto(f"http://{server.host}/#job/{made}")
    page.click("text=Numbers")
    page.click("text=Measure how near")
    page.wait_for_selector("th:has-text('lpips')")


def test_a_reload_in_the_middle_and_a_second_tab_see_the_job(page, server):
    choose_examples(page)
    quick(page, iterations=[400])
    page.click("#go")
    page.wait_for_selector("#job-status:has-text('Step')")
    page.reload()
    page.wait_for_selector("#job-status:has-text('Step')")
    second = page.context.new_page()
    second.goto(page.url)
    second.wait_for_selector("#job-status:has-text('Step')")
    page.click("text=Stop and keep")
    for tab in (page, second):
        tab.wait_for_selector("#job-status:has-text('Finished')")


def test_a_job_is_cancelled_carried_on_and_extended(page):
    choose_examples(page)
    quick(page, iterations=[60])
    page.click("#go")
    page.wait_for_selector("#job-status:has-text('Step')")
    page.click("text=Cancel")
    page.wait_for_selector("#job-status:has-text('Cancelled')")
    page.click("text=Carry on")
    page.wait_for_selector("#job-status:has-text('Finished · step 60 of 60')")
    page.click("text=More steps")
    page.fill("[aria-label='How many more steps']", "3")
    page.keyboard.press("Enter")
    page.wait_for_selector("#job-status:has-text('Finished · step 63 of 63')")


def test_the_page_finds_a_studio_again_that_was_killed(browser, serve, tmp_path):
    first = serve(tmp_path)
    with visit(browser, first) as page:
        choose_examples(page)
        quick(page, iterations=[60])
        page.click("#go")
        page.wait_for_selector("#job-status:has-text('Step')")
        first.close(signal.SIGKILL)
        page.wait_for_selector("#device:has-text('not connected')")
        again = serve(tmp_path, f"--port={first.host.split(':')[1]}")
        page.wait_for_selector("#job-status:has-text('Finished · step 60 of 60')")
    again.close()


def test_regions_by_the_keyboard_alone(page):
    choose_examples(page)
    quick(page)
    page.focus("text=Paint where each acts")
    page.keyboard.press("Enter")
    page.fill("#shape-w", "40")
    page.focus("text=Add this shape")
    page.keyboard.press("Enter")
    assert page.text_content("[data-label='1']") == "20 %"
    page.focus("text=Use these regions")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Change where each acts")
    page.click("#go")
    page.wait_for_selector("#job-status:has-text('Finished')")


def test_two_paintings_act_where_a_mouse_has_painted(page, server):
    def drag(x: float) -> int:
        """Paint from top to bottom; return the percentages of both."""
        box = page.locator(".sheet").bounding_box()
        page.mouse.move(box["x"] + x * box["width"], box["y"] + 1)
        page.mouse.down()
        page.mouse.move(box["x"] + x * box["width"], box["y"] + box["height"] - 1, steps=5)
        page.mouse.up()
        return shares()

    def shares() -> list[int]:
        return [int(page.text_content(f"[data-label='{n}']").removesuffix(" %")) for n in (1, 2)]

    choose_examples(page)
    drop(page, "#paintings", "second.png", drawn(44))
    page.wait_for_selector("#paintings img[alt='second.png']")
    quick(page)
    page.click("text=Paint where each acts")
    page.fill("#brush-size", "20")
    first = drag(0.25)
    assert first[0] > 15
    assert drag(0.5)[0] > first[0] + 5
    page.click("text=Undo")
    assert shares() == first
    page.check("[name=tool] >> nth=1", force=True)  # the eraser
    assert drag(0.2)[0] < first[0] - 5
    page.check("[name=tool] >> nth=0", force=True)
    page.check("[name=who] >> nth=1", force=True)
    second = drag(0.8)
    assert second[1] > 15
    page.click("text=Invert")
    assert sum(shares()) == pytest.approx(100 - second[1], abs=1)
    page.click("text=Undo")
    page.click("text=Use these regions")
    page.wait_for_selector("text=Change where each acts")
    page.click("#go")
    page.wait_for_selector("#job-status:has-text('Finished')")
    job = page.evaluate("location.hash").removeprefix("#job/")
    masks = server.ask("GET", f"/api/jobs/{job}").json["inputs"]["style_mask"]
    means = [np.asarray(Image.open(server.folder / "pictures" / mask).convert("L")).mean() for mask in masks]
    np.testing.assert_allclose(np.array(means) / 2.55, second, atol=1)


def test_regions_of_the_photograph_are_made_of_regions_of_the_painting(page, server):
    def paint(picture: str, region: int, top: int) -> None:
        page.check(f"[name=sheet] >> nth={picture}", force=True)
        page.check(f"[aria-label='Paint region {region}']", force=True)
        page.fill("#shape-y", str(top))
        page.fill("#shape-h", "40")
        page.click("text=Add this shape")

    choose_examples(page)
    quick(page)
    page.click("text=Match regions")
    page.fill("[aria-label='Name of region 2']", "the sky")
    paint("0", 1, 50)
    paint("0", 2, 0)
    page.click("text=Use these regions")
    page.wait_for_selector("#toast:has-text('Paint what the regions are made of in example:night, too.')")
    paint("1", 1, 50)
    page.click("text=Use these regions")
    page.wait_for_selector("#toast:has-text('Paint the sky in example:night, too.')")
    assert (
        page.evaluate("""() => {
        const { left, width, top, height } = document.getElementById("toast").getBoundingClientRect();
        return document.elementFromPoint(left + width / 2, top + height / 2).id;
    }""")
        == "toast"
    )  # nothing covers it
    paint("1", 2, 0)
    page.click("text=Use these regions")
    page.wait_for_selector("text=Change what is made of what")
    page.click("#go")
    page.wait_for_selector("#job-status:has-text('Finished')")
    job = page.evaluate("location.hash").removeprefix("#job/")
    inputs = server.ask("GET", f"/api/jobs/{job}").json["inputs"]
    assert inputs["content_labels"]
    assert len(inputs["style_labels"]) == 1
    report = json.loads((server.folder / "jobs" / job / "report.json").read_text())
    labels = [part["label"] for part in report["losses"]["final"]["by_style"]]
    assert sorted(labels) == ["#000000", "#56b4e9", "#e69f00"]
    page.reload()  # what was painted is read from the files again
    page.click("text=Change what is made of what")
    page.wait_for_selector("[data-label='2']:has-text('20 %')")


def label_map(*colors: str, edge: str = "#123456", form: str = "PNG") -> bytes:
    """Return a map of columns of equal width, with a pixel of an edge's color."""
    picture = Image.new("RGB", (20 * len(colors), 30))
    for number, color in enumerate(colors):
        picture.paste(color, (20 * number, 0, 20 * number + 20, 30))
    picture.putpixel((19, 7), ImageColor.getrgb(edge))
    file = io.BytesIO()
    picture.save(file, form)
    return file.getvalue()


def open_map(page, picture: str, data: bytes) -> None:
    page.check(f"[name=sheet] >> nth={picture}", force=True)
    with page.expect_file_chooser() as chooser:
        page.click("text=Open label map")
    chooser.value.set_files({"name": "map.png", "mimeType": "image/png", "buffer": data})


def test_label_maps_are_opened_by_their_plain_colors(page):
    def share(region: int, percent: int) -> None:
        page.wait_for_selector(f"[data-label='{region}']:text-is('{percent} %')")

    choose_examples(page)
    page.click("text=Match regions")
    open_map(page, "0", label_map(*["lime"] * 4, *["black"] * 3, "white", "red", "blue"))
    share(1, 40)
    assert page.evaluate("document.activeElement.name") == "who"
    open_map(page, "0", label_map(*["lime"] * 6, "cyan", "gray", "pink", "brown"))  # no other has these slots
    share(1, 60)
    open_map(page, "0", b"no picture")
    page.wait_for_selector("#toast:has-text('map.png: the browser cannot show this picture.')")
    page.click("text=Undo")
    share(1, 40)  # what failed is no step
    open_map(page, "1", label_map(*["black"] * 3))  # known from the photograph, and so not what is bare
    share(2, 100)
    open_map(page, "1", drawn(9, size=(90, 60)))
    page.wait_for_selector("#toast:has-text('map.png is not made of plain colors, as a label map is.')")
    open_map(page, "1", label_map("white", "lime", "red", form="JPEG"))
    share(1, 33)
    assert page.locator("[data-label]:text-is('33 %')").count() == 3


def test_regions_come_from_label_maps_of_any_colors(page, server):
    choose_examples(page)
    quick(page)
    page.click("text=Match regions")
    open_map(page, "0", label_map("lime", "lime", "lime", "black", "white"))
    page.wait_for_selector("[data-label='1']:has-text('60 %')")
    open_map(
        page, "1", label_map("white", "black", "lime")
    )  # each color the region that it is in the photograph
    page.wait_for_selector("[data-label='1']:has-text('33 %')")
    open_map(page, "1", label_map(*(f"#0000{28 * number:02x}" for number in range(1, 10))))
    page.wait_for_selector("#toast:has-text('at most 7 colors')")
    page.click("text=Use these regions")
    page.wait_for_selector("text=Change what is made of what")
    page.reload()  # the colors are known still
    page.click("text=Change what is made of what")
    page.wait_for_selector("[data-label='1']:has-text('60 %')")
    open_map(page, "0", label_map("black", "white", "lime", "lime"))
    page.wait_for_selector("[data-label='1']:has-text('50 %')")
    page.click("text=Use these regions")
    page.wait_for_selector("#painter", state="hidden")
    page.click("#go")
    page.wait_for_selector("#job-status:has-text('Finished')")
    job = page.evaluate("location.hash").removeprefix("#job/")
    inputs = server.ask("GET", f"/api/jobs/{job}").json["inputs"]
    maps = [
        Image.open(server.folder / "pictures" / reference).convert("RGB")
        for reference in (inputs["content_labels"], *inputs["style_labels"])
    ]
    at = [[found.getpixel((round(share * found.width), 9)) for share in (0.1, 0.4, 0.9)] for found in maps]
    assert at[0] == [at[1][1], at[1][0], at[1][2]]  # black, white and lime
    assert [len(found.getcolors()) for found in maps] == [3, 3]


def test_a_look_is_tried_on_a_frame_and_the_clip_made_of_it(page, clip):
    with page.expect_file_chooser() as chooser:
        page.click("#choose")
    chooser.value.set_files({"name": "in.mkv", "mimeType": "video/x-matroska", "buffer": clip})
    page.wait_for_selector('img[alt="in.mkv 1.png"]')
    page.fill("#frame-number", "3")
    page.wait_for_selector('img[alt="in.mkv 3.png"]')
    page.click('[aria-label="Use the example night as painting"]')
    quick(page, frame_steps=2)
    page.click("#go")
    page.wait_for_selector("#job-status:has-text('Finished')")
    page.evaluate("location.hash = '#make'")
    page.click("#go-clip")
    page.wait_for_selector("#job-status:has-text('Finished · frame 8 of 8')")
    page.click("text=Download")
    with page.expect_download() as download:
        page.click("text=MP4")
    assert download.value.suggested_filename == "in-night.mp4"
    page.click("text=Use these settings")
    page.wait_for_selector('img[alt="in.mkv 1.png"]')


def drop(page, place: str, name: str, data: bytes) -> None:
    """Drop a file, as a hand does."""
    page.evaluate(
        """([place, name, data]) => {
            const carried = new DataTransfer();
            carried.items.add(new File([Uint8Array.from(data)], name));
            for (const kind of ["dragenter", "dragover", "drop"]) {
                const given = { dataTransfer: carried, bubbles: true, cancelable: true };
                document.querySelector(place).dispatchEvent(new DragEvent(kind, given));
            }
        }""",
        [place, name, list(data)],
    )


def test_files_are_dropped_where_they_belong(page):
    drop(page, "#paintings", "painting.png", drawn(41))
    page.wait_for_selector("#paintings img[alt='painting.png']")
    drop(page, "#canvas", "photo.png", drawn(42))
    page.wait_for_selector("#photograph img[alt='photo.png']")
    assert page.is_hidden("#drop")


def test_a_dropped_picture_says_what_is_not_here_any_more(page, server):
    lost = server.upload(drawn(43)).json["reference"]
    job = server.make({"content": "example:cat", "style": [lost]})
    assert server.ended(job)["status"] == "done"
    (server.folder / "pictures" / lost).unlink()
    drop(page, "#canvas", "found.jpg", server.ask("GET", f"/api/jobs/{job}/download.jpg").body)
    page.wait_for_selector(
        "#toast:text-is('These are the settings of found.jpg. Not here any more: a picture.')"
    )
    assert page.is_checked("input[value=gatys]")
    assert page.is_visible("#photograph img[alt='example:cat']")


def test_a_larger_picture_is_made_of_one_with_an_effort(page, server):
    options = {**QUICK, "effort": "draft"}
    del options["iterations"]
    job = server.ask("POST", "/api/jobs", {"inputs": BOTH, "options": options}).json["id"]
    assert server.ended(job)["status"] == "done"
    page.goto(f"http://{server.host}/#job/{job}")
    page.click("text=Larger")
    page.wait_for_selector("#toast:has-text('at twice its size')")
    assert draft(page)["options"].items() >= {"size": 64, "iterations": [60]}.items()
    page.click("#go")
    page.wait_for_function("old => location.hash !== old", arg=f"#job/{job}")
    page.click("text=Cancel")
    page.wait_for_selector("#job-status:has-text('Cancelled')")


def test_a_phone_is_told_that_the_studio_is_gone(page):
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.is_hidden("#device")
    page.route("**/api/events", lambda route: route.abort())
    page.reload()
    page.wait_for_selector("#device:has-text('not connected')")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_soft_edges_outlive_a_reload(page):
    choose_examples(page)
    page.click("text=Paint where each acts")
    page.fill("#feather", "2")
    page.click("text=Add this shape")
    page.click("text=Use these regions")
    page.wait_for_selector("text=Change where each acts")
    first = draft(page)
    page.reload()
    page.click("text=Change where each acts")
    assert page.input_value("#feather") == "2"
    page.wait_for_selector("[data-label='1']:text-is('25 %')")
    page.click("text=Use these regions")
    page.wait_for_selector("#painter", state="hidden")
    assert draft(page)["options"] == first["options"] == {"soft_masks": True}


@pytest.mark.parametrize("shape", ["rectangle", "ellipse"])
def test_soft_edges_come_back_with_a_finished_picture(page, server, shape):
    choose_examples(page)
    quick(page)
    page.click("text=Paint where each acts")
    page.fill("#feather", "2.5")
    page.select_option("#shape-kind", shape)
    page.click("text=Add this shape")
    page.click("text=Use these regions")
    page.wait_for_selector("text=Change where each acts")
    mask = Image.open(server.folder / "pictures" / draft(page)["styles"][0]["mask"])
    assert mask.convert("RGBA").getextrema() == ((0, 255),) * 3 + ((255, 255),)
    page.click("#go")
    page.wait_for_selector("#job-status:has-text('Finished')")
    job = page.url.rpartition("/")[2]
    page.evaluate("localStorage.clear()")
    page.goto(f"http://{server.host}/#make")
    page.reload()
    page.wait_for_selector(".look")
    drop(page, "#canvas", "found.jpg", server.ask("GET", f"/api/jobs/{job}/download.jpg").body)
    page.wait_for_selector("text=These are the settings of found.jpg.")
    page.click("text=Change where each acts")
    page.wait_for_selector("[data-label='1']:has-text('%')")
    assert float(page.input_value("#feather")) == pytest.approx(2.5, abs=0.5)


def test_a_dropped_picture_brings_its_settings_back(page, server, made):
    data = server.ask("GET", f"/api/jobs/{made}/download.jpg").body
    with page.expect_file_chooser() as chooser:
        page.click("#choose")
    chooser.value.set_files({"name": "found.jpg", "mimeType": "image/jpeg", "buffer": data})
    page.wait_for_selector("text=These are the settings of found.jpg.")
    assert page.is_checked("input[value=gatys]")
    assert page.text_content("#size-says, #dials output[for=size]") == "32 × 21 pixels"


def test_time_and_memory_are_told_beside_the_size(page, made):
    choose_examples(page)
    quick(page)
    page.wait_for_selector("#forecast:has-text('GiB of memory, going by earlier pictures')")
    page.click("text=Measure time and memory")
    page.wait_for_selector("#forecast:has-text('memory'):not(:has-text('earlier')):not(:has-text('Measur'))")


def test_what_is_wrong_shows_where_the_person_looks(page):
    page.click("#go")
    assert page.text_content("#problem") == "Choose a photograph and a painting."
    choose_examples(page)
    quick(page, learning_rate=0.5)
    page.click("#go")
    page.wait_for_selector(".opt.wrong[data-name=learning_rate]")
    assert "adam" in page.text_content("#problem")


SHIFTED = """() => new Promise((tell) => new PerformanceObserver((list) =>
    tell(list.getEntries().map((one) => one.value))).observe({ type: "layout-shift", buffered: true })
    || setTimeout(() => tell([]), 1000))"""


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_jumps_when_the_page_opens(page, made, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.reload()
    page.wait_for_selector("#strip li")
    assert sum(page.evaluate(SHIFTED)) < 0.001


@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_nothing_is_wider_than_the_screen(page, made, width):
    page.set_viewport_size({"width": width, "height": 800})
    for place in ("#make", "#gallery", f"#job/{made}"):
        page.evaluate("hash => { location.hash = hash; }", place)
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_axe_finds_nothing_that_shuts_somebody_out(page, server, made, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 800})

    def check(place: str) -> None:
        page.wait_for_timeout(300)  # what fades in has another contrast
        found = axe.Axe().run(page).response["violations"]
        assert [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in found] == [], place

    check("first visit")
    choose_examples(page)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    check("make")
    for button in ("Paint where each acts", "Match regions"):
        page.click(f"text={button}")
        check(button)
        page.keyboard.press("Escape")
    for place in ("#gallery", f"#job/{made}"):
        page.evaluate("hash => { location.hash = hash; }", place)
        check(place)
    page.click("text=Numbers")
    check("numbers")
    for menu in ("Vary", "Download"):
        page.click(f"text={menu}")
        check(menu)
        page.keyboard.press("Escape")
    page.evaluate("location.hash = '#make'")
    quick(page, iterations=[100_000])
    page.click("#go")
    page.wait_for_selector("#job-status:has-text('Step')")
    check("a job that runs")
    page.click("text=Cancel")
    page.wait_for_selector("#job-status:has-text('Cancelled')")
    check("a job that was cancelled")
    mask = server.upload(drawn(5, size=(10, 90)), "mask.png").json["reference"]
    lost = server.make({**BOTH, "style_mask": [mask]})
    assert server.ended(lost)["status"] == "failed"
    page.evaluate("hash => { location.hash = hash; }", f"#job/{lost}")
    check("a job that failed")
