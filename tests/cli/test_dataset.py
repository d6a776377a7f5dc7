"""`interlcm dataset`: its options, its exit codes and what it says."""

import pytest

from interlcm_jax.cli.main import main
from interlcm_jax.data.sources import Built, Folder, Pairs
from tests.data.faces import write_faces


@pytest.fixture
def faces(tmp_path):
    folder = tmp_path / "faces"
    write_faces(folder, 6)
    return folder


def run(faces, out, *options):
    return main(["dataset", str(faces), "-o", str(out), "--size", "64", *options])


def test_training_set_and_held_out_faces_share_the_folder_out(faces, tmp_path, capsys):
    assert run(faces, tmp_path / "train", "--exclude-last", "2") == 0
    assert run(faces, tmp_path / "test", "--only-last", "2", "--frozen") == 0
    printed = capsys.readouterr()
    assert "train: 4 faces of 64 pixels" in printed.out
    assert "test: 2 pairs of 64 pixels" in printed.out
    assert "4/4" in printed.err
    train, test = Built.open(tmp_path / "train", 64), Pairs.open(tmp_path / "test", 64)
    assert [train.name(i) for i in range(4)] == [f"00{i}.png" for i in range(4)]
    assert test.names == ("004", "005")


def test_frozen_degradations(faces, tmp_path):
    of_draws = ("release", "release-256", "harsh", "difface")
    for name in (*of_draws, "gray", "strokes"):
        assert run(faces, tmp_path / name, "--frozen", "--degradation", name, "--only-last", "1") == 0
    lq, hq = (Pairs.open(tmp_path / "strokes", 64)[0][name] for name in ("lq", "hq"))
    assert ((lq == hq) | (lq == 255)).all()
    gray = Pairs.open(tmp_path / "gray", 64)[0]["lq"]
    assert (gray.max(axis=2) == gray.min(axis=2)).all()
    blind = {name: Pairs.open(tmp_path / name, 64)[0]["lq"].tobytes() for name in of_draws}
    assert len(set(blind.values())) == len(of_draws)
    assert '"seed": 10000' in (tmp_path / "difface" / "frozen.json").read_text()
    assert run(faces, tmp_path / "again", "--frozen", "--only-last", "1", "--seed", "1") == 0
    assert Pairs.open(tmp_path / "again", 64)[0]["lq"].tobytes() != blind["release"]


def test_a_file_that_is_left_out_is_named_and_the_exit_code_says_so(faces, tmp_path, capsys):
    write_faces(faces, 120)
    (faces / "broken.png").write_bytes(b"broken")
    assert run(faces, tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "left out: " in printed.err
    assert "broken.png: not an image" in printed.err
    assert "120 faces of 64 pixels; 1 left out" in printed.out
    assert len(Built.open(tmp_path / "out", 64)) == 120
    with pytest.raises(ValueError, match=r"broken\.png"):
        Folder.open(faces, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "32"], "--size is 32, but must be at least 64"),
        (["--exclude-last", "6"], "--exclude-last is 6, but of 6 images it must be from 1 to 5"),
        (["--frozen", "--seed", "-1"], "seed is -1"),
    ],
)
def test_bad_options_are_named(faces, tmp_path, capsys, options, message):
    assert run(faces, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_exists_is_left_alone(faces, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert run(faces, tmp_path / "out") == 2
    assert "exists already" in capsys.readouterr().err
