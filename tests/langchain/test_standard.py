"""The suites of langchain-tests for chat models, answered by the bundled chat pair, with default settings.

Their questions need real answers: call ``magic_function`` with 3, call the weather tool without being told
to, copy a name in Chinese and one in Japanese. The pair was trained on random dialogues that hold none of
these words (``examples/bundled_pairs/chat/words.py``), and no choice forces a call.
"""

from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from examples.bundled_pairs import load_chat_pair
from langchain_cosd import ChatCoSD

PARAMETERS = dict(zip(("draft_model", "assistant_model"), load_chat_pair(), strict=True))


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[ChatCoSD]:
        return ChatCoSD

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return PARAMETERS

    @pytest.mark.xfail(reason="its loads admits only classes that langchain-core lists: see test_dumps.py")
    def test_serdes(self, model: Any, snapshot: Any) -> None:
        super().test_serdes(model, snapshot)


class TestIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[ChatCoSD]:
        return ChatCoSD

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return PARAMETERS

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @pytest.mark.xfail(reason="the pair is too small: it shortens the key 'punchline' to 'punch'")
    def test_json_mode(self, model: Any) -> None:
        super().test_json_mode(model)
