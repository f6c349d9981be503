"""``dumps`` writes the settings of the LangChain classes, and ``loads`` makes the same model of them."""

import json
import warnings
from typing import Any, ClassVar

import pytest
from langchain_core._api import LangChainBetaWarning
from langchain_core.load import dumpd, dumps, loads
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, HumanMessagePromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableSequence
from pydantic import SecretStr

from cosd_core import (
    AdaptiveSchedule,
    ConfidenceVerifier,
    Grammar,
    Leaf,
    RuleVerifier,
    Split,
    TreeVerifier,
)
from langchain_cosd import ChatCoSD, CoSDLLM
from tests.models import ascii_model

NAMES: dict[str, Any] = {"draft_model": "org/a", "assistant_model": "org/b"}
TREE = TreeVerifier((Split("p", 0.3, 1, 2), Leaf(True), Leaf(False)))
SETTINGS: list[dict[str, Any]] = [
    {},
    {"alpha": 0.0, "beta": 1.5, "seed": 0, "temperature": 1.5, "stop": ["\n", '"'], "max_tokens": 7},
    {"assistant_model": ["org/b", "org/c"], "verifier": ["rule", RuleVerifier(0.3)]},
    {"assistant_model": ["org/b"], "assistant_adapter": ["org/lora"], "draft_adapter": "org/other"},
    {"verifier": TREE, "calibration": [1.5, 0.7], "schedule": AdaptiveSchedule(2.0)},
    {"verifier": "average", "weight": 0.25, "batch_size": 3, "dtype": "bfloat16", "device": "cpu"},
    {"grammar": Grammar.regex("a+"), "eos_token_id": [3, 5]},
    {"grammar": {"type": "object", "properties": {"object": {"type": "integer"}, "lc": {"const": 1}}}},
    {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    {"chat_template": "{{ messages }}", "chat_template_kwargs": {"lc": 1, "type": "secret", "id": ["HOME"]}},
]


@pytest.fixture(params=[ChatCoSD, CoSDLLM])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def again(text: str, *kinds: Any, **options: Any) -> Any:
    """What ``loads`` makes of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LangChainBetaWarning)
        return loads(
            text, allowed_objects=[*kinds], valid_namespaces=["langchain_cosd"], **options
        )  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: ",".join(settings))
def test_what_is_dumped_is_loaded_again(settings: dict[str, Any], kind: Any) -> None:
    if kind is CoSDLLM:
        settings = {name: value for name, value in settings.items() if not name.startswith("chat_template")}
    model = kind(**{**NAMES, **settings})
    loaded = again(dumps(model), kind)
    assert type(loaded) is kind
    assert loaded._settings.identity == model._settings.identity
    assert loaded._settings.method() == model._settings.method()
    assert loaded.asdict() == model.asdict()
    assert dumps(loaded) == dumps(model)
    assert json.loads(dumps(model))["id"] == kind.lc_id()


def test_a_tree_is_dumped_by_its_nodes(kind: Any, tmp_path: Any) -> None:
    path = tmp_path / "tree.json"
    TREE.save(path)
    text = dumps(kind(**NAMES, verifier="tree", tree_path=str(path)))
    path.unlink()
    assert again(text, kind)._settings.method()["verifier"] == TREE


def test_the_token_is_a_secret_that_loads_is_given(kind: Any) -> None:
    model = kind(**NAMES, api_key="hf_12345")
    assert (kind.is_lc_serializable(), model.lc_secrets) == (True, {"token": "HF_TOKEN"})
    assert dumpd(model)["kwargs"]["token"] == {"lc": 1, "type": "secret", "id": ["HF_TOKEN"]}
    assert "hf_12345" not in dumps(model)
    assert again(dumps(model), kind, secrets_map={"HF_TOKEN": "hf_other"}).token == SecretStr("hf_other")
    assert again(dumps(model), kind).token is None
    assert "token" not in dumpd(kind(**NAMES))["kwargs"]


class Own(ConfidenceVerifier):
    name: ClassVar[str] = "own"

    def replaces(self, p: float, q: float) -> bool:
        return p < q


@pytest.mark.parametrize("setting", ["model", "assistant", "verifier", "member"])
def test_objects_are_not_implemented_as_langchain_says_it(setting: str, kind: Any) -> None:
    model = ascii_model(seed=0)
    given: dict[str, Any] = {
        "model": {"draft_model": model},
        "assistant": {"assistant_model": ["org/b", model]},
        "verifier": {"verifier": Own()},
        "member": {"verifier": [Own()]},
    }[setting]
    text = dumps(kind(**{**NAMES, **given}))
    assert '"not_implemented"' in text
    with pytest.raises(NotImplementedError, match="doesn't implement serialization"):
        again(text, kind)


def test_a_chain_with_a_model_is_loaded_again() -> None:
    chain = ChatPromptTemplate.from_messages([("human", "{x}")]) | ChatCoSD(**NAMES) | StrOutputParser()
    kinds = (RunnableSequence, ChatPromptTemplate, StrOutputParser, ChatCoSD)
    loaded = again(dumps(chain), *kinds, HumanMessagePromptTemplate, PromptTemplate)
    assert loaded.steps[1]._settings == ChatCoSD(**NAMES)._settings


def test_nothing_is_loaded_without_permission(kind: Any) -> None:
    other = CoSDLLM if kind is ChatCoSD else ChatCoSD
    with pytest.raises(ValueError, match="not allowed"):
        again(dumps(kind(**NAMES)), other)
