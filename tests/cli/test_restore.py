"""`interlcm restore --aligned` in process: what becomes of files and folders, and what the options do."""

import json

import numpy as np
import pytest
from PIL import Image

from interlcm_jax import InterLCM
from tests.cli.aligned_faces import answering, assert_restored, face, names, restore

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_folders_keep_their_structure_and_files_go_to_the_top(model, tmp_path, capsys):
    folder = tmp_path / "in"
    face(folder / "a.png", 1)
    face(folder / "sub" / "deeper" / "a.jpg", 2)
    face(folder / "sub" / "b.WEBP", 3)
    (folder / "sub" / "notes.txt").write_text("not an image")
    face(tmp_path / "single.bmp", 4)
    assert restore(model, folder, tmp_path / "single.bmp", "-o", tmp_path / "out") == 0
    assert names(tmp_path / "out") == ["a.png", "single.png", "sub/b.png", "sub/deeper/a.png"]
    for source, target in (
        (folder / "a.png", "a.png"),
        (folder / "sub" / "deeper" / "a.jpg", "sub/deeper/a.png"),
        (folder / "sub" / "b.WEBP", "sub/b.png"),
        (tmp_path / "single.bmp", "single.png"),
    ):
        assert_restored(source, tmp_path / "out" / target)
    output = capsys.readouterr()
    assert "restored 4 of 4 images" in output.out
    assert "failed: " not in output.err


def test_the_same_name_in_two_inputs_costs_neither(model, tmp_path):
    sources = [face(tmp_path / name, seed) for seed, name in enumerate(["x/a.png", "y/a.png", "x/a.jpg", "x/a_2.png"])]
    assert restore(model, *sources, "-o", "out") == 0
    assert names(tmp_path / "out") == ["a.png", "a_2.png", "a_2_2.png", "a_3.png"]
    for source, target in zip(sources, ["a.png", "a_2.png", "a_3.png", "a_2_2.png"], strict=True):
        assert_restored(source, tmp_path / "out" / target)


@pytest.mark.parametrize(
    ("name", "size", "mode"),
    [
        ("odd.png", (71, 53), "RGB"),
        ("tiny.png", (1, 1), "RGB"),
        ("gray.png", (64, 64), "L"),
        ("alpha.png", (64, 64), "RGBA"),
        ("palette.png", (64, 64), "P"),
        ("two words & more (1).png", (64, 64), "RGB"),
        ("Grüße 顔 🙂.png", (64, 64), "RGB"),
        (".hidden.png", (64, 64), "RGB"),
        ("two.dots.png", (64, 64), "RGB"),
    ],
)
def test_pictures_of_every_kind_and_name(model, tmp_path, name, size, mode):
    source = face(tmp_path / "in" / name, 7, size, mode)
    assert restore(model, source, "-o", "out") == 0
    assert names(tmp_path / "out") == [name]
    assert_restored(source, tmp_path / "out" / name)


def test_options_reach_the_model(model, tmp_path, monkeypatch):
    seen = answering(monkeypatch, lambda face: face)
    loaded = []
    original = InterLCM.from_pretrained.__func__

    def from_pretrained(cls, folder, dtype, **options):
        loaded.append((folder, dtype))
        return original(cls, folder, dtype, **options)

    monkeypatch.setattr(InterLCM, "from_pretrained", classmethod(from_pretrained))
    options = [
        "--seed",
        5,
        "--color-fix",
        "adain",
        "--num-network-calls",
        1,
        "--batch-size",
        2,
        "--fidelity",
        0.25,
        "--vae-slice",
        1,
    ]
    faces = [face(tmp_path / f"{name}.png") for name in "ab"]
    assert restore(model, *faces, "-o", "out", *options, "--dtype", "bfloat16") == 0
    arguments = {"seed": 5, "color_fix": "adain", "num_network_calls": 1, "fidelity": 0.25, "vae_slice": 1}
    assert (seen, loaded) == ([arguments | {"batch_size": 2}], [(model, "bfloat16")])
    # A batch of more than there are images would only be padding.
    assert restore(model, faces[0], "-o", "out", *options) == 0
    assert seen[-1] == arguments | {"batch_size": 1}


def test_the_batch_size_changes_no_picture(model, tmp_path):
    for i in range(4):
        face(tmp_path / "in" / f"{i}.png", i)
    for size in (1, 3):
        assert restore(model, "in", "-o", f"out{size}", "--batch-size", size) == 0
    assert names(tmp_path / "out1") == names(tmp_path / "out3") == [f"{i}.png" for i in range(4)]
    for i in range(4):
        alone, batched = (np.asarray(Image.open(tmp_path / f"out{size}" / f"{i}.png"), int) for size in (1, 3))
        assert np.abs(alone - batched).max() <= 1


def test_the_summary_as_json(model, tmp_path, capsys):
    good = [face(tmp_path / f"{name}.png", 1) for name in ("done", "there")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "there.png").write_text("done before")
    assert restore(model, *good, "missing.png", "-o", "out", "--skip-existing", "--json") == 1
    summary = json.loads(capsys.readouterr().out)
    assert summary.pop("seconds") > 0
    assert summary == {
        "restored": [{"input": str(good[0]), "output": "out/done.png", "faces": 1}],
        "no_face": [],
        "failed": [{"input": "missing.png", "error": "missing.png: no such file"}],
        "skipped": [{"input": str(good[1]), "output": "out/there.png"}],
    }


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tiff"])
def test_other_formats(model, tmp_path, suffix):
    source = face(tmp_path / "a.png", 1)
    assert restore(model, source, "-o", "out", "--format", suffix) == 0
    assert names(tmp_path / "out") == [f"a.{suffix}"]
    with Image.open(tmp_path / "out" / f"a.{suffix}") as image:
        assert image.format == {"jpg": "JPEG"}.get(suffix, suffix.upper())


def test_near_gray_faces_keep_their_tint(model, tmp_path):
    sepia = tmp_path / "sepia.png"
    gray = np.random.default_rng(0).integers(40, 200, (8, 8, 1), np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(gray + np.array([20, 10, 0], np.uint8)).save(sepia)
    colors = {}
    for policy in ("auto", "keep", "color"):
        assert restore(model, sepia, "-o", policy, "--gray", policy) == 0
        colors[policy] = np.asarray(Image.open(tmp_path / policy / "sepia.png"), int)
    np.testing.assert_array_equal(colors["auto"], colors["keep"])
    inside = ((colors["keep"] > 0) & (colors["keep"] < 255)).all(axis=-1)
    assert inside.mean() > 0.5
    assert np.abs(colors["keep"][inside][:, 0] - colors["keep"][inside][:, 2] - 20).max() <= 1
    assert np.ptp(colors["color"][..., 0] - colors["color"][..., 2]) > 100
