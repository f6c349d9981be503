"""A model behind the HTTP interface of vLLM that decoding uses, computed without a cache."""

import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import torch

from cosd_core import LanguageModel

NAME = "org/served"


class FakeServer(httpx.MockTransport):
    """Answers ``/v1/models`` and ``/v1/completions`` as vLLM does.

    Attributes:
        requests: The bodies of the completions that were asked for.
        before: Called with every request; what it returns is the answer.
    """

    def __init__(self, model: LanguageModel, *, context: int = 256, key: str | None = None) -> None:
        """Serve a model."""
        super().__init__(self._answer)
        self.model, self.context, self.key = model, context, key
        self.requests: list[dict[str, Any]] = []
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda _: None

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return httpx.Response(401, json={"error": {"message": "unknown key"}})
        if answer := self.before(request):
            return answer
        if request.url.path == "/v1/models":
            listed = {"id": NAME, "max_model_len": self.context}
            return httpx.Response(200, json={"object": "list", "data": [listed]})
        body = json.loads(request.content)
        self.requests.append(body)
        choices = [self._choice(at, ids, body) for at, ids in enumerate(body["prompt"])]
        return httpx.Response(200, json={"choices": choices[::-1]})

    @torch.inference_mode()
    def _choice(self, index: int, prompt: list[int], body: dict[str, Any]) -> dict[str, Any]:
        ids = list(prompt)
        assert len(ids) + body["max_tokens"] <= self.context
        for _ in range(body["max_tokens"]):
            log_probabilities = self.model.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            ids.append(int(log_probabilities[-1].argmax()))
        log_probabilities = self.model.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        written = range(len(prompt), len(ids))
        choice: dict[str, Any] = {
            "index": index,
            "logprobs": {
                "tokens": [f"token_id:{ids[at]}" for at in written],
                "token_logprobs": [float(log_probabilities[at - 1, ids[at]]) for at in written],
            },
        }
        if body.get("prompt_logprobs") is not None:
            known = [self._entry(log_probabilities[at - 1], ids[at]) for at in range(1, len(prompt))]
            choice["prompt_logprobs"] = [None, *known]
        return choice

    def _entry(self, log_probabilities: torch.Tensor, token: int) -> dict[str, Any]:
        """The prompt's token and the most probable one, which may be the same."""
        best = int(log_probabilities.argmax())
        rank = int((log_probabilities >= log_probabilities[token]).sum())
        entry = {str(token): {"logprob": float(log_probabilities[token]), "rank": rank}}
        assert math.isfinite(entry[str(token)]["logprob"])
        return entry | {str(best): {"logprob": float(log_probabilities[best]), "rank": 1}}
