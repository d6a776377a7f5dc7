"""`interlcm compile` in process: what it writes, what it says, and what it refuses."""

import pytest
from jax import export
from safetensors import safe_open

from interlcm_jax import InterLCM
from interlcm_jax.cli.main import main


def interlcm_compile(model, out, *options):
    return main(["compile", str(model), "-o", str(out), *map(str, options)])


def test_every_option_reaches_the_program(model, tmp_path, capsys):
    out = tmp_path / "sub" / "out"
    options = ["--batch-size", 3, "--platforms", "cpu,cuda", "--dtype", "bfloat16"]
    assert interlcm_compile(model, out, *options, "--num-network-calls", 1, "--color-fix", "none") == 0
    program = export.deserialize((out / "program.bin").read_bytes())
    assert program.platforms == ("cpu", "cuda")
    assert [aval.str_short(short_dtypes=True) for aval in program.out_avals] == ["u8[3,64,64,3]", "bool[3]"]
    with safe_open(out / "weights.safetensors", framework="np") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118 - not a dict
    assert "Task restoration, 1 network calls, color fix none." in (out / "README.md").read_text()
    output = capsys.readouterr()
    assert output.out.startswith(f"{out}: program.bin (0.")
    assert f"python {out}/run.py IN OUT" in output.out
    assert "lowering 3 faces at 64 px for cpu, cuda" in output.err


def test_by_default_one_face_on_every_platform_in_float32(model, tmp_path):
    assert interlcm_compile(model, tmp_path / "out") == 0
    program = export.deserialize((tmp_path / "out" / "program.bin").read_bytes())
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert program.out_avals[0].shape == (1, 64, 64, 3)
    assert {aval.dtype.name for aval in program.in_avals} == {"float32", "uint8", "uint32"}
    assert "3 network calls, color fix wavelet." in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--platforms", "cpu,gpu"], "platforms: 'gpu' given, but they must be among cpu, cuda, tpu"),
        (["--platforms", ""], "platforms: none given"),
        (["--batch-size", "0"], "batch_size is 0, but must be an integer from 1"),
    ],
)
def test_a_wrong_option_is_named_before_the_weights_are_loaded(model, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.setattr(InterLCM, "from_pretrained", None)
    assert interlcm_compile(model, tmp_path / "out", *options) == 2
    assert f"interlcm: {message}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept_and_no_weights_are_loaded_for_it(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(InterLCM, "from_pretrained", None)
    (tmp_path / "out").mkdir()
    assert interlcm_compile(model, tmp_path / "out") == 2
    assert f"{tmp_path}/out: exists already" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"), [(["--num-network-calls", "50"], "num_network_calls is 50"), ([], "not a model folder")]
)
def test_what_the_model_decides_is_refused_and_leaves_nothing(model, tmp_path, capsys, options, message):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert interlcm_compile(model if options else empty, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [empty]
