"""Requests to an OpenAI-compatible server, with the fields that vLLM adds to them."""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from weakref import finalize

from pydantic import SecretStr

from cosd_core.errors import GenerationError, InvalidOptionError, MissingExtraError, ModelLoadError, quoted
from cosd_core.options import check_counts, check_number
from cosd_core.prediction import Prediction

try:
    import httpx
    from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
    from tenacity.wait import wait_random_exponential
except ImportError as error:
    raise MissingExtraError(
        f'models behind servers need httpx ({error}): pip install "cosd[remote]"'
    ) from error

_RETRIED = frozenset({408, 429, 502, 503, 504})
"""Statuses after which the same request may succeed."""

_MAX_TIMEOUT = 1e6
"""Seconds; much longer times are none that a socket can wait."""

_MOST_SECONDS = 30.0
"""The longest wait before a retry, also where the server asks for a longer one."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer of a server to one prompt.

    Attributes:
        prompt: The most probable token behind each of the prompt's first tokens, from the first to the last
            but one; empty if that was not asked for.
        tokens: The tokens that it writes behind the prompt.
    """

    prompt: list[Prediction]
    tokens: list[Prediction]


class Client:
    """One model behind a server. Threads may share it.

    Attributes:
        url: The address of the API, which ends in ``/v1``.
        model: The name of the model there.
        num_requests: How many requests were sent.
    """

    def __init__(
        self,
        url: str,
        model: str | None,
        *,
        api_key: SecretStr | str | None,
        timeout: float,
        max_connections: int,
        max_retries: int,
        transport: "httpx.BaseTransport | None" = None,
    ) -> None:
        """Find the model.

        Raises:
            InvalidOptionError: An argument is of a wrong type or value, such as an address that is none or a
                key that no header can hold.
            ModelLoadError: The server does not answer, or has no such model.
        """
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise InvalidOptionError(f"url={quoted(url)} should begin with http:// or https://")
        check_counts(max_connections=max_connections)
        check_number("timeout", timeout, most=_MAX_TIMEOUT)
        check_number("max_retries", max_retries)
        self.url = url.rstrip("/").removesuffix("/v1") + "/v1"
        self.num_requests = 0
        try:
            httpx.URL(self.url)
        except (httpx.InvalidURL, ValueError) as error:
            raise InvalidOptionError(f"url={quoted(url)} is no address: {quoted(error)}") from error
        self._http = httpx.Client(
            headers=_authorization(api_key),
            timeout=timeout,
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
            transport=transport,
        )
        self._workers = ThreadPoolExecutor(max_connections, thread_name_prefix="cosd-server")
        self._max_retries = int(max_retries)
        finalize(self, self._http.close).atexit = False
        try:
            listed = self._send("GET", "/models")["data"]
            found = {str(each["id"]): each for each in listed}
        except (GenerationError, KeyError, TypeError) as error:
            raise ModelLoadError(
                f"no models are listed at {self.url}/models: {quoted(error, 240)}"
            ) from error
        if model is None and len(found) == 1:
            [model] = found
        if model is None or model not in found:
            raise ModelLoadError(
                f"model={quoted(model)} should be one of those that {self.url} serves: {', '.join(found)}"
            )
        self.model = model
        self.max_length: int | None = found[model].get("max_model_len")

    def submit(
        self, prompts: Sequence[list[int]], *, max_tokens: int, prompt_predictions: bool
    ) -> "Future[list[Completion]]":
        """Send :meth:`complete` in another thread; requests of several models run at the same time."""
        return self._workers.submit(
            self.complete, prompts, max_tokens=max_tokens, prompt_predictions=prompt_predictions
        )

    def complete(
        self, prompts: Sequence[list[int]], *, max_tokens: int, prompt_predictions: bool
    ) -> list[Completion]:
        """The most probable tokens behind prompts, and if wanted inside of them, in one request.

        Raises:
            GenerationError: The server does not answer, refuses, or returns something else.
        """
        body = {
            "model": self.model,
            "prompt": list(prompts),
            "max_tokens": max_tokens,
            "temperature": 0,
            "logprobs": 1,
            "ignore_eos": True,  # an end token is a token like any other
            "return_tokens_as_token_ids": True,
        }
        if prompt_predictions:
            body["prompt_logprobs"] = 1
        answer = self._send("POST", "/completions", body)
        try:
            choices = sorted(answer["choices"], key=lambda each: each["index"])
            found = [_completion(each, prompt_predictions) for each in choices]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise GenerationError(
                f"{self.url} returned no log-probabilities by token ids ({quoted(error)}): it should be a "
                "server of vLLM"
            ) from error
        if len(found) != len(prompts):
            raise GenerationError(f"{self.url} answered {len(found)} of {len(prompts)} prompts")
        return found

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON of an answer; what may be retried is sent again."""
        retrying = Retrying(
            stop=stop_after_attempt(1 + self._max_retries),
            wait=_wait,
            retry=retry_if_exception(_may_retry),
            reraise=True,
        )
        try:
            return retrying(self._send_once, method, path, body)
        except httpx.HTTPStatusError as error:
            status, text = error.response.status_code, error.response.text
            raise GenerationError(
                f"{self.url}{path} answered with status {status}: {quoted(text, 240)}"
            ) from error
        except (httpx.HTTPError, ValueError) as error:
            raise GenerationError(f"{self.url}{path} did not answer: {quoted(error, 240)}") from error

    def _send_once(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        self.num_requests += 1
        response = self._http.request(method, self.url + path, json=body)
        response.raise_for_status()
        return response.json()


def _authorization(api_key: SecretStr | str | None) -> dict[str, str]:
    """The header with a key."""
    if api_key is None:
        return {}
    key = api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
    if not isinstance(key, str) or not all("!" <= letter <= "~" for letter in key):
        raise InvalidOptionError("api_key should be visible ASCII characters alone, without spaces")
    return {"Authorization": f"Bearer {key}"}


def _may_retry(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _RETRIED
    return isinstance(error, httpx.TransportError)  # the connection failed, or the time was over


def _wait(state: "RetryCallState") -> float:
    """As long as the server says, or exponentially longer each time."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, httpx.HTTPStatusError):
        asked = error.response.headers.get("Retry-After", "")
        if asked.isdecimal():
            return min(float(asked), _MOST_SECONDS)
    return float(wait_random_exponential(multiplier=0.5, max=_MOST_SECONDS)(state))


def _completion(choice: Mapping[str, Any], prompt_predictions: bool) -> Completion:
    logprobs = choice["logprobs"]
    tokens = [
        Prediction(int(token.removeprefix("token_id:")), math.exp(logprob))
        for token, logprob in zip(logprobs["tokens"], logprobs["token_logprobs"], strict=True)
    ]
    prompt = list(map(_most_probable, choice["prompt_logprobs"][1:])) if prompt_predictions else []
    return Completion(prompt, tokens)


def _most_probable(entry: Mapping[str, Mapping[str, Any]]) -> Prediction:
    """The first of the tokens that vLLM names at a position, which are the prompt's and the best one."""
    [(token, found)] = [each for each in entry.items() if each[1]["rank"] == 1]
    return Prediction(int(token), math.exp(found["logprob"]))
