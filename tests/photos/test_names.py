"""Names of results: the input's own, and longer only where two would be the same, whatever their order."""

import itertools
from pathlib import Path

import pytest

from interlcm_jax.photos.names import name_results


def named(*inputs, suffix=".png"):
    """Names by file, where each file was given by itself."""
    results = name_results([(Path(file), Path(Path(file).name)) for file in inputs], suffix)
    return {file.as_posix(): name.as_posix() for file, name in results.items()}


def test_a_result_is_called_as_its_input():
    files = ("in/photo.jpg", "in/two.dots.webp", ".hidden.png")
    assert named(*files) == dict(zip(files, ("photo.png", "two.dots.png", ".hidden.png"), strict=True))


@pytest.mark.parametrize("order", list(itertools.permutations(["a.jpg", "a.png", "a.webp", "b.jpg"])))
def test_names_do_not_depend_on_the_order_nor_on_what_else_is_there(order):
    expected = {"a.jpg": "a.jpg.png", "a.png": "a.png.png", "a.webp": "a.webp.png", "b.jpg": "b.png"}
    assert named(*order) == expected
    without = [file for file in order if file != "a.webp"]
    assert named(*without) == {file: expected[file] for file in without}


def test_the_same_name_in_two_folders_keeps_the_folders():
    assert named("x/a.png", "y/a.png", "z/b.png") == {"x/a.png": "x/a.png", "y/a.png": "y/a.png", "z/b.png": "b.png"}
    both = named("1/x/a.png", "2/x/a.png")
    assert list(both.values()) == ["1/x/a.png", "2/x/a.png"]


def test_both_at_once():
    names = named("x/a.png", "x/a.jpg", "y/a.png")
    assert list(names.values()) == ["x/a.png.png", "x/a.jpg.png", "y/a.png"]


def test_a_name_that_a_longer_one_would_take():
    names = named("x/a.jpg", "x/a.png", "x/a.jpg.webp")
    assert len(set(names.values())) == 3
    assert names["x/a.png"] == "a.png.png"


def test_a_file_that_comes_twice_is_one():
    file, folder = (Path("in/sub/a.png"), Path("a.png")), (Path("in/sub/../sub/a.png"), Path("sub/a.png"))
    for inputs in ([file, folder], [folder, file]):
        assert list(name_results(inputs, ".png").values()) == [Path("sub/a.png")]


def test_many_of_one_name():
    names = named(*(f"{i}/a.png" for i in range(2000)))
    assert names["7/a.png"] == "7/a.png"
    assert len(set(names.values())) == 2000
