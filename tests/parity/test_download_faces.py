"""RetinaFace and ParseNet, which come with a downloaded model, and what is said where they don't."""

from interlcm_jax.cli.main import main
from interlcm_jax.convert.released import FACES_LICENSE
from interlcm_jax.default_model import default_model
from interlcm_jax.faces.parsenet import ParseNetConfig, load_parsenet
from interlcm_jax.model_folder import NETWORKS, read_config
from tests.parity.release_files import download


def test_without_its_face_networks_the_model_is_ready_all_the_same(server, places, capsys):
    parsenet = server.files.pop("/v0/parsing_parsenet.pth")
    assert download(server) == 1
    folder = places / "INTERLCM_MODELS" / "restoration_3step"
    assert default_model() == folder
    output = capsys.readouterr()
    assert f"{folder}: now the default model" in output.out
    assert f"{server.url}/v0/parsing_parsenet.pth: 404 Not Found" in output.err
    assert f"{folder}: the model is ready, but without retinaface and parsenet" in output.err
    assert f"interlcm add {folder} FILE FILE, or give the same command again" in output.err
    assert not (folder / "retinaface.safetensors").exists()
    # The same command does the rest, from where facexlib published it too.
    server.files["/facexlib/v0.2.2/parsing_parsenet.pth"] = parsenet
    server.log.clear()
    assert main(["download"]) == 0
    assert {path for path, _, _ in server.log} == {"/facexlib/v0.2.2/parsing_parsenet.pth"}
    assert load_parsenet(folder, config=ParseNetConfig.miniature()) is not None
    assert read_config(folder).weights["retinaface"]["license"] == FACES_LICENSE


def test_a_page_in_place_of_a_face_network(server, places, capsys):
    server.files["/v0/parsing_parsenet.pth"] = b"<html>Log in to this network</html>"
    assert download(server, "-o", places / "model") == 1
    error = capsys.readouterr().err
    assert (
        f"Delete {places / 'INTERLCM_CACHE' / 'downloads' / 'facexlib'}. {places / 'model'}: the model is ready"
        in error
    )
    assert "give the same command again\n" not in error.partition("Delete")[2]
    assert {path.stem for path in (places / "model").glob("*.safetensors")} == set(NETWORKS)
