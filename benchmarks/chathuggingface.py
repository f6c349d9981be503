"""The suites of langchain-tests over `ChatHuggingFace` and a local pipeline, to compare with `ChatCoSD`.

Needs langchain-huggingface, which cosd does not::

    pip install langchain-huggingface
    pytest -o filterwarnings=default benchmarks/chathuggingface.py

The model is the caller of the bundled chat pair, the options are those of `tests/langchain/test_standard.py`.
"""

from typing import Any

import torch
from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from transformers import pipeline

from examples.bundled_pairs import WEIGHTS

torch.set_num_threads(1)
CALLER = str(WEIGHTS / "caller")
PIPELINE = HuggingFacePipeline(
    pipeline=pipeline("text-generation", model=CALLER, dtype=torch.float32, max_new_tokens=128),
    model_id=CALLER,
)


class OverAPipeline:
    """The model class and its arguments, for both suites."""

    chat_model_class = ChatHuggingFace
    chat_model_params = property(lambda _self: {"llm": PIPELINE, "model_id": CALLER})


class TestUnit(OverAPipeline, ChatModelUnitTests):
    """The unit tests."""


class TestIntegration(OverAPipeline, ChatModelIntegrationTests):
    """The integration tests."""

    supports_json_mode: Any = True
    supports_anthropic_inputs: Any = True
