"""Videos that can't be restored: each is refused with a message that names the file and says why."""

import av
import numpy as np
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.photos.video.clip import read_clip
from interlcm_jax.photos.video.encode import Encoding
from interlcm_jax.photos.video.frames import read_frames
from tests.photos.video.clips import pictures, write_clip

ENCRYPTION = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}


def test_hdr(tmp_path):
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        path = write_clip(tmp_path / f"{name}.mp4", pictures(2), pix_fmt="yuv420p10le", colors=(9, 1, 9, transfer))
        with pytest.raises(InterLCMError, match=rf"{name}\.mp4: HDR video \({name}\)"):
            read_clip(path)


def test_ten_bits_of_standard_range_become_eight(tmp_path):
    path = write_clip(tmp_path / "a.mp4", pictures(2), pix_fmt="yuv420p10le")
    [first, _] = read_frames(read_clip(path))
    assert np.abs(first.pixels.astype(int) - pictures(1)[0]).mean() < 3


def test_encrypted(tmp_path):
    path = write_clip(tmp_path / "a.mp4", pictures(2), container=ENCRYPTION)
    with pytest.raises(InterLCMError, match=r"a\.mp4: the video is encrypted"):
        read_clip(path)


def test_cut_off(tmp_path):
    whole = write_clip(tmp_path / "a.mp4", pictures(12), container={"movflags": "+faststart"}).read_bytes()
    (tmp_path / "end.mp4").write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(InterLCMError, match=r"end\.mp4: the file is cut off: \d+ of at least \d+ bytes"):
        read_clip(tmp_path / "end.mp4")
    (tmp_path / "index.mp4").write_bytes(write_clip(tmp_path / "b.mp4", pictures(12)).read_bytes()[:-900])
    with pytest.raises(InterLCMError, match=r"index\.mp4: .*or the file is cut off"):
        read_clip(tmp_path / "index.mp4")


def test_a_matroska_that_is_cut_off_has_the_frames_that_are_there(tmp_path):
    whole = write_clip(tmp_path / "a.mkv", pictures(12)).read_bytes()
    (tmp_path / "b.mkv").write_bytes(whole[: len(whole) // 2])
    assert 0 < len(list(read_frames(read_clip(tmp_path / "b.mkv")))) < 12


def test_no_video(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("<html>404</html>")
    with av.open(str(tmp_path / "sound.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=48000)
        part = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        part.sample_rate = 48000
        file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    for name, message in (
        ("empty", "the file is empty"),
        ("text", "not a video that can be read"),
        ("sound", "no video in this file, only sound"),
        ("absent", "no such file"),
    ):
        with pytest.raises(InterLCMError, match=rf"{name}\.mp4: {message}"):
            read_clip(tmp_path / f"{name}.mp4")


def test_a_header_without_frames(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        file.start_encoding()
    with pytest.raises(InterLCMError, match=r"a\.mkv: "):
        read_clip(path)


def test_encodings_that_do_not_exist(tmp_path):
    with pytest.raises(InterLCMError, match="video encoder is 'mpeg2', but must be one of libx264, libx265"):
        Encoding("mpeg2")
    with pytest.raises(InterLCMError, match="video crf is -1"):
        Encoding(crf=-1)
    with pytest.raises(InterLCMError, match="video crf is 60, but libx264 takes 0 to 51"):
        Encoding(crf=60).resolved(tmp_path / "a.mp4")
    with pytest.raises(InterLCMError, match=r"a\.webm: WebM doesn't hold what libx264 makes"):
        Encoding("libx264").resolved(tmp_path / "a.webm")
    assert Encoding().resolved(tmp_path / "a.webm") == Encoding("libvpx-vp9", 24)
