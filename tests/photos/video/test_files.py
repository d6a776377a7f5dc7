"""Videos read, encoded in segments and joined, with nothing restored: frames, times, colors, sound, size, turns."""

from fractions import Fraction

import av
import numpy as np
import pytest

from interlcm_jax.photos.video.clip import read_clip
from interlcm_jax.photos.video.encode import Encoder, Encoding, Packets, result_size
from interlcm_jax.photos.video.frames import read_frames
from interlcm_jax.photos.video.join import decoding_times, join
from tests.photos.video.clips import content, pictures, write_clip

COUNT, PART = 12, 5
VARIABLE = [0, 40, 90, 95, 200, 333, 334, 400, 401, 777, 1500, 1503]
BT709_FULL = (1, 2, 1, 1)


def through(source, target, encoder=None, crf=4, part=PART):
    """Encodes a video in segments and joins them; the clip and its frames."""
    clip, encoding = read_clip(source), Encoding(encoder, crf).resolved(target)
    size, frames = result_size(clip, encoding, 1), list(read_frames(clip))
    files = []
    for first in range(0, len(frames), part):
        made = Encoder(clip, encoding, size)
        for frame in frames[first : first + part]:
            made.add(frame.pixels, frame.pts)
        files.append(target.with_name(f"{first}.npz"))
        made.finish().write(files[-1])
    join(clip, target, encoding, size, files)
    return clip, frames


@pytest.mark.parametrize(
    ("name", "result", "given"),
    [
        ("a.mp4", "b.mp4", {"sound": True}),
        ("a.mp4", "b.mp4", {"pts": VARIABLE}),
        ("a.mkv", "b.mkv", {"sound": True, "pts": VARIABLE}),
        ("a.mov", "b.mov", {"pix_fmt": "yuv444p", "sound": True}),
        ("a.webm", "b.webm", {"codec": "libvpx-vp9"}),
        ("a.avi", "b.mkv", {"codec": "mpeg4", "options": {"qscale": "1"}}),
    ],
)
def test_frames_times_and_sound_stay(tmp_path, name, result, given):
    source, target = write_clip(tmp_path / name, pictures(COUNT), **given), tmp_path / result
    through(source, target)
    before, after = content(source), content(target)
    assert after.times == before.times
    assert len(after.frames) == COUNT
    assert np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(after.frames, before.frames, strict=True)]) < 2
    assert after.packets == before.packets
    assert bool(after.packets) == given.get("sound", False)
    # Once more gives the same file: no time of day, no random number.
    again = target.with_name(f"again{target.suffix}")
    through(source, again)
    assert again.read_bytes() == target.read_bytes()


@pytest.mark.parametrize("colors", [BT709_FULL, (1, 1, 1, 1), (6, 1, 6, 6), (5, 2, 5, 6), (9, 1, 9, 14)])
def test_colors_come_through_by_the_clips_own_matrix_and_range(tmp_path, colors):
    # Even colors, which no subsampling touches.
    frames = [np.full((32, 32, 3), color, np.uint8) for color in ((200, 40, 60), (30, 170, 220), (128, 128, 128))]
    clip_frames = []
    for pixels in frames:
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame = frame.reformat(
            format="yuv420p", dst_colorspace={6: 5, 5: 5}.get(colors[0], colors[0]), dst_color_range=colors[1]
        )
        clip_frames.append(frame)
    source, target = tmp_path / "a.mp4", tmp_path / "b.mp4"
    with av.open(str(source), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width = stream.height = 32
        context = stream.codec_context
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = colors
        for frame in clip_frames:
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    clip, read = through(source, target, crf=1)
    found = read_clip(target)
    assert found.colors == clip.colors
    assert (found.colors.matrix, found.colors.range) == colors[:2]
    for wanted, frame, after in zip(frames, read, read_frames(found), strict=True):
        assert np.abs(frame.pixels.astype(int) - wanted).max() <= 3
        assert np.abs(after.pixels.astype(int) - frame.pixels).max() <= 2


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_frames_are_upright(tmp_path, turn):
    frames = pictures(3)
    frames = [np.ascontiguousarray(np.rot90(pixels, -turn // 90)) for pixels in frames]
    source = write_clip(tmp_path / "a.mp4", frames, rotation=turn, aspect=Fraction(4, 3))
    clip, read = through(source, tmp_path / "b.mp4")
    assert (clip.width, clip.height) == (96, 64)
    for upright, frame, after in zip(pictures(3), read, content(tmp_path / "b.mp4").frames, strict=True):
        assert np.abs(frame.pixels.astype(int) - upright).mean() < 4
        assert np.abs(after.astype(int) - upright).mean() < 4
    result = read_clip(tmp_path / "b.mp4")
    assert result.matrix == (1, 0, 0, 1)
    assert result.pixel_aspect == (Fraction(4, 3) if turn == 180 else Fraction(3, 4))


@pytest.mark.parametrize(("codec", "result", "size"), [("ffv1", "b.mkv", (98, 64)), ("libvpx-vp9", "b.webm", (97, 63))])
def test_odd_sizes(tmp_path, codec, result, size):
    source = write_clip(tmp_path / f"a{result[1:]}", pictures(3, 97, 63), codec=codec)
    _, read = through(source, tmp_path / result)
    after = content(tmp_path / result).frames
    assert after[0].shape == (*size[::-1], 3)
    assert np.mean([np.abs(b[:63, :97].astype(int) - a.pixels).mean() for a, b in zip(read, after, strict=True)]) < 3
    assert np.abs(after[0][-1].astype(int) - after[0][62]).mean() < 3


def test_h265_in_mp4_has_the_tag_that_players_want(tmp_path):
    source = write_clip(tmp_path / "a.mp4", pictures(3))
    through(source, tmp_path / "b.mp4", "libx265")
    with av.open(str(tmp_path / "b.mp4")) as file:
        assert file.streams.video[0].codec_tag == "hvc1"


def test_subtitles_chapters_and_tags_stay(tmp_path):
    source = write_clip(tmp_path / "plain.mkv", pictures(COUNT), sound=True)
    lines = tmp_path / "lines.srt"
    lines.write_text("1\n00:00:00,040 --> 00:00:00,240\nHallo\n")
    rich = tmp_path / "a.mkv"
    with av.open(str(source)) as old, av.open(str(lines)) as text, av.open(str(rich), "w") as new:
        streams = [*old.streams, *text.streams]
        copies = {stream: new.add_stream_from_template(stream, opaque=True) for stream in streams}
        copies[text.streams[0]].metadata["language"] = "deu"
        new.metadata["title"] = "Ferien"
        chapter = {"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "Anfang"}}
        new.set_chapters([chapter])
        for packet in (*text.demux(), *old.demux()):
            if packet.size:
                packet.stream = copies[packet.stream]
                new.mux(packet)
    through(rich, tmp_path / "b.mkv")
    assert content(tmp_path / "b.mkv").packets == content(rich).packets
    assert content(rich).packets["subtitle"] == [(Fraction(40, 1000), b"Hallo")]
    with av.open(str(tmp_path / "b.mkv")) as file:
        assert file.metadata["title"] == "Ferien"
        assert file.streams.subtitles[0].language == "deu"
        assert [(one["start"], one["metadata"]["title"]) for one in file.chapters()] == [(0, "Anfang")]


def test_decoding_times_grow_and_never_come_after_showing():
    shown = np.array([0, 40, 90, 95, 200, 333, 334, 400, 401, 777])
    coded = shown[[0, 3, 1, 2, 4, 7, 5, 6, 9, 8]]
    times = decoding_times(coded)
    assert (np.diff(times) > 0).all()
    assert (times <= coded).all()
    assert decoding_times(shown).tolist() == shown.tolist()


def test_packets_are_kept(tmp_path):
    packets = Packets(np.arange(7, dtype=np.uint8), np.array([3, 4]), np.array([0, 1]), np.array([True, False]))
    packets.write(tmp_path / "a.npz")
    assert all(
        np.array_equal(getattr(packets, name), getattr(Packets.read(tmp_path / "a.npz"), name))
        for name in ("data", "sizes", "pts", "keys")
    )
