"""Clips as PyAV writes them, for the tests of clips, of video jobs and of the studio."""

from fractions import Fraction

import av
import numpy as np


def picture(number=0, shape=(32, 48)):
    """Return a smooth picture that moves."""
    y, x = np.mgrid[: shape[0], : shape[1]] / 16.0
    planes = [0.5 + 0.4 * np.sin(x + y * k + 0.5 * number + k) for k in range(3)]
    return np.stack(planes, -1).astype(np.float32)


def encode(
    path, frames, codec, *, times=None, base=Fraction(1, 1000), rate=25, sound=None, matrix=None, full=None
):
    """Write frames of PyAV, beside clips.write."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = frames[0].height, frames[0].width, frames[0].format.name
        stream.codec_context.time_base = base
        if matrix:
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        audio = container.add_stream(sound, rate=48000) if sound else None
        for number, frame in enumerate(frames):
            frame.pts = times[number] if times else 40 * number
            frame.time_base = base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for k in range(12 if audio else 0):
            samples = np.sin(np.arange(k * 1024, k * 1024 + 1024) / 20)[None].astype(np.float32)
            beep = av.AudioFrame.from_ndarray(samples.repeat(2, 0), "fltp", "stereo")
            beep.sample_rate, beep.pts = 48000, k * 1024
            container.mux(audio.encode(beep))
        if audio:
            container.mux(audio.encode())
    return str(path)


def rgb_frame(image):
    return av.VideoFrame.from_ndarray(np.uint8(np.round(255 * image)), "rgb24")


def packets(path):
    with av.open(path) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]


def rotated(path, degrees):
    """Write a rotation into the header of the track of an .mp4, as telephones do."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # after version, times, numbers and volume
    matrix = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    for offset, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[place + offset : place + offset + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
