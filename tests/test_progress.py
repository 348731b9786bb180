"""Progress of loops over models, in a real terminal."""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_LOOPS = """
import sys
from vitzoo import VitZooModel, Zoo
zoo = Zoo(sys.argv[1])
mark = lambda text: print(text, file=sys.stderr, flush=True)
for member in zoo:
    member.load()
    member.load(dtype="float64")  # transformers' own loader
    VitZooModel.from_pretrained(f"{sys.argv[1]}/{member.id}")
mark("<loads>")
weights = zoo.weights()
print(len(list(weights.iter_models())))
mark("<models>")
for _ in weights.iter_models():
    break
mark("<break>")
print(len(list(weights.iter_models(progress=False))))
mark("<off>")
print(len(list(zoo["pt-0"].trajectory())))
mark("<trajectory>")
from transformers.utils.logging import disable_progress_bar
disable_progress_bar()
print(len(list(weights.iter_models())))
mark("<disabled>")
"""


def run_in_terminal(code: str, *arguments: str) -> tuple[str, str]:
    """Run code whose standard error is a terminal, and return standard output and that terminal's text."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))  # tqdm draws nothing at a width of 0
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=theirs, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux says so at the end of a terminal
                break
            if not piece:
                break
            shown += piece
        assert process.stdout is not None
        printed = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    return printed, shown.decode()


@pytest.mark.slow
def test_loop_over_models_has_one_bar(tiny_zoo: Path) -> None:
    printed, shown = run_in_terminal(_LOOPS, str(tiny_zoo))
    assert printed.split() == ["11", "11", "3", "11"]
    assert "Loading weights" not in shown
    texts = {name: text for text, name in re.findall(r"(?s)(.*?)<(\w+)>\r\n", shown)}
    assert list(texts) == ["loads", "models", "break", "off", "trajectory", "disabled"]
    assert texts["loads"] == texts["off"] == texts["disabled"] == ""
    for name, total in (("models", 11), ("break", 11), ("trajectory", 3)):
        assert f"/{total} [" in texts[name]
        lines = re.split(r"[\r\n]+", texts[name])
        assert {line.split(":")[0] for line in lines if line.strip()} == {"Loading models"}
        assert lines[-1].strip() == ""  # the bar is removed at its end


def test_pipe_shows_no_bar(tiny_zoo: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOOPS, str(tiny_zoo)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stderr.split() == ["<loads>", "<models>", "<break>", "<off>", "<trajectory>", "<disabled>"]
