"""CoSD as a model of lm-evaluation-harness (EleutherAI, ``pip install "cosd[evaluate]"``).

Importing this file registers the model ``cosd``. The harness's own command does not import it, so it does not
find the model; ``cosd lm-eval`` is that command with this file imported::

    cosd lm-eval run --model cosd --model_args draft=org/model-a,assistant=org/model-b,alpha=0.7 --tasks gsm8k

Several values of one setting are separated by plus signs: ``assistant=org/model-b+org/model-c``.

In Python ``lm_eval.simple_evaluate(model="cosd", model_args={...})`` works once this file is imported.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

from tqdm import tqdm

from cosd_core.chat.messages import Chat
from cosd_core.chat.rendering import render
from cosd_core.cross_tokenizer.word_boundaries import word_ends
from cosd_core.errors import ContextOverflowError, MissingExtraError
from cosd_core.evaluation.likelihood import Continuation, log_likelihoods
from cosd_core.evaluation.lm_eval_arguments import read_arguments
from cosd_core.evaluation.lm_eval_options import read_task_options
from cosd_core.evaluation.word_likelihood import TextContinuation, word_likelihoods
from cosd_core.generation.requests import read_prompts
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.vocabulary_alignment import align
from cosd_core.options import GenerationOptions

try:
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string
except ImportError as error:
    raise MissingExtraError(
        f'lm-evaluation-harness is not installed ({error}): pip install "cosd[evaluate]"'
    ) from error

__all__ = ["CoSDLM", "cli_evaluate"]

_MOST_TOKENS = 256
"""The longest answer if neither task nor user gives one, as in the harness."""

_LONGEST = 2048
"""The longest text that is scored in one window if no model has a limit, as in the harness."""

_Prompts = tuple[tuple[int, ...], ...]


@register_model("cosd")
class CoSDLM(TemplateLM):  # type: ignore[misc]  # the harness is not typed
    """A draft with its assistants as one model of the harness.

    ``cosd_core/evaluation/likelihood.py`` defines the score of ``loglikelihood``, ``word_likelihood.py`` that
    of models with different tokens. A chat is rendered by every model's own template; the harness gets the
    draft's rendering.

    Attributes:
        settings: The settings.
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
            device: The device of the models. The harness's default ``cuda:0`` counts as ``"auto"`` if
                there is no CUDA device.
            **settings: The fields of :class:`Settings`; ``draft`` and ``assistant`` name the models.

        Raises:
            InvalidOptionError: A setting is unknown or wrong.
            CoSDError: As :meth:`CoSDDecoder.from_pretrained`.
        """
        super().__init__()
        self.settings = read_arguments(settings, batch_size, max_batch_size, device)
        self.decoder = self.settings.decoder()
        self._alignment = align(self.decoder.models)
        self.tokenizer = self.decoder.draft.tokenizer
        self.batch_size = self.decoder.batch_size
        self._device = self.decoder.draft.device
        self._chats: dict[str, tuple[Sequence[Mapping[str, Any]], str]] = {}

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> Self:
        """Make one from ``model_args``, which take precedence over the harness's own options."""
        options = {name: value for name, value in (additional_config or {}).items() if value is not None}
        return cls(**{**options, **arg_dict})

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: Mapping[str, Any] | None = None
    ) -> Self:
        """The same from ``model_args`` as one string."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    # Properties that the harness reads

    @property
    def eot_token_id(self) -> int | None:
        """The token that ends a text."""
        return _end_token(self.decoder.draft)

    @property
    def prefix_token_id(self) -> int | None:
        """The token before a text without a prompt: BOS, else the end token."""
        return _prefix_token(self.decoder.draft)

    @property
    def max_length(self) -> int:
        """The smallest context window, in tokens."""
        windows = [model.context_length for model in self.decoder.models if model.context_length]
        return min(windows, default=_LONGEST)

    @property
    def max_gen_toks(self) -> int:
        """The longest answer in tokens if a task gives none."""
        given = "max_new_tokens" in self.settings.model_fields_set
        return self.settings.max_new_tokens if given else _MOST_TOKENS

    @property
    def tokenizer_name(self) -> str:
        """The names of all models. The harness caches rendered prompts by it, and all templates render."""
        return "+".join((model.source or model.name).replace("/", "__") for model in self.decoder.models)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The token ids of a text. No BOS is added to a text that begins with it."""
        if add_special_tokens is None:
            begins = self.tokenizer.bos_token and string.startswith(self.tokenizer.bos_token)
            add_special_tokens = self.settings.add_special_tokens and not begins
        return self.decoder.draft.encode(string, add_special_tokens=add_special_tokens)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The draft's rendering of a chat. The chat itself is stored under this text, for the other models.

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

    # Requests of the harness

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate texts, the same as :meth:`CoSDDecoder.generate`.

        A prompt that is too long is cut from the left, as the harness does for every model, unless
        ``truncation`` was set.

        Raises:
            InvalidOptionError: A task gives an option that has no meaning here.
            ContextOverflowError: The longest answer leaves no room for a prompt.
        """
        groups: dict[str, list[int]] = {}  # by their options
        for number, request in enumerate(requests):
            options = json.dumps(request.args[1], sort_keys=True, default=repr)
            groups.setdefault(options, []).append(number)
        texts: dict[int, str] = {}
        with tqdm(total=len(requests), disable=disable_tqdm, desc="cosd: generate_until") as bar:
            for group in groups.values():
                prompts = [self._prompt(requests[number].args[0]) for number in group]
                for step in self.decoder.steps(prompts, **self._options(requests[group[0]].args[1])):
                    if step.generation:
                        number = group[step.index]
                        texts[number] = step.generation.text
                        self.cache_hook.add_partial("generate_until", requests[number].args, texts[number])
                        bar.update()
        return [texts[number] for number in range(len(requests))]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts, in windows that fit the smallest context window."""
        windows: list[Continuation | TextContinuation] = []
        owners = []
        for number, request in enumerate(requests):
            divide: Any = self._windows if self.decoder.shares_vocabulary else self._text_windows
            for window in divide(request.args[0]):
                windows.append(window)
                owners.append(number)
        totals = [0.0] * len(requests)
        scored = self._scored(windows, disable_tqdm)
        for number, (log, _) in zip(owners, scored, strict=True):
            totals[number] += log
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    # Implementation

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Prompt and continuation in tokens; the continuation of a chat is encoded by itself."""
        if context in self._chats:
            return list(self._chat_ids(context)[0]), self.tok_encode(continuation, add_special_tokens=False)
        both: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        return both

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        texts: list[Continuation | TextContinuation] = []
        for words, context, ids in requests:
            if not self.decoder.shares_vocabulary:
                texts.append(self._text_continuation(*words))
                continue
            prompts = (tuple(context),) * len(self.decoder.models)
            if words[0] in self._chats:
                prompts = self._chat_ids(words[0])
            texts.append(Continuation(self._cut(prompts, len(ids)), tuple(ids)))
        scored = self._scored(texts, disable_tqdm)
        for (words, *_ids), answer in zip(requests, scored, strict=True):
            self.cache_hook.add_partial("loglikelihood", words, answer)
        return scored

    def _scored(
        self, texts: Sequence[Continuation | TextContinuation], disable_tqdm: bool
    ) -> list[tuple[float, bool]]:
        score: Any = log_likelihoods if self.decoder.shares_vocabulary else word_likelihoods
        with tqdm(total=len(texts), disable=disable_tqdm, desc="cosd: loglikelihood") as bar:
            return [(each.log, each.greedy) for each in score(self.decoder, texts, progress=bar.update)]

    def _windows(self, text: str) -> Iterator[Continuation]:
        """A text in windows as long as the smallest context window, for models that share tokens."""
        for window in get_rolling_token_windows(
            token_list=self.tok_encode(text, add_special_tokens=False),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        ):
            context, ids = make_disjoint_window(window)
            yield Continuation((tuple(context),) * len(self.decoder.models), tuple(ids))

    def _text_windows(self, text: str) -> Iterator[TextContinuation]:
        """A text in parts, each after the part before it, for models with different tokens.

        Both parts together have at most as many bytes as the smallest context window has tokens, so they fit.
        """
        parts, whole = [b"", b""], text.encode()
        for start, end in pairwise([0, *word_ends(whole, 0), len(whole)]):
            if parts[-1] and len(parts[-1]) + end - start > self.max_length // 2:
                parts.append(b"")
            parts[-1] += whole[start:end]
        for before, part in pairwise(parts):
            if part:
                yield TextContinuation(self._text_prompts(before.decode()), part.decode())

    def _text_continuation(self, context: str, text: str) -> TextContinuation:
        """A text and its prompt; spaces at the end of the prompt are the text's, as in the harness."""
        spaces = 0 if context in self._chats else len(context) - len(context.rstrip())
        begin = len(context) - spaces
        return TextContinuation(self._text_prompts(context[:begin]), context[begin:] + text)

    def _text_prompts(self, context: str) -> _Prompts:
        """A prompt in every model's own tokens; without text, the token before texts."""
        if context in self._chats:
            return self._chat_ids(context)
        if not context:
            begins = map(_prefix_token, self.decoder.models)
            return tuple(() if each is None else (each,) for each in begins)
        options = GenerationOptions(
            max_new_tokens=1, truncation=True, add_special_tokens=self.settings.add_special_tokens
        )
        [request] = read_prompts([context], options, self.decoder.models, self._alignment)
        return request.prompts

    def _prompt(self, context: str) -> Any:
        """A prompt for :meth:`CoSDDecoder.steps`."""
        if context not in self._chats:
            return self.tok_encode(context) or [self.prefix_token_id]
        messages, begun = self._chats[context]
        prompt = render(Chat(messages), self.decoder.models)
        if not begun:
            return prompt
        ids = tuple(self.tok_encode(begun, add_special_tokens=False))
        return type(prompt)(
            prompt.text + begun, tuple((*each, *ids) for each in prompt.ids), prompt.format, prompt.stop
        )

    def _chat_ids(self, chat: str) -> _Prompts:
        ids: _Prompts = self._prompt(chat).ids
        return ids

    def _cut(self, prompts: _Prompts, ids: int) -> _Prompts:
        """Cut prompts from the left, so that they fit the context windows with the scored tokens."""
        room = self.max_length + 1 - ids  # the last token is scored, but not read
        if room < 1:
            raise ContextOverflowError(
                f"a text of {ids} tokens is to be scored, more than the context window of {self.max_length}"
            )
        return tuple(each[-room:] for each in prompts)

    def _options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A task's options, else the user's settings."""
        names = self.settings.model_fields_set & set(GenerationOptions.model_fields)
        settings = {name: getattr(self.settings, name) for name in names}
        return read_task_options(given, settings=settings, most=self.max_gen_toks)


def _end_token(model: BaseLanguageModel) -> int | None:
    """The token that ends a model's texts."""
    eos = model.tokenizer.eos_token_id
    return eos if eos is not None else min(model.eos_token_ids, default=None)


def _prefix_token(model: BaseLanguageModel) -> int | None:
    """The token before a text without a prompt: BOS, else the end token."""
    bos = model.tokenizer.bos_token_id
    return bos if bos is not None else _end_token(model)
