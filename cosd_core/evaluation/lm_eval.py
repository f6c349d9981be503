"""CoSD as a model of lm-evaluation-harness (EleutherAI, ``pip install "cosd[evaluate]"``).

Importing this file makes the model known as ``cosd``. The harness looks for models in its own list only, so
its own command does not find it; ``cosd lm-eval`` is that command with this file imported::

    cosd lm-eval run --model cosd --model_args draft=org/model-a,assistant=org/model-b,alpha=0.7 --tasks gsm8k

Where several values are possible, a plus sign stands between them: ``assistant=org/model-b+org/model-c``.

In Python ``lm_eval.simple_evaluate(model="cosd", model_args={...})`` works once this file is imported.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from tqdm import tqdm

from cosd_core.chat.messages import Chat
from cosd_core.chat.rendering import render
from cosd_core.errors import ContextOverflowError, InvalidOptionError, MissingExtraError, quoted
from cosd_core.evaluation.likelihood import Continuation, log_likelihoods
from cosd_core.evaluation.lm_eval_options import read_task_options
from cosd_core.frontend.settings import Settings
from cosd_core.options import GenerationOptions

try:
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import (
        get_rolling_token_windows,
        make_disjoint_window,
        simple_parse_args_string,
    )
except ImportError as error:
    raise MissingExtraError(
        f'lm-evaluation-harness is not installed ({error}): pip install "cosd[evaluate]"'
    ) from error

__all__ = ["CoSDLM", "cli_evaluate"]

_ALIASES = {"draft": "draft_model", "assistant": "assistant_model"}
_SEVERAL = ("assistant_model", "assistant_adapter", "verifier", "tree_path", "calibration")
"""Settings whose words may hold several values."""

_MOST_TOKENS = 256
"""The longest answer where neither task nor user says, as in the harness."""

_LONGEST = 2048
"""The longest text that is scored in one window where no model has a limit, as in the harness."""

_Prompts = tuple[tuple[int, ...], ...]


@register_model("cosd")
class CoSDLM(TemplateLM):  # type: ignore[misc]  # the harness is not typed
    """Models that write together, as one model of the harness.

    What is scored by ``loglikelihood`` is said in ``cosd_core/evaluation/likelihood.py``. A chat is shown to
    every model by its own template; the harness is given the draft's rendering of it.

    Attributes:
        settings: What was asked for.
        decoder: The loaded models.
        tokenizer: The draft's.
    """

    def __init__(
        self,
        *,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: Any = None,
        **settings: Any,
    ) -> None:
        """Load the models.

        Args:
            batch_size: The most prompts at once. ``"auto"``: the default of :class:`Settings`, or
                ``max_batch_size``.
            max_batch_size: Only for ``"auto"``.
            device: Where the models are loaded to. The harness's own default, ``cuda:0``, where there is no
                CUDA device: the best there is.
            **settings: The fields of :class:`Settings`; ``draft`` and ``assistant`` name the models.

        Raises:
            InvalidOptionError: A setting is unknown or wrong.
            CoSDError: As :meth:`CoSDDecoder.from_pretrained`.
        """
        super().__init__()
        values = {_ALIASES.get(name, name): value for name, value in settings.items()}
        values.update({name: _divided(name, values[name]) for name in _SEVERAL if name in values})
        if len(values) < len(settings):
            raise InvalidOptionError(
                f"{', '.join(settings)}: draft and draft_model, assistant and assistant_model are the same"
            )
        for alias, name in _ALIASES.items():
            if name not in values:
                raise InvalidOptionError(f"{alias} is missing: give a hub id or the path of a model folder")
        if (size := _batch_size(batch_size, max_batch_size)) is not None:
            values["batch_size"] = size
        if device is not None and values.get("device_map") is None:
            values.setdefault("device", _device(device))
        self.settings = Settings(**values)
        self.decoder = self.settings.decoder()
        self.tokenizer = self.decoder.draft.tokenizer
        self.batch_size = self.decoder.batch_size
        self._device = self.decoder.draft.device
        self._chats: dict[str, tuple[Sequence[Mapping[str, Any]], str]] = {}

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> Self:
        """Make one of ``model_args``, which go before the harness's own options."""
        own = {name: value for name, value in (additional_config or {}).items() if value is not None}
        return cls(**{**own, **arg_dict})

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: Mapping[str, Any] | None = None
    ) -> Self:
        """The same for ``model_args`` in words."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    # What the harness asks about the model

    @property
    def eot_token_id(self) -> int | None:
        """The token that ends a text."""
        own = self.tokenizer.eos_token_id
        return own if own is not None else min(self.decoder.draft.eos_token_ids, default=None)

    @property
    def prefix_token_id(self) -> int | None:
        """The token before a text without a prompt: BOS, else the one that ends texts."""
        own = self.tokenizer.bos_token_id
        return own if own is not None else self.eot_token_id

    @property
    def max_length(self) -> int:
        """The smallest context window, in tokens."""
        windows = [model.context_length for model in self.decoder.models if model.context_length]
        return min(windows, default=_LONGEST)

    @property
    def max_gen_toks(self) -> int:
        """The longest answer where a task does not say."""
        given = "max_new_tokens" in self.settings.model_fields_set
        return self.settings.max_new_tokens if given else _MOST_TOKENS

    @property
    def tokenizer_name(self) -> str:
        """The models whose templates shape a chat; the harness keeps rendered prompts under this name."""
        return "+".join(model.name.replace("/", "__") for model in self.decoder.models)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The token ids of a text. Where the text begins with BOS already, none is added."""
        if add_special_tokens is None:
            begins = self.tokenizer.bos_token and string.startswith(self.tokenizer.bos_token)
            add_special_tokens = self.settings.add_special_tokens and not begins
        return self.decoder.draft.encode(string, add_special_tokens=add_special_tokens)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The chat as the draft is shown it. What every model is shown is found again by this text.

        Args:
            chat_history: The messages.
            add_generation_prompt: False where the last message is the beginning of the answer.
        """
        messages, begun = chat_history, ""
        if not add_generation_prompt:
            *messages, last = chat_history
            begun = last["content"]
        text = render(Chat(messages), self.decoder.models).text + begun
        self._chats[text] = (messages, begun)
        return text

    # What it lets the model do

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Let the models write. Texts are those of :meth:`CoSDDecoder.generate`.

        A prompt that is too long is cut from the left, as the harness does for every model, unless
        ``truncation`` was set.

        Raises:
            InvalidOptionError: A task gives an option that means nothing here.
            ContextOverflowError: The longest answer leaves no room for a prompt.
        """
        alike: dict[str, list[int]] = {}
        for at, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[1], sort_keys=True, default=repr), []).append(at)
        texts: dict[int, str] = {}
        with tqdm(total=len(requests), disable=disable_tqdm, desc="cosd: generate_until") as bar:
            for group in alike.values():
                prompts = [self._shown(requests[at].args[0]) for at in group]
                options = self._options(requests[group[0]].args[1])
                for step in self.decoder.steps(prompts, **options):
                    if step.generation:
                        at = group[step.index]
                        texts[at] = step.generation.text
                        self.cache_hook.add_partial("generate_until", requests[at].args, texts[at])
                        bar.update()
        return [texts[at] for at in range(len(requests))]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts, in windows of the largest length that every model bears."""
        windows: list[tuple[None, list[int], list[int]]] = []
        owners = []
        for at, request in enumerate(requests):
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            for window in get_rolling_token_windows(
                token_list=ids,
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            ):
                windows.append((None, *make_disjoint_window(window)))
                owners.append(at)
        totals = [0.0] * len(requests)
        scored = self._loglikelihood_tokens(windows, disable_tqdm=disable_tqdm)
        for at, (log, _) in zip(owners, scored, strict=True):
            totals[at] += log
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    # How it does it

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Prompt and continuation in tokens; what follows a chat is read by itself."""
        if context in self._chats:
            return list(self._prompts(context)[0]), self.tok_encode(continuation, add_special_tokens=False)
        both: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        return both

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        texts: list[Continuation] = []
        for words, context, ids in requests:
            shown = self._prompts(words[0]) if words is not None and words[0] in self._chats else None
            prompts = shown or (tuple(context),) * len(self.decoder.models)
            texts.append(Continuation(self._cut(prompts, len(ids)), tuple(ids)))
        with tqdm(total=len(texts), disable=disable_tqdm, desc="cosd: loglikelihood") as bar:
            found = log_likelihoods(self.decoder, texts, progress=bar.update)
        scored = [(each.log, each.greedy) for each in found]
        for (words, *_ids), answer in zip(requests, scored, strict=True):
            if words is not None:
                self.cache_hook.add_partial("loglikelihood", words, answer)
        return scored

    def _shown(self, context: str) -> Any:
        """A prompt of :meth:`CoSDDecoder.steps`."""
        if context not in self._chats:
            return self.tok_encode(context) or [self.prefix_token_id]
        messages, begun = self._chats[context]
        prompt = render(Chat(messages), self.decoder.models)
        if not begun:
            return prompt
        ids = tuple(self.tok_encode(begun, add_special_tokens=False))
        return type(prompt)(
            prompt.text + begun, tuple((*own, *ids) for own in prompt.ids), prompt.format, prompt.stop
        )

    def _prompts(self, chat: str) -> _Prompts:
        shown: _Prompts = self._shown(chat).ids
        return shown

    def _cut(self, prompts: _Prompts, ids: int) -> _Prompts:
        """Cut prompts from the left to what the context windows take besides the scored tokens."""
        room = self.max_length + 1 - ids  # the last token is scored, but not read
        if room < 1:
            raise ContextOverflowError(
                f"a text of {ids} tokens is to be scored, more than the context window of {self.max_length}"
            )
        return tuple(own[-room:] for own in prompts)

    def _options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A task's options in our words; what the task leaves open is as the settings say."""
        own = {name: getattr(self.settings, name) for name in self._set_by_user()}
        return read_task_options(given, settings=own, most=self.max_gen_toks)

    def _set_by_user(self) -> list[str]:
        return [name for name in GenerationOptions.model_fields if name in self.settings.model_fields_set]


def _divided(name: str, value: Any) -> Any:
    """The values between plus signs; a path that has one in its name is one value."""
    if not isinstance(value, str) or "+" not in value or Path(value).exists():
        return value
    words = value.split("+")
    if name != "calibration":
        return words
    try:
        return list(map(float, words))
    except ValueError:
        raise InvalidOptionError(
            f"calibration={quoted(value)} should hold numbers with a plus sign between them, such as 1.2+0.8"
        ) from None


def _batch_size(size: int | str | None, most: int | None) -> int | None:
    if size is None or str(size).startswith("auto"):
        return most
    try:
        return int(size)
    except ValueError:
        raise InvalidOptionError(
            f'batch_size={quoted(size)} should be a whole number of at least 1, or "auto"'
        ) from None


def _device(device: Any) -> Any:
    missing = str(device).startswith("cuda") and not torch.cuda.is_available()
    return "auto" if missing else device
