import io
import re

from interlcm_jax.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_that_goes_on_from_the_step_it_starts_at():
    stream = Terminal()
    progress = Progress(200, 100, stream=stream)
    progress.move(150)
    progress.tell({"loss": 0.123456}, 2.0)
    progress.close()
    shown = stream.getvalue().split("\r")
    assert "100/200" in shown[1]
    assert re.search(r"75%.*150/200 .*step.*loss 0\.1235", shown[-1])


def test_elsewhere_there_is_a_line_now_and_then():
    stream = io.StringIO()
    progress = Progress(200, 100, line_seconds=1000, stream=stream)
    for step in (120, 140, 200):
        progress.move(step)
        progress.tell({"loss": 0.5}, 2.0)
    progress.close()
    assert stream.getvalue().splitlines() == [
        "step 120/200, 2 steps/s, 00:40 left, loss 0.5",
        "step 200/200, 2 steps/s, 00:00 left, loss 0.5",
    ]
