"""The studio's routes, and the server that answers them."""

import asyncio
import contextlib
import hashlib
import json
import re
import secrets
import shutil
import socket
import tempfile
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import nst_jax
from nst_jax import images
from nst_jax.config import DEFAULT
from nst_jax.errors import InputError, NotWritten
from nst_jax.files import write_whole
from nst_jax.studio import recipes
from nst_jax.studio.options import MB, StudioOptions
from nst_jax.studio.recipes import MAX_TITLE_LETTERS, parse_recipe
from nst_jax.studio.security import Guard
from nst_jax.studio.store import LIVE, THUMB, Record, Store, write_private
from nst_jax.studio.studio import STOPS, Refused, Studio

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}
MAX_JSON_BYTES = 2**18
MAX_NAME_LETTERS = 100  # letters of a file's name, as it is shown
MAX_STEPS = 10**6  # by which a job is extended
MAX_FRAMES = 10**6  # of a clip, that one can choose from
FORMATS = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "tif": "image/tiff"}
MP4 = "video/mp4"
PHOTOGRAPHS, PAINTINGS = ("cat", "coffee", "rocket"), ("night", "waves", "glass", "ink")
ENTRY = "open.html"  # in the studio's folder
STOP_SECONDS = 0.2  # between looks at whether the studio is to end

Handler = Callable[["Routes", Request], Awaitable[Response]]


def told(handler: Handler) -> Handler:
    """Answer with one line what a request has wrong."""

    async def answer(routes: "Routes", request: Request) -> Response:
        try:
            return await handler(routes, request)
        except NotWritten as error:
            return JSONResponse({"error": routes.studio.store.readable(str(error))}, 507)
        except (InputError, Refused) as error:
            return JSONResponse({"error": routes.studio.store.readable(str(error))}, 400)
        except ClientDisconnect:
            return Response(status_code=400)
        except asyncio.CancelledError:  # of those who still wait when the server stops
            return JSONResponse({"error": "the studio has been stopped"}, 503)
        except OSError as error:
            return JSONResponse({"error": f"the disk: {error.strerror}"}, 507)

    return answer


class Routes:
    """What the page may ask."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self.files = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in TYPES}
        self.looking = asyncio.Lock()

    def app(self) -> Starlette:
        """Return the application without its guard."""
        named: list[tuple[str, str, Handler]] = [
            ("GET", "/", Routes.page),
            ("GET", "/static/{name}", Routes.static),
            ("GET", "/api/about", Routes.about),
            ("GET", "/api/events", Routes.events),
            ("POST", "/api/pictures", Routes.upload),
            ("GET", "/api/pictures/{reference}/{what}", Routes.picture),
            ("POST", "/api/clips", Routes.upload_clip),
            ("POST", "/api/clips/{reference}/frame", Routes.frame),
            ("POST", "/api/forecast", Routes.forecast),
            ("POST", "/api/jobs", Routes.create),
            ("GET", "/api/jobs/{job}", Routes.job),
            ("POST", "/api/jobs/{job}/{action}", Routes.act),
            ("DELETE", "/api/jobs/{job}", Routes.delete),
            ("GET", "/api/jobs/{job}/{what}", Routes.file),
        ]
        routes = [Route(path, self._bound(handler), methods=[method]) for method, path, handler in named]
        app = Starlette(routes=routes, lifespan=self.lifespan)
        app.router.redirect_slashes = False
        return app

    def _bound(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return await told(handler)(self, request)

        return answer

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Have the processes as long as the server runs."""
        self.studio.start()
        yield
        await self.studio.stop()

    async def page(self, _: Request) -> Response:
        """Answer with the page."""
        return Response(self.files["index.html"], media_type=TYPES[".html"])

    async def static(self, request: Request) -> Response:
        """Answer with a file of the page."""
        name = request.path_params["name"]
        if name not in self.files:
            raise HTTPException(404)
        return Response(
            self.files[name], media_type=TYPES[Path(name).suffix], headers={"Cache-Control": "no-cache"}
        )

    async def about(self, _: Request) -> Response:
        """Answer with what the page is built from: options, presets, examples, limits, and how all stands."""
        options = self.studio.options
        return JSONResponse(
            {
                **recipes.metadata(),
                "version": nst_jax.__version__,
                "photographs": [f"{images.EXAMPLE}{name}" for name in PHOTOGRAPHS],
                "paintings": [f"{images.EXAMPLE}{name}" for name in PAINTINGS],
                "max_upload": options.max_upload * MB,
                "max_styles": recipes.MAX_STYLES,
                "now": self._now(),
            }
        )

    # Pictures

    async def upload(self, request: Request) -> Response:
        """Keep a picture that was sent as the body, once it was read."""
        return JSONResponse(await self._keep(request.stream(), _name_in(request)))

    async def upload_clip(self, request: Request) -> Response:
        """Keep a clip that was sent as the body, once it was read."""
        return JSONResponse(await self._keep(request.stream(), _name_in(request), "look_at_clip"))

    async def frame(self, request: Request) -> Response:
        """Keep a frame of a clip as a picture."""
        store, reference = self.studio.store, request.path_params["reference"]
        number = _whole(await self._json(request), "number", MAX_FRAMES)
        with tempfile.TemporaryDirectory() as folder:  # after a kill nothing is left among the pictures
            to = Path(folder) / "frame.png"
            await self.studio.read("frame", store.picture(reference), number=number, to=str(to))
            name = f"{store.facts(reference).get('name', '')} {number}.png"
            return JSONResponse(await self._keep(_bytes(to), name))

    async def _keep(self, parts: AsyncIterator[bytes], name: str, look: str = "look") -> dict[str, Any]:
        """Keep a file, once it was read, and return what is known of it.

        Args:
            parts: What it consists of.
            name: What people call it.
            look: What the reader does with it.

        Raises:
            Refused: The reader cannot read it.
            InputError: It is too large, or the disk too full.
        """
        store = self.studio.store
        store.check_space(self.studio.options.max_upload * MB)
        arriving = store.pictures / f".nst_jax-{secrets.token_hex(8)}.tmp"
        try:
            reference = await self._receive(parts, arriving)
            facts = await self._look(reference, arriving, name, look)
            arriving.replace(store.pictures / reference)
        finally:
            arriving.unlink(missing_ok=True)
        return self._facts(reference, facts)

    async def _receive(self, parts: AsyncIterator[bytes], path: Path) -> str:
        """Write bytes to a file, and return its checksum. Raises InputError where it is too large."""
        digest, size, most = hashlib.sha256(), 0, self.studio.options.max_upload * MB
        with path.open("xb") as file:
            async for part in parts:
                size += len(part)
                if size > most:
                    raise InputError("this file", f"at most {most // MB} MB", "it is larger")
                digest.update(part)
                file.write(part)
        return digest.hexdigest()

    async def _look(self, reference: str, file: Path, name: str, look: str = "look") -> dict[str, Any]:
        """Have a file read, and keep what is seen.

        Args:
            reference: What it will be known by.
            file: Where it is.
            name: What people call it.
            look: What the reader does with it.

        Raises:
            Refused: The reader cannot read it.
        """
        pictures = self.studio.store.pictures
        base = pictures / reference.replace(":", "-")
        facts = await self.studio.read(
            look,
            file,
            view=f"{base}.view.jpg",
            thumb=f"{base}.thumb.jpg",
            max_pixels=self.studio.options.max_pixels,
        )
        facts["name"] = name or f"{reference[:12]}"
        write_whole(Path(f"{base}.json"), json.dumps(facts).encode())
        return facts

    def _facts(self, reference: str, facts: dict[str, Any]) -> dict[str, Any]:
        """Return what the page is told of a picture: with the recipe that its settings are."""
        found = {name: facts.get(name) for name in ("width", "height", "name", "notes", "frames", "rate")}
        if text := facts.get("settings"):
            try:
                recipe = recipes.restore(text, self.studio.store.known)
                missing = dict.fromkeys(map(self.studio.store.readable, recipe["missing"]))
                found["recipe"] = {**recipe, "missing": list(missing)}
            except InputError as error:
                found["notes"] = [*(facts.get("notes") or []), str(error)]
        return {"reference": reference, **found}

    async def picture(self, request: Request) -> Response:
        """Answer with a picture as the page shows it, or what is known of it."""
        reference, what = request.path_params["reference"], request.path_params["what"]
        store = self.studio.store
        path = store.picture(reference)
        async with self.looking:
            if not store.beside(reference, ".json").exists():  # an example that nobody has looked at
                await self._look(reference, path, reference)
        if what == "facts":
            return JSONResponse(self._facts(reference, store.facts(reference)))
        if what not in ("view.jpg", "thumb.jpg"):
            raise HTTPException(404)
        forever = {"Cache-Control": "private, max-age=31536000, immutable"}
        return FileResponse(store.beside(reference, f".{what}"), headers=forever)

    # Jobs

    async def create(self, request: Request) -> Response:
        """Queue a job."""
        recipe = parse_recipe(await self._json(request))
        return JSONResponse(self._summary(self.studio.create(recipe)), 201)

    async def forecast(self, request: Request) -> Response:
        """Answer with what a job would take."""
        return JSONResponse(await self.studio.forecast(parse_recipe(await self._json(request))))

    async def job(self, request: Request) -> Response:
        """Answer with all that is known of a job."""
        record = self.studio.get(request.path_params["job"])
        recipe, platform = record.recipe, self.studio.device.get("platform", "cpu")
        return JSONResponse(
            {
                **self._summary(record),
                "inputs": record.inputs,
                "options": recipe.options,
                "measures": record.measures,
                "history": self.studio.store.history(record),
                "command": recipes.command(recipe, self._name, platform),
            }
        )

    def _name(self, reference: str) -> str:
        """Return what people call a picture."""
        return str(self.studio.store.facts(reference).get("name") or reference)

    async def act(self, request: Request) -> Response:
        """Do something with a job."""
        studio, action = self.studio, request.path_params["action"]
        record = studio.get(request.path_params["job"])
        if action in STOPS:
            studio.end(record, action)
        elif action == "carry_on":
            studio.carry_on(record)
        elif action == "extend":
            studio.carry_on(record, _whole(await self._json(request), "steps", MAX_STEPS))
        elif action == "front":
            studio.to_front(record)
        elif action == "judge":
            await studio.judge(record)
        elif action == "as_picture":
            return JSONResponse(
                await self._keep(_bytes(studio.store.result(record)), file_name(record, "png"))
            )
        elif action == "rename":
            title = (await self._json(request)).get("title")
            if not isinstance(title, str) or len(title) > MAX_TITLE_LETTERS:
                raise InputError("title", f"a text of at most {MAX_TITLE_LETTERS} letters", "got another")
            record.title = title
            studio.changed(record)
        else:
            raise HTTPException(404)
        return JSONResponse(self._summary(record))

    async def delete(self, request: Request) -> Response:
        """Remove a job."""
        self.studio.delete(self.studio.get(request.path_params["job"]))
        return JSONResponse({})

    async def file(self, request: Request) -> Response:
        """Answer with a picture of a job: as it stands, small, or for keeps in one of FORMATS; or a clip."""
        store, what = self.studio.store, request.path_params["what"]
        record = self.studio.get(request.path_params["job"])
        if what in (LIVE, THUMB):
            try:  # at once, as the next one may take its place
                data = (store.place_of(record.id) / what).read_bytes()
            except FileNotFoundError:
                raise HTTPException(404) from None
            kept = {"Cache-Control": "private, max-age=31536000"}
            return Response(data, media_type=TYPES[".jpg"], headers=kept)
        result, suffix = store.result(record), what.removeprefix("download.")
        if result and record.inputs.get("clip") and what in ("clip.mp4", "download.mp4"):
            name = file_name(record, suffix) if what != "clip.mp4" else None
            return FileResponse(result, media_type=MP4, filename=name)
        if result is None or record.inputs.get("clip") or suffix not in FORMATS:
            raise HTTPException(404)
        copy = result.with_name(f"download.{suffix}")
        if not copy.exists() or copy.stat().st_mtime < result.stat().st_mtime:
            await self.studio.read("convert", result, to=str(copy), max_pixels=2**40)
        return FileResponse(copy, media_type=FORMATS[suffix], filename=file_name(record, suffix))

    async def events(self, _: Request) -> Response:
        """Answer with a stream of what happens: first all jobs, then each that changes."""
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[str]:
        yield f"retry: 1000\nevent: all\ndata: {json.dumps(self._now())}\n\n"
        async for changed in self.studio.watch():
            if not changed:
                yield f"event: state\ndata: {json.dumps(self._state())}\n\n"
            for job in changed:
                record = self.studio.jobs.get(job)
                kind, data = ("job", self._summary(record)) if record else ("gone", {"id": job})
                yield f"event: {kind}\ndata: {json.dumps(data)}\n\n"

    def _now(self) -> dict[str, Any]:
        return {"jobs": [self._summary(record) for record in self.studio.jobs.values()], **self._state()}

    def _state(self) -> dict[str, Any]:
        free = shutil.disk_usage(self.studio.store.folder).free // MB
        return {"device": self.studio.device, "broken": self.studio.broken, "free": free}

    def _summary(self, record: Record) -> dict[str, Any]:
        names = (
            *("id", "title", "created", "order", "status", "error", "notes", "plan", "iterations", "step"),
            *("left", "pace", "memory", "pixels", "losses", "picture", "resumable"),
        )
        shown = {name: getattr(record, name) for name in names}
        inputs = {name: record.inputs.get(name) for name in ("content", "clip", "style")}
        preset = record.options.get("preset", DEFAULT)
        return {**shown, **inputs, "preset": preset, "result": self.studio.store.result(record) is not None}

    async def _json(self, request: Request) -> dict[str, Any]:
        """Return the body. Raises InputError where it is no JSON object, or too long."""
        data = b""
        async for part in request.stream():
            data += part
            if len(data) > MAX_JSON_BYTES:
                raise InputError("the request", f"at most {MAX_JSON_BYTES} bytes", "it is longer")
        try:
            found = json.loads(data)
            json.dumps(found, ensure_ascii=False).encode()  # half a character cannot be told again
        except (ValueError, RecursionError) as error:
            raise InputError("the request", "must be JSON", str(error)[:80]) from None
        if not isinstance(found, dict):
            raise InputError("the request", "a JSON object", f"got {type(found).__name__}")
        return found


def _name_in(request: Request) -> str:
    name = request.query_params.get("name", "")[:MAX_NAME_LETTERS]
    return "".join(c for c in name if c.isprintable())


def file_name(record: Record, suffix: str) -> str:
    """Return what a job's picture is called where people keep it."""
    stem = re.sub(r"\W+", "-", record.title).strip("-") or "picture"
    return f"{stem}.{suffix}"


async def _bytes(path: Path | None) -> AsyncIterator[bytes]:
    """Yield what a job's picture consists of. Raises InputError where there is none."""
    if path is None:
        raise InputError("job", "one that has a picture", "it has none yet")
    with path.open("rb") as file:
        while part := file.read(2**20):
            yield part


def _whole(data: dict[str, Any], name: str, most: int) -> int:
    value = data.get(name)
    if type(value) is not int or not 1 <= value <= most:
        raise InputError(f"`{name}`", f"a whole number from 1 to {most}", f"got {str(value)[:60]}")
    return value


def listen(options: StudioOptions) -> socket.socket:
    """Return the socket that the studio listens at. Raises InputError."""
    try:
        family = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((options.host, options.port))
    except OSError as error:
        what = f"`host={options.host}` `port={options.port}`"
        reason = error.strerror or str(error)
        raise InputError(what, "an address that is free; `port=0` finds one", reason) from error
    return found


class Server(uvicorn.Server):
    """A server that leaves signals to the launcher."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def serve(options: StudioOptions, told: Callable[[str], object], stop: Callable[[], object]) -> int:
    """Run the studio until it is told to stop; return how many jobs wait in its folder.

    Args:
        options: where, and its limits.
        told: called with the address, the token in it.
        stop: asked again and again.

    Raises:
        InputError: the folder or the address cannot be had.
    """
    store = Store(Path(options.folder).expanduser().absolute(), options.keep_free)
    with contextlib.closing(store), listen(options) as found:
        port = found.getsockname()[1]
        host = f"[{options.host}]" if ":" in options.host else options.host
        address = f"http://{host}:{port}/?token={store.token}"
        studio = Studio(store, options)
        app = Guard(Routes(studio).app(), store.token, options.host, port)
        with _entry(store.folder, address) if options.open else contextlib.nullcontext("") as entry:
            asyncio.run(_serve(app, found, entry, lambda: told(address), stop))
        return sum(record.status == "queued" for record in studio.jobs.values())


@contextlib.contextmanager
def _entry(folder: Path, address: str) -> Iterator[str]:
    """Yield the URL of a file that leads to the address, whose token no command line is to show.

    Args:
        folder: Where the file is, for its owner alone, until the block ends.
        address: The studio's.

    Raises:
        InputError: It cannot be written.
    """
    path = folder / ENTRY
    try:
        write_private(path, f'<!doctype html><meta http-equiv="refresh" content="0;url={address}">\n')
    except OSError as error:
        raise InputError(str(path), "must be a file that can be written", str(error)) from error
    try:
        yield path.as_uri()
    finally:
        path.unlink(missing_ok=True)


async def _serve(
    app: Guard,
    found: socket.socket,
    entry: str,
    told: Callable[[], object],
    stop: Callable[[], object],
) -> None:
    config = uvicorn.Config(
        app,
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    task = asyncio.create_task(server.serve(sockets=[found]))
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    told()
    if entry:
        await asyncio.to_thread(webbrowser.open, entry)
    while not stop() and not task.done():
        await asyncio.sleep(STOP_SECONDS)
    server.should_exit = True
    await task
