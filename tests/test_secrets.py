# ruff: noqa: F811 - fixtures of another file
"""An access token is in nothing that is dumped, logged, traced, pickled or written; no file runs code."""

import copy
import json
import logging
import pickle
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from langchain_core.load import dumpd, dumps
from langchain_core.messages import HumanMessage
from langchain_core.tracers.base import BaseTracer
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.loading import load_llm
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.event_handlers import BaseEventHandler
from pydantic import SecretStr

from cosd_core import CoSDError, InvalidOptionError, LanguageModel
from cosd_core.errors import EvaluationFileError
from cosd_core.frontend.settings import Settings
from cosd_core.frontend.settings_file import read_settings, writable
from cosd_core.models.loading import hub_access
from cosd_core.options import LoadingOptions
from langchain_cosd import ChatCoSD
from langchain_cosd import CoSDLLM as LangChainLLM
from llama_index_cosd import CoSDLLM as LlamaIndexLLM
from tests.test_cli import cosd, pair  # noqa: F401

TOKEN = "hf_7sQ2xLm9"
KINDS = [ChatCoSD, LangChainLLM, LlamaIndexLLM, Settings]


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, pair: Any) -> Any:
    return request.param(draft_model=pair[0], assistant_model=pair[1], token=TOKEN, max_new_tokens=4)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Everything that any logger reports."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.getMessage()} {record.__dict__}")

    handler, root = Keep(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)


def hides(*values: object) -> bool:
    return not any(TOKEN.encode() in _as_bytes(each) for each in values)


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


# Dumps


def test_the_token_is_a_secret_that_loading_reveals() -> None:
    for token in (TOKEN, SecretStr(TOKEN)):
        options = LoadingOptions(token=token)
        assert isinstance(options.token, SecretStr)
        assert hub_access(options)["token"] == TOKEN
    assert hub_access(LoadingOptions(token=True))["token"] is True
    assert "token" not in hub_access(LoadingOptions(token=""))


def test_both_frameworks_take_it_as_api_key(pair: Any) -> None:
    for kind in KINDS[:3]:
        for key in (TOKEN, SecretStr(TOKEN)):
            model = kind(draft_model=pair[0], assistant_model=pair[1], api_key=key)
            assert model.api_key == model.token == SecretStr(TOKEN)


def test_no_dump_holds_the_token(model: Any) -> None:
    texts = [
        repr(model), str(model), model.model_dump(), model.model_dump(mode="json"), model.model_dump_json(),
        pickle.dumps(model), repr(copy.deepcopy(model)), vars(model),
    ]  # fmt: skip
    if isinstance(model, ChatCoSD | LangChainLLM):
        texts += [dumps(model), dumpd(model), model._serialized, model.asdict(), model._identifying_params]
        texts += [model._get_ls_params(), dumps(model | str)]
    if isinstance(model, ChatCoSD):
        texts += [model._get_llm_string(), model._get_invocation_params(api_key=TOKEN, token=TOKEN)]
    if isinstance(model, LlamaIndexLLM):
        texts += [model.to_dict(), model.to_json(), model.to_payload(), model.dict(), model.json()]
    if isinstance(model, Settings):
        texts += [model.sources(), model.loading_options, pickle.dumps(model.loading_options)]
    assert hides(*texts)
    assert pickle.loads(pickle.dumps(model)).token is None
    assert copy.deepcopy(model).token == model.token


@pytest.mark.parametrize("wrong", [[TOKEN], f"{TOKEN}\n", f"Bearer {TOKEN}", f"{TOKEN}é"])
def test_no_error_quotes_the_token(wrong: Any) -> None:
    for build in (
        lambda: LoadingOptions(token=wrong),
        lambda: LanguageModel.from_pretrained("org/x", token=wrong),
        lambda: ChatCoSD(draft_model="a", assistant_model="b", api_key=wrong),
        lambda: LlamaIndexLLM(draft_model="a", assistant_model="b", token=wrong),
        lambda: ChatCoSD(draft_model="a", assistant_model="b", api_key=TOKEN, token=TOKEN),
        lambda: ChatCoSD(draft_model="a", assistant_model="b", apikey=TOKEN),  # type: ignore[call-arg]
    ):
        with pytest.raises(InvalidOptionError) as caught:
            build()
        assert hides(caught.value)


# Logs and traces


class Traces(BaseTracer):
    def __init__(self) -> None:
        super().__init__()
        self.runs: list[str] = []

    def _persist_run(self, run: Any) -> None:
        self.runs.append(f"{run.__dict__}")


@pytest.mark.parametrize("kind", [ChatCoSD, LangChainLLM])
def test_no_trace_of_langchain_holds_the_token(kind: Any, pair: Any, logged: list[str]) -> None:
    traces = Traces()
    model = kind(draft_model=pair[0], assistant_model=pair[1], api_key=TOKEN, max_tokens=4, return_trace=True)
    config: Any = {"callbacks": [traces]}
    answers = [model.invoke("Q: iron?", config), *model.stream("Q: iron?", config)]
    answers += [*model.batch(["a", "b"], config), model.generate_prompt([])]
    with pytest.raises(InvalidOptionError) as caught:
        model.invoke("x", config, api_key=TOKEN)
    assert traces.runs
    assert hides(*traces.runs, *answers, *logged, caught.value)


class Events(BaseEventHandler):
    events: ClassVar[list[str]] = []

    def handle(self, event: Any, **_: Any) -> None:
        self.events.append(f"{event!r} {event.model_dump()}")


def test_no_event_of_llama_index_holds_the_token(pair: Any, logged: list[str]) -> None:
    llm = LlamaIndexLLM(draft_model=pair[0], assistant_model=pair[1], token=TOKEN, max_tokens=4)
    handler, root = Events(), get_dispatcher()
    root.add_event_handler(handler)
    try:
        answers = [llm.complete("Q: iron?").raw, llm.chat([ChatMessage("hello")]).raw]
    finally:
        root.event_handlers.remove(handler)
    assert handler.events
    assert hides(*handler.events, *answers, *logged)


# Files


WRITTEN: dict[str, set[str]] = {
    "generate": {"page.html"},
    "evaluate": {"report.json", "report.md"},
    "bench": set(),
    "train-tree": {"tree.json"},
    "tune": {"tuned.json", "report.json"},
}


@pytest.mark.parametrize("name", WRITTEN)
def test_no_command_writes_or_prints_the_token(
    name: str, cosd: Any, pair: Any, tmp_path: Path, logged: list[str]
) -> None:
    models = ["--draft", pair[0], "--assistant", pair[1], "--token", TOKEN, "--max-new-tokens", "4"]
    task = tmp_path / "task.jsonl"
    lines = [
        {"prompt": f"Q: 1+{at}? A:", "answer": f"{at + 1}", "completion": f" {at + 1}\n"} for at in range(6)
    ]
    task.write_text("".join(json.dumps(line) + "\n" for line in lines))
    grid = ["--alpha", "0.5", "--beta", "0.5", "--weight", "0.5", "--folds", "3"]
    run = {
        "tune": ["tune", *models, "--task", str(task), *grid, "--json", "--out", str(tmp_path / "tuned")],
        "evaluate": ["evaluate", *models, "--task", str(task), "--out", str(tmp_path / "evaluated")],
        "generate": ["generate", *models, "--json", "--html", str(tmp_path / "page.html"), "Q: iron? A:"],
        "bench": ["bench", *models[:6], "--prompts", str(task), "--repeats", "1", *models[6:], "--json"],
        "train-tree": [
            "train-tree", *models[:6], "--data", str(task), "--out", str(tmp_path / "tree.json"),
        ],
    }  # fmt: skip
    output = cosd(*run[name])
    assert output.code == 0, output.err
    assert hides(output.out, output.err)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {each.name for each in written} >= WRITTEN[name]
    assert all(hides(path.read_bytes()) for path in written)
    assert hides(*logged)
    if name == "tune":
        assert "token" not in json.loads((tmp_path / "tuned/tuned.json").read_text())
        for path in (tmp_path / "tuned/tuned.json", tmp_path / "tuned/report.json"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


# Code that comes with a model


RISKS = [
    ("trust_remote_code", True, "--trust-remote-code"),
    ("use_safetensors", False, "--no-use-safetensors"),
]


@pytest.mark.parametrize(("name", "value", "flag"), RISKS)
def test_no_file_lets_a_model_run_code(
    name: str, value: bool, flag: str, cosd: Any, pair: Any, tmp_path: Path
) -> None:
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps({"draft_model": pair[0], "assistant_model": pair[1], name: value}))
    with pytest.raises(
        EvaluationFileError, match=rf"tuned.json.*{name}={value}.*argument {name}={value}.*{flag}"
    ):
        read_settings(path)
    for command in ("generate", "evaluate", "tune"):
        output = cosd(command, "--settings-file", str(path), *(["x"] if command == "generate" else []))
        assert output.code != 0
        assert flag in output.err
    path.write_text(json.dumps({"draft_model": pair[0], "assistant_model": pair[1], name: not value}))
    assert read_settings(path)[name] is not value
    output = cosd("generate", "--settings-file", str(path), flag, "--max-new-tokens", "3", "Q: iron? A:")
    assert output.code == 0, "a flag is honoured"


@pytest.mark.parametrize(("name", "value"), [each[:2] for each in RISKS])
def test_no_dictionary_of_llama_index_lets_a_model_run_code(name: str, value: bool, pair: Any) -> None:
    models: Any = {"draft_model": pair[0], "assistant_model": pair[1], name: value}
    told = LlamaIndexLLM(**models).to_dict()
    for load in (LlamaIndexLLM.from_dict, load_llm):
        with pytest.raises(CoSDError, match=f"{name}={value}"):
            load(told)
    assert getattr(LlamaIndexLLM.from_dict(told, **{name: value}), name) is value


def test_tuning_writes_no_permission_to_run_code(tmp_path: Path) -> None:
    given = {
        "draft_model": "a",
        "token": TOKEN,
        "trust_remote_code": True,
        "use_safetensors": False,
        "top_k": 0,
    }
    assert writable(given) == {"draft_model": "a", "top_k": 0}
    assert writable({"trust_remote_code": False, "use_safetensors": True}) == {
        "trust_remote_code": False, "use_safetensors": True,
    }  # fmt: skip


def test_chats_in_lists_hold_no_token_either(pair: Any) -> None:
    chat = ChatCoSD(draft_model=pair[0], assistant_model=pair[1], token=TOKEN, max_tokens=2)
    result = chat.generate([[HumanMessage("a")], [HumanMessage("b")]])
    assert hides(result, result.llm_output)
