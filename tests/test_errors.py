import pytest

from interlcm_jax.errors import InterLCMError, WeightsError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x9b1m\7\r", r"\x1b[2J\x9b1m\x07\r"),
        ("a\u202egpj.exe", r"a\u202egpj.exe"),
        ("\udcff", r"\udcff"),
        ("顔 å\nnext", "顔 å\nnext"),
    ],
)
def test_messages_steer_no_terminal(text, shown):
    assert str(InterLCMError(text)) == shown
    assert str(WeightsError("a.pth", [text])) == f"a.pth: {shown}"
