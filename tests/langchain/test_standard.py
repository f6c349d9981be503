"""The suites of langchain-tests for chat models, answered by the bundled chat pair. Nothing is overridden.

Their questions need real answers: call ``magic_function`` with 3, call the weather tool without being told
to, copy a name in Chinese and one in Japanese. The pair was trained on random dialogues that hold none of
these words (``cosd_core/demo/chat/words.py``), and no choice forces a call.
"""

from typing import Any

from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from cosd_core.demo.chat import load_chat_pair
from langchain_cosd import ChatCoSD


def parameters() -> dict[str, Any]:
    draft, assistant = load_chat_pair()
    return {"draft_model": draft, "assistant_model": assistant}


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[ChatCoSD]:
        return ChatCoSD

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return parameters()

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {}, {}, {}


class TestIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[ChatCoSD]:
        return ChatCoSD

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return parameters()

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True
