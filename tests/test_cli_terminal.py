"""What commands write on a terminal: no text from outside controls it, and Ctrl-C is quiet."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from tests.grids import every
from tests.terminal import on_terminal

WORDS = (
    "<end>", "go", "\x1b]0;owned\x07", "\x1b[2J", "\x9b31m", "\x08\x08", "\u202egnp.exe", "\u2066[bold]x[/]",
)  # fmt: skip
"""A text of control sequences: title, clear screen, colour, backspaces, overrides, and rich's markup."""

PAIR = f"""
import sys
from cosd_core import CoSDDecoder
from cosd_core.cli import main
from cosd_core.frontend.settings import Settings
from tests.models import table_model, word_tokenizer

WORDS = {WORDS!r}
table = {{word: {{following: 1.0}} for word, following in zip(WORDS[1:], (*WORDS[2:], WORDS[0]))}}
table[WORDS[0]] = {{WORDS[2]: 1.0}}  # what a chat's prompt ends with is no word of this model
models = [table_model(word_tokenizer(*WORDS), table, name=f"{{name}}\\x1b[2J[red]") for name in "ab"]
Settings.decoder = lambda self: CoSDDecoder(*models, draft_length=3)
sys.argv = ["cosd", *sys.argv[1:]]
main()
"""
GENERATE = ("generate", "--draft", "a", "--assistant", "b", "--no-chat", "go")
DANGEROUS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
OWN = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?2004[hl]|\x1b\[\?25[hl]|\x1b\[2K|\x1b\[1A|\x1b\[K")
"""Colours, and what readline and rich's bars write themselves."""


def foreign(written: str) -> list[str]:
    """The control characters that are not the command's own."""
    return DANGEROUS.findall(OWN.sub("", written).replace("\r", "")) + re.findall(
        "\x1b", OWN.sub("", written)
    )


def repeated(program: str, lines: Sequence[Sequence[str]]) -> str:
    """A program that runs the command line once for each of some arguments."""
    return program.replace(
        "main()\n",
        f"for arguments in {lines!r}:\n    sys.argv = ['cosd', *arguments]\n    try:\n        main()\n"
        "    except SystemExit as end:\n        print('ended with', end.code)\n",
    )


def test_a_models_text_cannot_control_the_terminal() -> None:
    flags: list[list[str]] = [[], ["--explain"], ["--json"]]
    written, _ = on_terminal(repeated(PAIR, [[*GENERATE, *each] for each in flags]))
    assert foreign(written) == []
    plain, explained, as_json, _ = OWN.sub("", written).split("ended with 0")
    assert '"\\u001b]0;owned' in as_json.replace('" ', '"')
    assert "\\u202egnp" in as_json
    for shown in (plain, explained):
        assert "␛]0;owned" in shown
        assert "<U+202E>gnp" in shown
        assert "[bold]x[/]" in shown, "rich's markup in a text is text"


def test_another_program_receives_the_text_unchanged() -> None:
    done = generated(stdout=subprocess.PIPE)
    assert done.stdout == f" {' '.join(WORDS[2:])}\n"


def test_answers_in_a_conversation_cannot_control_the_terminal() -> None:
    written, code = on_terminal(
        PAIR, "chat", "--draft", "a", "--assistant", "b",
        dialogue=[("> ", "go\r"), ("\n> ", "/explain\r"), ("Ended by", "/quit\r")],
    )  # fmt: skip
    assert code == 0, written
    assert written.count("<U+202E>gnp") == 2
    assert foreign(written) == []


def test_names_of_files_and_messages_of_errors_cannot_control_the_terminal(tmp_path: Path) -> None:
    task = tmp_path / "a\x1b]0;owned\x07\u202e.jsonl"
    task.write_text('{"prompt": "go", "answer": "x", "scoring": "\\u001b[2J"}\n', encoding="utf-8")
    lines = [
        ["generate", "--draft", "\x1b[2J/a/b", "--assistant", "x", "go"],
        ["generate", "--\x1b[2J\u202e", "go"],
        ["\x1b[2J\u202e"],
        ["evaluate", "--task", str(task)],
    ]
    program = "import sys\nfrom cosd_core.cli import main\nmain()\n"
    written, _ = on_terminal(repeated(program, lines))
    assert written.count("ended with") == len(lines)
    assert "ended with 0" not in written
    assert "Traceback" not in written
    assert foreign(written) == []


def test_what_libraries_log_and_warn_of_cannot_control_the_terminal() -> None:
    code = (
        "import logging, warnings\nfrom cosd_core.cli.console import protect_streams\nprotect_streams()\n"
        "logging.getLogger('x').error('%s', '\\x1b[2J')\nwarnings.warn('\\x1b]0;x\\x07', stacklevel=1)"
    )
    written, exit_code = on_terminal(code)
    assert exit_code == 0
    assert foreign(written) == []
    assert written.count("␛") >= 2


def test_ctrl_c_stops_an_answer_and_keeps_the_conversation() -> None:
    slow = PAIR.replace(
        "main()\n",
        "from time import sleep\nstream = CoSDDecoder.stream\n"
        "def slowly(self, *arguments, **options):\n"
        "    for chunk in stream(self, *arguments, **options):\n"
        "        yield chunk\n"
        "        if not slept:\n            slept.append(chunk)\n            sleep(60)\n"
        "slept = []\nCoSDDecoder.stream = slowly\nmain()\n",
    )
    written, code = on_terminal(
        slow, "chat", "--draft", "a", "--assistant", "b", "--max-new-tokens", "3",
        dialogue=[
            ("> ", "go\r"), ("owned", "\x03"), ("stopped", ""), ("> ", "\x03"), ("stopped", ""),
            ("> ", "go\r"), ("owned", ""), ("> ", "\x04"),
        ],
    )  # fmt: skip
    assert code == 0, written
    assert "Traceback" not in written
    assert written.count("owned") == 2


@pytest.mark.parametrize("after", every(3, [0.1, 0.6, 1.8]))
def test_ctrl_c_during_imports_is_quiet(after: float) -> None:
    program = "print('begun', flush=True); from cosd_core.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "generate", "--draft", "a", "--assistant", "b"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    sleep(after)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")


def generated(*arguments: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    """A generation, or another command, by a process of its own."""
    options = {"stderr": subprocess.PIPE, "text": True, "check": False}
    return subprocess.run([sys.executable, "-c", PAIR, *(arguments or GENERATE)], **{**options, **streams})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize(
    "arguments", every(3, [GENERATE, (*GENERATE, "--explain"), ("explain", "--help")]), ids=len
)
def test_a_full_disk_is_an_error_of_one_line(arguments: Sequence[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = generated(*arguments, stdout=full)
    assert done.returncode == 1
    assert done.stderr == "error: cannot write the output: [Errno 28] No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_an_error_that_cannot_be_written_is_in_the_exit_code() -> None:
    with Path("/dev/full").open("w") as full:
        assert generated("generate", "--system", "x", "--no-chat", "y", stderr=full).returncode == 2


def test_a_reader_that_ends_early_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = generated(stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_stream_that_holds_only_ascii_gets_escapes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PAIR, *GENERATE, "--explain"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}, capture_output=True, check=True,
    )  # fmt: skip
    assert b"\\u241b]0;owned" in done.stdout
