"""Clips: frames, times, colors, rotation and audio are those of the file; what is no clip is one line."""

import os
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clip_files import encode, packets, picture, rgb_frame, rotated

from nst_jax import images
from nst_jax.errors import InputError
from nst_jax.video import clips
from nst_jax.video.clips import ALL, Frame, Output, Selection, probe, read

TIMES = (0, 40, 100, 130, 210, 215)  # of a variable rate, in ms
KR_KB = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}  # BT.709, BT.601, BT.2020


def simple(path, count=6, **options):
    """Return the path of a lossless clip of the drawn pictures."""
    frames = [rgb_frame(picture(n)).reformat(format="bgr0") for n in range(count)]
    return encode(path, frames, "ffv1", **options)


def written(tmp_path, source, output, selection=None, **options):
    clip, selection = probe(source), selection or ALL
    path = str(tmp_path / output)
    codec = clips.codec_of(path, options.pop("codec", ""))
    clips.write(Output(path, codec, 1), clip, read(clip, selection), selection, **options)
    return path


def test_frames_and_times_of_a_variable_rate_are_the_file_s(tmp_path):
    clip = probe(simple(tmp_path / "in.mkv", times=TIMES))
    assert (clip.size, clip.frames, clip.audio) == ((32, 48), 6, "")
    found = list(read(clip, ALL))
    assert [frame.time * clip.time_base for frame in found] == [Fraction(t, 1000) for t in TIMES]
    for number, frame in enumerate(found):
        np.testing.assert_allclose(frame.image, picture(number), atol=0.5001 / 255)


@pytest.mark.parametrize(
    ("output", "codec"), [("o.mp4", ""), ("o.mov", ""), ("o.webm", ""), ("o.mkv", "ffv1")]
)
def test_times_and_colors_are_kept_by_every_container(tmp_path, output, codec):
    source = probe(simple(tmp_path / "in.mkv", times=TIMES))
    clip = probe(written(tmp_path, source.path, output, codec=codec))
    found = list(read(clip, ALL))
    assert [frame.time * clip.time_base for frame in found] == [Fraction(t, 1000) for t in TIMES]
    # FFmpeg reads the chroma of AV1 half a column off.
    typical, bias = {"o.webm": (3, 1.5), "o.mkv": (0.3, 0.03)}.get(output, (1.2, 0.2))  # in 255ths
    for number, frame in enumerate(found):
        apart = 255 * (frame.image - picture(number))[4:-4, 4:-4]
        assert np.sqrt((apart**2).mean()) < typical
        assert abs(apart.mean()) < bias


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="needs Linux")
def test_the_av1_encoder_makes_no_thread_a_real_time_one(tmp_path):
    """It does for root, and what such a thread starts is one, too. Three of them stopped a machine for minutes."""
    source = probe(simple(tmp_path / "in.mkv"))
    policies = []

    def watched():
        for frame in read(source, ALL):
            policies.append({os.sched_getscheduler(int(task)) for task in os.listdir("/proc/self/task")})
            yield frame

    clips.write(Output(str(tmp_path / "o.webm"), "av1", 30), source, watched())
    assert len(policies) == 6
    assert set.union(*policies, {os.sched_getscheduler(0)}) == {os.SCHED_OTHER}


def test_a_constant_rate_keeps_its_rate_and_duration(tmp_path):
    times, base = [1001 * n for n in range(5)], Fraction(1, 30000)
    frames = [rgb_frame(picture(n)).reformat(format="yuv420p") for n in range(5)]
    source = encode(tmp_path / "in.mp4", frames, "libx264", times=times, base=base, rate=1 / (1001 * base))
    path = written(tmp_path, source, "o.mp4")
    assert probe(path).rate == probe(source).rate == Fraction(30000, 1001)
    assert [frame.time * probe(path).time_base for frame in read(probe(path), ALL)] == [
        t * base for t in times
    ]
    with av.open(source) as one, av.open(path) as two:
        assert one.duration == two.duration


@pytest.mark.parametrize("matrix", KR_KB)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("format", "bits"), [("yuv420p", 8), ("yuv444p", 8), ("yuv420p10le", 10), ("yuv422p10le", 10)]
)
def test_colors_follow_matrix_range_and_bits(tmp_path, rng, matrix, full, format, bits):
    """Against H.273's formulas, on plain patches, whose chroma no resampling changes."""
    unit, patches = 2 ** (bits - 8), rng.integers((60, 100, 100), (190, 156, 156), (3, 3, 3))
    codes = patches * unit + (unit > 1)
    frame = av.VideoFrame(96, 96, format)
    for number, plane in enumerate(frame.planes):
        values = np.kron(codes[..., number], np.ones((plane.height // 3, plane.width // 3)))
        padded = np.zeros((plane.height, plane.line_size * 8 // (8 if bits == 8 else 16)))
        padded[:, : plane.width] = values
        plane.update(padded.astype(np.uint8 if bits == 8 else np.uint16).tobytes())
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    path = encode(tmp_path / "in.mkv", [frame], "ffv1", matrix=matrix, full=full)
    image = next(read(probe(path), ALL)).image[16::32, 16::32]
    kr, kb = KR_KB[matrix]
    most = 2**bits - 1
    y = codes[..., 0] / most if full else (codes[..., 0] - 16 * unit) / (219 * unit)
    b_y, r_y = ((codes[..., k] - 128 * unit) / (most if full else 224 * unit) for k in (1, 2))
    red, blue = y + 2 * (1 - kr) * r_y, y + 2 * (1 - kb) * b_y
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    wanted = np.clip(np.stack([red, green, blue], -1), 0, 1)
    np.testing.assert_allclose(image, wanted, atol=(1.1 if full else 0.02) / 255)


def test_what_is_written_has_no_bias_in_any_color(rng):
    """Of FFmpeg's own conversion the mean is off by 1 of 255."""
    image = np.kron(rng.random((16, 16, 3), np.float32), np.ones((4, 4, 1), np.float32))
    luma, *chroma = clips.to_yuv420(image)
    planes = [luma, *(np.kron(plane, np.ones((2, 2))) for plane in chroma)]
    back = clips.to_rgb(np.stack(planes, -1).astype(np.float32), 1, full=False)
    apart = (back - image)[1::4, 2::4]  # far from the next patch
    assert np.abs(apart).max() < 2 / 255
    assert np.abs(apart.mean((0, 1))).max() < 0.1 / 255


def test_first_last_and_every_choose_frames_and_their_times(tmp_path):
    clip = probe(simple(tmp_path / "in.mkv", times=TIMES))
    some = list(read(clip, Selection(2, 5, 3)))
    assert [frame.time for frame in some] == [40, 210]
    np.testing.assert_allclose(some[1].image, picture(4), atol=0.5001 / 255)
    assert [
        Selection(2, 5, 3).count(6),
        Selection().count(6),
        Selection(1, 99).count(6),
        Selection(7).count(6),
    ] == [2, 6, 6, 0]
    again = probe(written(tmp_path, clip.path, "o.mkv", Selection(2, 5, 3), codec="ffv1"))
    assert [frame.time for frame in read(again, ALL)] == [0, 170]


@pytest.mark.parametrize(
    ("sound", "output"), [("aac", "o.mp4"), ("libopus", "o.webm"), ("pcm_s16le", "o.mkv"), ("flac", "o.mkv")]
)
def test_audio_packets_are_copied_to_the_byte(tmp_path, sound, output):
    source = simple(tmp_path / "in.mkv", sound=sound)
    path = written(tmp_path, source, output)
    assert packets(path) == packets(source)
    assert not probe(written(tmp_path, source, f"mute-{output}", audio=False)).audio


@pytest.mark.parametrize("fails", ["read", "write"])
def test_audio_that_cannot_be_copied_is_one_line(tmp_path, monkeypatch, fails):
    source = simple(tmp_path / "in.mkv", sound="pcm_s16le")
    clip, sound = probe(source), clips._sound
    broken = av.error.InvalidDataError(1, "it is broken")

    class Broken:
        def __init__(self, real):
            self.real, self.streams = real, real.streams

        def __getattr__(self, name):
            return getattr(self.real, name)

        def demux(self, *_):
            yield from (_ for _ in ()).throw(broken)

        def mux(self, *_):
            raise broken

    def fail(source, container, *others):
        return sound(
            *((Broken(source), container) if fails == "read" else (source, Broken(container))), *others
        )

    monkeypatch.setattr(clips, "_sound", fail)
    with pytest.raises(InputError, match=r"in.mkv: audio that can be copied, or `audio=false`; it is broken"):
        clips.write(Output(str(tmp_path / "o.mkv"), "ffv1", 0), clip, read(clip, ALL), ALL, True)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_audio_is_cut_with_the_frames(tmp_path):
    source = simple(tmp_path / "in.mkv", sound="pcm_s16le")  # 0.24 s of frames, 0.256 s of sound
    part = written(tmp_path, source, "o.mkv", Selection(3, 4))
    assert 3 <= len(packets(part)) <= 5  # 0.08 s of packets of 0.0213 s
    assert packets(part)[0] in packets(source)[3:5]


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"),
    [
        (".mp4", "libx265", "yuv420p"),
        (".mkv", "libx265", "yuv420p10le"),
        (".mov", "prores_ks", "yuv422p10le"),
        (".webm", "libvpx-vp9", "yuv420p"),
    ],
)
def test_what_cameras_and_editors_write_is_read(tmp_path, suffix, codec, pixels):
    pictures = [picture(n, (64, 96)) for n in range(6)]  # x265 spoils the heap with smaller ones
    frames = [rgb_frame(one).reformat(format=pixels) for one in pictures[:4]]
    found = list(read(probe(encode(tmp_path / f"in{suffix}", frames, codec)), ALL))
    assert len(found) == 4
    for number, frame in enumerate(found):
        assert np.abs(frame.image - pictures[number]).mean() < 0.03
        assert np.abs(frame.image - pictures[number + 2]).mean() > 0.1


@pytest.mark.parametrize(("degrees", "turns"), [(90, 3), (180, 2), (270, 1)])
def test_a_rotated_clip_is_upright(tmp_path, degrees, turns):
    """A matrix of 90 degrees shows what lies in the file turned clockwise."""
    path = tmp_path / "in.mp4"
    encode(path, [rgb_frame(picture()).reformat(format="yuv444p")], "libx264")
    plain = next(read(probe(str(path)), ALL)).image
    rotated(path, degrees)
    clip = probe(str(path))
    image = next(read(clip, ALL)).image
    assert clip.size == image.shape[:2] == np.rot90(plain, turns).shape[:2]
    np.testing.assert_array_equal(image, np.rot90(plain, turns))


def test_pixels_that_are_not_square_become_so(tmp_path):
    path = tmp_path / "in.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv444p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        container.mux(stream.encode(rgb_frame(picture()).reformat(format="yuv444p")))
        container.mux(stream.encode())
    clip = probe(str(path))
    assert clip.size == (32, 72) == next(read(clip, ALL)).image.shape[:2]


def test_png_sequences_have_a_file_for_each_frame(tmp_path):
    source = simple(tmp_path / "in.mkv", 3)
    output = tmp_path / "frames" / "x_%03d.png"
    clips.check_output(str(output), clips.codec_of(str(output), ""), "")
    written(tmp_path, source, output)
    assert sorted(path.name for path in output.parent.iterdir()) == ["x_001.png", "x_002.png", "x_003.png"]


def test_a_percent_sign_in_a_folder_s_name_is_its_own(tmp_path):
    clip = probe(simple(tmp_path / "in.mkv", 2))
    folder = tmp_path / "50%d %"
    clips.write(Output(str(folder / "f_%02d.png"), "png", 0), clip, read(clip, ALL))
    assert sorted(path.name for path in folder.iterdir()) == ["f_01.png", "f_02.png"]


def test_equal_frames_give_equal_bytes(tmp_path):
    source = simple(tmp_path / "in.mkv", sound="aac")
    for name, codec in (("a.mp4", "h264"), ("a.mkv", "ffv1"), ("a.mov", "")):
        one, two = (written(tmp_path, source, f"{k}{name}", codec=codec) for k in (1, 2))
        with open(one, "rb") as a, open(two, "rb") as b:
            assert a.read() == b.read()


def test_a_failing_frame_leaves_the_file_that_was_there(tmp_path):
    clip = probe(simple(tmp_path / "in.mkv"))
    path = tmp_path / "o.mp4"
    path.write_bytes(b"before")

    def frames():
        yield Frame(picture(), 0, 40)
        raise InputError("a", "b", "c")

    with pytest.raises(InputError):
        clips.write(Output(str(path), "h264", 12), clip, frames())
    assert path.read_bytes() == b"before"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "in.mkv", path]


def test_a_clip_that_is_cut_off_says_which_frames_are_left(tmp_path):
    whole = tmp_path / "in.mp4"
    frames = [rgb_frame(picture(n)).reformat(format="yuv420p") for n in range(6)]
    encode(whole, frames, "mpeg4")
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:-300])  # its index is at the end
    with pytest.raises(InputError, match="cut.mp4: a video that FFmpeg reads"):
        probe(str(tmp_path / "cut.mp4"))


def test_a_stream_that_is_cut_off_has_the_frames_before(tmp_path):
    whole, cut = tmp_path / "in.ts", tmp_path / "cut.ts"
    encode(
        whole,
        [rgb_frame(picture(n)).reformat(format="yuv420p") for n in range(20)],
        "mpeg2video",
        times=list(range(20)),
        base=Fraction(1, 25),
    )
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    found, expected = (list(read(probe(str(path)), ALL)) for path in (cut, whole))
    assert 2 < len(found) < len(expected) == 20
    for one, other in zip(found[:-1], expected, strict=False):
        np.testing.assert_array_equal(one.image, other.image)


def test_frames_that_are_too_large_are_not_decoded(tmp_path, monkeypatch):
    path = simple(tmp_path / "in.mkv")
    monkeypatch.setattr(clips.images, "MAX_PIXELS", 48 * 32 - 1)
    with pytest.raises(InputError, match="frames of at most 1535 pixels; they have 48x32"):
        probe(path)


def no_video(tmp_path):
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("pcm_s16le", rate=48000)
        beep = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.int16), "s16", "stereo")
        beep.sample_rate = 48000
        container.mux(audio.encode(beep))
    return path


def no_frames(tmp_path):
    path = tmp_path / "in.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = 32, 48
        container.start_encoding()
    return path


def empty(tmp_path):
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        container.start_encoding()
    return path


def unknown_codec(tmp_path):
    path = Path(simple(tmp_path / "in.mkv"))
    path.write_bytes(path.read_bytes().replace(b"V_FFV1", b"V_NONE"))
    return path


def encrypted(tmp_path):
    path = tmp_path / "in.mp4"
    keys = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    with av.open(str(path), "w", options=keys) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for number in range(3):
            container.mux(stream.encode(rgb_frame(picture(number)).reformat(format="yuv420p")))
        container.mux(stream.encode())
    return path


def text(tmp_path):
    path = tmp_path / "in.mp4"
    path.write_text("no video at all\n" * 100)
    return path


def playlist(tmp_path):
    path = tmp_path / "in.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://localhost:9/x.ts\n#EXT-X-ENDLIST\n")
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_video, "it has no video stream"),
        (no_frames, "it has no video stream"),
        (empty, "a video that FFmpeg reads; End of file"),
        (unknown_codec, "its codec is not known"),
        (encrypted, "a whole video; frame 1: "),
        (text, "a video that FFmpeg reads"),
        (playlist, "a video that FFmpeg reads"),
        (lambda folder: folder, "it is a folder"),
        (lambda folder: folder / "x.mp4", "not there"),
    ],
)  # fmt: skip
def test_what_is_no_clip_is_one_line(tmp_path, make, said):
    path = make(tmp_path)
    with pytest.raises(InputError) as caught:
        probe(str(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("output", "codec", "audio", "said"),
    [
        ("o.avi", "", "", "must end in one of"),
        ("o", "", "", "must end in one of"),
        ("o.webm", "h264", "", "an output that holds h264: .mp4 .mkv .mov"),
        ("o.mp4", "ffv1", "", "an output that holds ffv1: .mkv"),
        ("o.webm", "", "aac", "audio that .webm can hold"),
        ("o.png", "", "", "a name with the frame's number"),
        ("o_%06d.png", "h264", "", "none for PNG files"),
        ("no/o.mp4", "", "", "there is no folder"),
    ],
)
def test_an_output_that_cannot_be_is_one_line(tmp_path, output, codec, audio, said):
    path = str(tmp_path / output)
    with pytest.raises(InputError, match=said):
        clips.check_output(path, clips.codec_of(path, codec), audio)
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_frames(tmp_path):
    """Frames are made when they are asked for."""
    clip = probe(simple(tmp_path / "in.mkv", 40))
    alive, most = 0, 0

    class Counted(np.ndarray):
        def __array_finalize__(self, _):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

    def frames():
        for number in range(200):
            yield Frame(picture(number % 40), 40 * number, 40)

    made = (frame._replace(image=frame.image.view(Counted)) for frame in frames())
    clips.write(Output(str(tmp_path / "o.mkv"), "ffv1", 0), clip, made, audio=False)
    assert probe(str(tmp_path / "o.mkv")).frames == 200
    assert most < 30
    shutil.rmtree(tmp_path)


def opaque_to_the_right(levels):
    """Return a frame whose opacity rises from the left to the right."""
    return np.round(np.linspace(0, levels, 48)).repeat(32).reshape(48, 32).T.copy()


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels", "bits"),
    [
        (".mkv", "ffv1", "bgra", 8),
        (".mkv", "ffv1", "yuva420p", 8),
        (".mov", "png", "rgba", 8),
        (".mkv", "ffv1", "yuva444p10le", 10),
        (".mov", "qtrle", "argb", 8),
    ],
)
def test_the_opacity_is_read_to_the_bit_and_colors_are_on_white(tmp_path, suffix, codec, pixels, bits):
    levels = 2**bits - 1
    alpha = opaque_to_the_right(levels)
    deep = np.full((32, 48, 4), 65535 * 0.4, np.uint16)
    deep[..., 3] = alpha * 2 ** (16 - bits)
    whole = np.uint8(np.dstack([np.full((32, 48, 3), 102), alpha])) if bits == 8 else deep
    frame = av.VideoFrame.from_ndarray(whole, "rgba" if bits == 8 else "rgba64le").reformat(format=pixels)
    if pixels == "yuva420p":  # FFmpeg is off by one in it
        plane = frame.planes[3]
        plane.update(np.uint8(np.pad(alpha, [(0, 0), (0, plane.line_size - 48)])).tobytes())
    clip = probe(encode(tmp_path / f"in{suffix}", [frame], codec))
    assert clip.alpha
    (found,) = read(clip, ALL)
    np.testing.assert_allclose(found.alpha, alpha / levels, atol=1e-6)
    opacity = found.alpha[..., None]
    expected = (opacity * 0.4 + 1 - opacity).repeat(3, -1)
    np.testing.assert_allclose(found.image, expected, atol=2.5 / 255)


def test_ffv1_and_png_keep_the_opacity(tmp_path):
    alpha = np.float32(opaque_to_the_right(255) / 255)
    straight = picture()
    frame = Frame(alpha[..., None] * straight + 1 - alpha[..., None], 0, 40, alpha)
    clip = clips.Clip("", (32, 48), Fraction(1, 1000), Fraction(25), 1, "", 0)
    for name, codec in (("o.mkv", "ffv1"), ("o_%01d.png", "png")):
        clips.write(Output(str(tmp_path / name), codec, 0), clip, [frame])
    source = images.read(tmp_path / "o_1.png")
    np.testing.assert_array_equal(source.opacity, images.to_uint8(alpha))
    (found,) = read(probe(str(tmp_path / "o.mkv")), ALL)
    np.testing.assert_allclose(found.alpha, alpha, atol=1e-6)
    np.testing.assert_allclose(found.image, frame.image, atol=1 / 255)
