"""``cosd serve``: its models, its settings, its extra, and the end of its process."""

import json
import logging
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cosd_core import utils
from cosd_core.cli import shared
from cosd_core.cli.app import app
from cosd_core.serving.server import Server
from tests.serving.servers import HELLO

WEIGHTS = Path(__file__).parents[2] / "examples/bundled_pairs/weights"
CALLER, TALKER = str(WEIGHTS / "caller"), str(WEIGHTS / "talker")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Server]:
    """The servers that commands start, which end at once."""
    servers: list[Server] = []
    for name in ("cosd.serving", "uvicorn"):  # which the command changes
        for attribute in ("handlers", "propagate", "level"):
            monkeypatch.setattr(
                logging.getLogger(name), attribute, getattr(logging.getLogger(name), attribute)
            )
    monkeypatch.setattr(Server, "serve_forever", lambda server: servers.append(server))
    return servers


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["serve", *arguments], env=environment)
    return result.exit_code, f"{result.output}{result.exception or ''}"


def test_models_are_arguments_or_flags_or_bundled(started: list[Server]) -> None:
    assert run(CALLER, TALKER)[0] == 0
    assert run("--draft", CALLER, "--assistant", TALKER, "--alpha", "0.7")[0] == 0
    assert run()[0] == 0
    assert [server._engine.name for server in started] == ["caller+talker"] * 3
    alphas = [server._engine._pair.alpha for server in started]
    assert alphas == [0.5, 0.7, 0.9]


def test_without_the_chat_models_the_bundled_pair_of_questions_answers(
    started: list[Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shared, "_CHAT_WEIGHTS", tmp_path / "none")
    assert run()[0] == 0
    assert started[0]._engine.name == "facts+arithmetic"
    assert started[0]._engine._pair.chat_template


def test_keys_come_from_flags_and_the_environment(started: list[Server]) -> None:
    run(CALLER, TALKER, "--api-key", "a", "--api-key", "b")
    run(CALLER, TALKER, COSD_API_KEY="c d")
    keys = [[key.get_secret_value() for key in server._options.api_keys] for server in started]
    assert keys == [["a", "b"], ["c", "d"]]


def test_a_settings_file_gives_the_settings(started: list[Server], tmp_path: Path) -> None:
    settings = {"draft_model": CALLER, "assistant_model": TALKER, "alpha": 0.3, "max_new_tokens": 7}
    (tmp_path / "tuned.json").write_text(json.dumps(settings), encoding="utf-8")
    assert run("--settings-file", str(tmp_path / "tuned.json"), "--name", "tuned")[0] == 0
    pair = started[0]._engine._pair
    assert (pair.alpha, pair.max_new_tokens, started[0]._options.name) == (0.3, 7, "tuned")


def test_texts_have_a_limit_where_nobody_gives_one(started: list[Server]) -> None:
    run(CALLER, TALKER)
    run(CALLER, TALKER, "--max-tokens-limit", "9")
    assert [server._engine._pair.max_new_tokens for server in started] == [512, 9]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([CALLER], "name an assistant"),
        ([CALLER, TALKER, "--draft", CALLER], "and so do --draft"),
        (["--draft", CALLER], "--assistant is missing"),
        ([CALLER, TALKER, "--request-timeout", "0"], "request_timeout=0"),
        ([CALLER, TALKER, "--name", ""], "name=''"),
        ([CALLER, TALKER, "--verifier", "oracle"], "should be"),
        ([CALLER, TALKER, "--api-key", ""], "api_key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_call_is_refused(started: list[Server], arguments: list[str], words: str) -> None:
    code, output = run(*arguments)
    assert (code != 0, started) == (True, [])
    assert words in output


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        if package == "fastapi":
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(utils, "version", missing)
    code, output = run(CALLER, TALKER)
    assert code == 1
    assert 'pip install "cosd[serve]"' in output


def test_a_process_answers_and_ends_at_a_signal() -> None:
    command = [sys.executable, "-m", "cosd_core", "serve", "--port", "0", "--shutdown-grace", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines: list[dict[str, Any]] = []
        while not lines or "url" not in lines[-1]:
            lines.append(json.loads(process.stderr.readline()))
        body = {"model": lines[-1]["model"], "messages": HELLO, "max_tokens": 4}
        answer = httpx.post(f"{lines[-1]['url']}/v1/chat/completions", json=body, timeout=30)
        assert answer.json()["choices"][0]["message"]["content"]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        lines += map(json.loads, process.stderr)
    assert [line["message"] for line in lines] == ["listening", "request", "shutting down"]


def test_vllm_takes_the_place_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(
        "os.execve", lambda _, command, variables: calls.append((command, variables)) or sys.exit(0)
    )
    monkeypatch.setattr("cosd_core.serving.vllm.command.find_spec", lambda _: object())
    arguments = (
        "org/a",
        "org/b",
        "--engine",
        "vllm",
        "--alpha",
        "0.7",
        "--draft-length",
        "4",
        "--port",
        "9000",
    )
    assert (
        run(*arguments, "--api-key", "secret", "--vllm-arg=--max-model-len=512", VLLM_PLUGINS="other")[0] == 0
    )
    [(command, variables)] = calls
    given = dict(zip(command[3:-1:2], command[4:-1:2], strict=False))
    assert given["--model"] == "org/b"
    assert json.loads(command[command.index("--speculative-config") + 1]) == {
        "method": "draft_model", "model": "org/a", "num_speculative_tokens": 4,
    }  # fmt: skip
    assert json.loads(command[command.index("--additional-config") + 1]) == {"cosd": {"alpha": 0.7}}
    assert command[-1] == "--max-model-len=512"
    assert "secret" not in command
    assert (variables["VLLM_API_KEY"], variables["VLLM_PLUGINS"]) == ("secret", "other,cosd")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("org/a", "org/b", "org/c"), "one draft and one assistant"),
        ((), "one draft and one assistant"),
        (("org/a", "org/b", "--log-prompts"), "log_prompts"),
        (("org/a", "org/b", "--lookup"), "lookup"),
        (("org/a", "org/b", "--verifier", "average"), "average"),
        (("org/a", "org/b", "--api-key", "a", "--api-key", "b"), "one API key"),
        (("org/a", "org/b"), "vLLM is not installed"),
    ],
)
def test_what_vllm_cannot_do_is_refused_before_it_starts(arguments: tuple[str, ...], words: str) -> None:
    code, output = run(*arguments, "--engine", "vllm")
    assert code != 0
    assert words in output


def test_arguments_of_vllm_are_for_vllm(started: list[Server]) -> None:
    code, output = run(CALLER, TALKER, "--vllm-arg=--seed=1")
    assert code != 0
    assert "--engine vllm" in output
    assert not started
