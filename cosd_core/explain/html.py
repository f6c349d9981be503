"""A generation as an HTML page, and as a fragment for notebooks."""

from collections.abc import Iterator
from functools import cache
from hashlib import blake2s
from html import escape
from importlib import resources
from string import Template

from cosd_core.explain.answers import Answer, as_generation
from cosd_core.explain.tokens import ExplainedToken, explained_tokens, figures
from cosd_core.outputs import Generation
from cosd_core.utils.escaping import harmless, html_text, mark_whitespace, quote

_MAX_OPEN_PROMPT = 300
"""A prompt of more characters is folded."""


def to_html(answer: Answer, *, title: str | None = None) -> str:
    """A self-contained page that makes no network request.

    Hovering, touching or focusing a token shows which model wrote it, both confidences, and the verifier's
    reason. Tab moves between the tokens on which the models differ, the arrow keys to neighbouring tokens.

    Args:
        answer: The generation to show, or an answer that carries it (:func:`as_generation`).
        title: The heading; "Who wrote what" unless given.

    Raises:
        TraceError: The answer carries no trace, or a damaged one.
    """
    heading = html_text(title or "Who wrote what")
    fragment = to_html_fragment(answer)
    return Template(_read_asset("page.html")).substitute(title=heading, fragment=fragment)


def to_html_fragment(answer: Answer) -> str:
    """The content of :func:`to_html` for a notebook: without script, its styles limited to this fragment."""
    generation = as_generation(answer)
    tokens = list(explained_tokens(generation))
    digest = blake2s(repr(generation).encode(), digest_size=4).hexdigest()  # ids are unique in a notebook
    answer = "".join(_token_html(each, f"cosd-{digest}-{index}") for index, each in enumerate(tokens))
    prompt, folded = f'<span class="prompt">{html_text(generation.prompt)}</span>', ""
    if len(generation.prompt) > _MAX_OPEN_PROMPT:
        label = f"<summary>Prompt, {generation.prompt_tokens:,} tokens</summary>"
        prompt, folded = "", f'<details class="text">{label}{prompt}</details>'
    terms = [f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in figures(generation)]
    style = f"<style>{_read_asset('fragment.css')}</style>"
    return (
        f'<section class="cosd" aria-label="Text by source">{style}{folded}'
        f'<div class="text" lang="" dir="auto">{prompt}<span class="answer">{answer}</span></div>'
        f'<ul class="legend">{_legend_html(tokens)}</ul><dl class="figures">{"".join(terms)}</dl></section>'
    )


@cache
def _read_asset(name: str) -> str:
    return resources.files("cosd_core.explain").joinpath(name).read_text("utf-8")


def _token_html(each: ExplainedToken, card_id: str) -> str:
    """One token and its card. The Tab key skips tokens that need no explanation."""
    tag, kind = "mark" if each.outcome == "replaced" else "span", "t"
    kind += f" a{each.color + 1}" if each.outcome != "unchecked" else ""
    kind += " disputed" if each.outcome == "disputed" else ""
    text = escape(harmless(each.text), quote=False)
    if each.outcome == "replaced":
        text = mark_whitespace(text, '<i class="sign" data-sign="{}"></i>')
    text += f"<s>{escape(quote(each.cut))}</s>" if each.cut else ""
    if not text:
        text = f'<i class="{"end" if each.is_end else "empty"}"></i>'
    if each.outcome in ("agreed", "unchecked") and not each.cut and not each.is_end:
        card = f'<span class="card" hidden>{_card_html(each)}</span>'
        return f'<span class="{kind}" tabindex="-1">{text}{card}</span>'
    return (
        f'<{tag} class="{kind}" tabindex="0" aria-describedby="{card_id}">{text}'
        f'<span class="card" id="{card_id}" role="tooltip" hidden>{_card_html(each)}</span></{tag}>'
    )


def _card_html(each: ExplainedToken) -> str:
    """The models' tokens with their confidences, the verifier's reason, and notes."""
    token, name = each.token, escape(each.named_assistant)
    heads = {
        "replaced": f"{name} in place of the draft",
        "disputed": f"draft kept, {name} disagreed",
        "agreed": f"draft, and {name} agrees",
        "unchecked": "draft, assistant not asked",
    }
    replaced = each.outcome == "replaced"
    draft_text = quote(token.other_text if replaced else token.text, token.draft_id)
    rows = _row_html("draft", draft_text, "p", token.p, rejected=replaced)
    if token.q is not None and token.assistant_id is not None:
        assistant_text = quote(each.assistant_text, token.assistant_id)
        rows += _row_html(each.assistant, assistant_text, "q", token.q, rejected=each.outcome == "disputed")
    notes = "".join(f"<em>{escape(note)}</em>" for note in _notes(each))
    return f"<b>{heads[each.outcome]}</b>{rows}<em>{escape(each.reason)}</em>{notes}"


def _row_html(model: str, text: str, symbol: str, confidence: float, *, rejected: bool) -> str:
    tag = "del" if rejected else "kbd"
    return (
        f'<span class="row">{model} <{tag}>{escape(text)}</{tag}> '
        f'<i style="--share:{confidence:.0%}"></i><var>{symbol} = {confidence:.2f}</var></span>'
    )


def _notes(each: ExplainedToken) -> Iterator[str]:
    if each.is_end:
        yield "this token ends the text"
    elif not each.token.text:
        yield "it adds no text of its own: a special token, or a part of a character"
    if each.cut:
        yield "the stop sequence ended the text here; what is struck is not in it"


def _legend_html(tokens: list[ExplainedToken]) -> str:
    """The legend: an entry for every kind of mark in this text."""
    entries = {'<span class="t">draft</span>': True}
    for each in sorted(tokens, key=lambda each: each.assistant_number):
        if each.outcome == "replaced":
            entries[f'<mark class="t a{each.color + 1}">{escape(each.named_assistant)}</mark>'] = True
    entries['<span class="t disputed">draft, assistant disagreed</span>'] = any(
        each.outcome == "disputed" for each in tokens
    )
    entries["<s>cut off by the stop sequence</s>"] = any(each.cut for each in tokens)
    entries['<i class="end"></i> end of text'] = any(each.is_end for each in tokens)
    return "".join(f"<li>{entry}</li>" for entry, occurs in entries.items() if occurs)


# Notebooks call this method. Defined in outputs.py it would make an import circle.
Generation._repr_html_ = to_html_fragment  # type: ignore[attr-defined]  # see above
