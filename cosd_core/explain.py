"""Shows who wrote what: coloured text for terminals, an HTML page, and a fragment of it for notebooks.

Token texts are hostile: none reaches a terminal or a page unescaped. What stands beside the text, such as
marks and cards, stays out of what a reader of a page selects and copies.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2s
from html import escape
from importlib import resources
from pathlib import PurePath
from string import Template
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cosd_core.models.naming import with_adapter, without_adapter
from cosd_core.outputs import Generation, TracedToken
from cosd_core.verifiers import ConfidenceVerifier, PanelVerifier, Verifier

Fate = Literal["replaced", "disputed", "agreed", "alone"]

_STYLES = ("bold underline color(166)", "bold underline2 color(30)", "bold underline color(133)")
_DISPUTED, _CUT, _QUIET = "italic", "dim strike", "dim"
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_GLYPHS = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})
_CONTROLS = str.maketrans(
    {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
    | {0x7F: "␡"}
    | dict.fromkeys(range(0x80, 0xA0), "\N{REPLACEMENT CHARACTER}")
)
_LONGEST_QUOTE, _LONGEST_PROMPT = 40, 300


@dataclass(frozen=True, slots=True)
class _Piece:
    """What there is to tell about one token.

    Attributes:
        token: The token.
        text: The part of its text that is in the answer.
        cut: The part that belongs to the stop sequence, or comes after it.
        fate: What became of the draft's proposal.
        ends: Whether this is the end-of-sequence token.
        rank: The assistant, counted from 1, or 0 where there is only one.
        name: What that assistant is called, or nothing where there is only one or no name is known.
        theirs: What the assistant would have written, as far as it is known.
        reason: Why it stands here.
    """

    token: TracedToken
    text: str
    cut: str
    fate: Fate
    ends: bool
    rank: int
    name: str
    theirs: str | None
    reason: str

    @property
    def assistant(self) -> str:
        """What to call the assistant that had a say in it."""
        return f"assistant {self.rank}" if self.rank else "assistant"

    @property
    def in_full(self) -> str:
        """The same with its name."""
        return f"{self.assistant} ({self.name})" if self.name else self.assistant

    @property
    def style(self) -> int:
        """The number of the colour of that assistant."""
        return max(self.rank - 1, 0) % len(_STYLES)


def to_text(generation: Generation, *, prompt: bool = False) -> Text:
    """The answer for a terminal: plain where the draft wrote, bold and underlined where an assistant did.

    Italic is a draft token that an assistant disputed in vain, struck the stop sequence that was cut off.
    Control characters are shown as pictures, whitespace by an assistant as ␣ ↵ ⇥, the end-of-sequence
    token as ■. With several assistants a small number follows what each wrote.

    Args:
        generation: What to show.
        prompt: Whether to begin with the prompt, dimmed.
    """
    text = Text()
    text.append(harmless(generation.prompt) if prompt else "", _QUIET)
    for piece in _pieces(generation):
        style, shown = _DISPUTED if piece.fate == "disputed" else "", harmless(piece.text)
        if piece.fate == "replaced":
            style, shown = _STYLES[piece.style], _mark_whitespace(shown, "{}")
            shown += "" if shown or piece.cut or piece.ends else "▫"
            shown += str(piece.rank).translate(_SUPERSCRIPTS) if piece.rank else ""
        text.append(shown, style)
        text.append(_quote(piece.cut) if piece.cut else "", _CUT)
        text.append("■" if piece.ends else "", style or _QUIET)
    return text


def summary(generation: Generation, *, replacements: int = 20) -> RenderableType:
    """For a terminal: what the answer cost, and what the assistants replaced and why.

    Args:
        generation: What to show.
        replacements: The most replacements to list.
    """
    figures = Table.grid(padding=(0, 2))
    for name, value in _figures(generation):
        figures.add_row(Text(name, _QUIET), Text(value))
    pieces = enumerate(_pieces(generation), 1)
    replaced = [(at, piece) for at, piece in pieces if piece.fate == "replaced"]
    if not replaced:
        return Group(figures, Text("No token was replaced.", _QUIET))
    table = Table("token", "by", "draft", "p", "written", "q", "why", box=None, header_style=_QUIET)
    for at, piece in replaced[:replacements]:
        token = piece.token
        rejected = Text(_quote(token.other_text, token.draft_id), "strike")
        written = Text(_quote(token.text, token.id), _STYLES[piece.style])
        p, q = (f"{share:.2f}" for share in (token.p, token.q or 0.0))
        table.add_row(str(at), Text(piece.in_full), rejected, p, written, q, Text(piece.reason))
    more = len(replaced) - replacements
    return Group(figures, "", table, *[Text(f"and {more} more", _QUIET)] * (more > 0))


def to_html(generation: Generation, *, title: str | None = None) -> str:
    """A self-contained page that asks nothing of the network.

    Hovering, touching or focusing a token shows who wrote it, how sure each model was, and why it stands.
    Tab goes to the tokens the models differ on, the arrow keys from there to their neighbours.

    Args:
        generation: What to show.
        title: The heading; "Who wrote what" unless given.
    """
    heading = escape(harmless(title or "Who wrote what"))
    fragment = to_html_fragment(generation)
    return Template(_data("explain.html")).substitute(title=heading, fragment=fragment)


def to_html_fragment(generation: Generation) -> str:
    """The same for a notebook: without script, and with styles that touch nothing else."""
    pieces = list(_pieces(generation))
    mark = blake2s(repr(generation).encode(), digest_size=4).hexdigest()
    tokens = "".join(_token_html(piece, f"cosd-{mark}-{at}") for at, piece in enumerate(pieces))
    prompt, folded = f'<span class="prompt">{escape(harmless(generation.prompt))}</span>', ""
    if len(generation.prompt) > _LONGEST_PROMPT:
        label = f"<summary>Prompt, {generation.prompt_tokens:,} tokens</summary>"
        prompt, folded = "", f'<details class="text">{label}{prompt}</details>'
    figures = [f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in _figures(generation)]
    return (
        f'<section class="cosd" aria-label="Text by source"><style>{_data("explain.css")}</style>{folded}'
        f'<div class="text" lang="" dir="auto">{prompt}<span class="answer">{tokens}</span></div>'
        f'<ul class="legend">{_legend_html(pieces)}</ul><dl class="figures">{"".join(figures)}</dl></section>'
    )


# What there is to tell


def _pieces(generation: Generation) -> Iterator[_Piece]:
    """Tell the tokens apart, and cut their texts where the answer ends."""
    tokens = _replacements_in_one(generation.tokens)
    room, last = len(generation.text), len(tokens) - 1
    by_token = generation.finish_reason == "stop" and generation.stop_sequence is None
    models = generation.models
    for at, token in enumerate(tokens):
        text, cut = token.text[:room], token.text[room:]
        room -= len(text)
        rank = token.assistant_index + 1 if len(models) > 2 and token.assistant_index is not None else 0
        name = _short(models[rank]) if rank else ""
        fate = _fate(token)
        reason = _reason(generation.verifier, token, fate)
        # What a mixture picks need not be what the assistant itself would write.
        own = fate == "agreed" or token.id == token.assistant_id or not generation.verifier.needs_logits
        theirs = token.other_text if fate == "disputed" else token.text if own else None
        yield _Piece(token, text, cut, fate, by_token and at == last, rank, name, theirs, reason)


def _replacements_in_one(tokens: Sequence[TracedToken]) -> list[TracedToken]:
    """What an assistant wrote may be several of the draft's tokens: they have one story."""
    joined: list[TracedToken] = []
    for token in tokens:
        if token.source == "assistant" and token.other_text == "":
            joined[-1] = replace(joined[-1], text=joined[-1].text + token.text)
        else:
            joined.append(token)
    return joined


def _fate(token: TracedToken) -> Fate:
    if token.source == "assistant":
        return "replaced"
    if token.q is None:
        return "alone"
    return "agreed" if token.other_text is None else "disputed"


def _reason(verifier: Verifier, token: TracedToken, fate: Fate) -> str:
    if token.q is None:
        safe = not verifier.can_replace(token.p)
        return "no answer could have replaced this token" if safe else "this token was not checked"
    if fate == "agreed":
        return "both would write this token"
    if isinstance(verifier, ConfidenceVerifier) and token.assistant_index is not None:
        verifier = verifier.for_assistant(token.assistant_index)
    return verifier.reason(token.p, token.q, replaced=fate == "replaced")


def _figures(generation: Generation) -> Iterator[tuple[str, str]]:
    """What the generation cost, as names and values."""
    stats, tokens = generation.stats, len(generation.tokens)
    stop = f"stop sequence {_quote(generation.stop_sequence)}" if generation.stop_sequence else "end token"
    yield "Tokens", f"{tokens:,} ({stats.tokens_per_second:,.1f} per second)"
    yield "Rounds", f"{stats.rounds:,}"
    yield "Drafted", f"{stats.drafted:,}"
    yield "Kept", f"{stats.kept:,} ({stats.acceptance_rate:.0%})"
    yield "Replaced", f"{stats.replaced:,}"
    yield "Discarded", f"{stats.discarded:,}"
    yield "Passes", f"{stats.draft_passes:,} draft, {stats.assistant_passes:,} assistant"
    yield "Skipped", f"{stats.assistant_skipped:,} of {tokens:,} not asked"
    yield "Models", ", ".join(map(_short, generation.models))
    yield "Verifier", _said(generation.verifier)
    if any(temperature != 1 for temperature in generation.calibration):
        yield "Calibration", ", ".join(f"{temperature:g}" for temperature in generation.calibration)
    yield "Ended by", stop if generation.finish_reason == "stop" else "length limit"


def _said(verifier: Verifier) -> str:
    """A verifier by its name and its numbers; of a panel, every member."""
    if isinstance(verifier, PanelVerifier):
        return "; ".join(f"{at}: {_said(each)}" for at, each in enumerate(verifier.members, 1))
    settings = verifier.to_dict().items()
    numbers = [f"{name} {value:g}" for name, value in settings if isinstance(value, int | float)]
    return ", ".join([verifier.name, *numbers])


# How text is shown


def _short(name: str) -> str:
    """What a model is called in a line: a hub id as it is, of a path the last part; so with its adapter."""
    short = [each if each.count("/") < 2 else PurePath(each).name for each in without_adapter(name) if each]
    return _quote(with_adapter(short[0], short[1] if len(short) > 1 else None))


def harmless(text: str) -> str:
    """Control characters, which could steer a terminal or vanish in a page, as pictures."""
    return text.translate(_CONTROLS)


def _quote(text: str | None, token_id: int | None = None) -> str:
    """A short text in one line, its outer whitespace visible; the id of a token that has no text."""
    if not text:
        return f"token {token_id}"
    shown = re.sub(r"^ +| +$|[\n\t]", lambda found: found[0].translate(_GLYPHS), harmless(text))
    return shown if len(shown) <= _LONGEST_QUOTE else shown[:_LONGEST_QUOTE] + "…"


def _mark_whitespace(text: str, mark: str) -> str:
    """Put a mark before line breaks and tabs, and before spaces where there is nothing else."""
    places = "[\n\t]" if text.strip() else "[ \n\t]"
    return re.sub(places, lambda found: mark.format(found[0].translate(_GLYPHS)) + found[0], text)


# HTML


@cache
def _data(name: str) -> str:
    return resources.files("cosd_core").joinpath(name).read_text("utf-8")


def _token_html(piece: _Piece, mark: str) -> str:
    """One token and its card. Only a token with a story is a stop of the Tab key."""
    tag, kind = "mark" if piece.fate == "replaced" else "span", "t"
    kind += f" a{piece.style + 1}" if piece.fate != "alone" else ""
    kind += " disputed" if piece.fate == "disputed" else ""
    text = escape(harmless(piece.text), quote=False)
    if piece.fate == "replaced":
        text = _mark_whitespace(text, '<i class="sign" data-sign="{}"></i>')
    text += f"<s>{escape(_quote(piece.cut))}</s>" if piece.cut else ""
    if not text:
        text = f'<i class="{"end" if piece.ends else "empty"}"></i>'
    if piece.fate in ("agreed", "alone") and not piece.cut and not piece.ends:
        card = f'<span class="card" hidden>{_card_html(piece)}</span>'
        return f'<span class="{kind}" tabindex="-1">{text}{card}</span>'
    return (
        f'<{tag} class="{kind}" tabindex="0" aria-describedby="{mark}">{text}'
        f'<span class="card" id="{mark}" role="tooltip" hidden>{_card_html(piece)}</span></{tag}>'
    )


def _card_html(piece: _Piece) -> str:
    """Who wrote the token, how sure each model was of its own, and why."""
    token, name = piece.token, escape(piece.in_full)
    heads = {
        "replaced": f"{name} in place of the draft",
        "disputed": f"draft kept, {name} disagreed",
        "agreed": f"draft, and {name} agrees",
        "alone": "draft, assistant not asked",
    }
    other = token.other_text
    won = piece.fate == "replaced"
    rows = _row_html("draft", _quote(other if won else token.text, token.draft_id), "p", token.p, lost=won)
    if token.q is not None and token.assistant_id is not None:
        chip = _quote(piece.theirs, token.assistant_id)
        rows += _row_html(piece.assistant, chip, "q", token.q, lost=piece.fate == "disputed")
    notes = "".join(f"<em>{escape(note)}</em>" for note in _notes(piece))
    return f"<b>{heads[piece.fate]}</b>{rows}<em>{escape(piece.reason)}</em>{notes}"


def _row_html(who: str, text: str, symbol: str, share: float, *, lost: bool) -> str:
    tag = "del" if lost else "kbd"
    return (
        f'<span class="row">{who} <{tag}>{escape(text)}</{tag}> '
        f'<i style="--share:{share:.0%}"></i><var>{symbol} = {share:.2f}</var></span>'
    )


def _notes(piece: _Piece) -> Iterator[str]:
    if piece.ends:
        yield "this token ends the text"
    elif not piece.token.text:
        yield "it adds no text of its own: a special token, or a part of a character"
    if piece.cut:
        yield "the stop sequence ended the text here; what is struck is not in it"


def _legend_html(pieces: list[_Piece]) -> str:
    """The signs that occur."""
    entries = {'<span class="t">draft</span>': True}
    for piece in sorted(pieces, key=lambda piece: piece.rank):
        if piece.fate == "replaced":
            entries[f'<mark class="t a{piece.style + 1}">{escape(piece.in_full)}</mark>'] = True
    entries['<span class="t disputed">draft, assistant disagreed</span>'] = any(
        piece.fate == "disputed" for piece in pieces
    )
    entries["<s>cut off by the stop sequence</s>"] = any(piece.cut for piece in pieces)
    entries['<i class="end"></i> end of text'] = any(piece.ends for piece in pieces)
    return "".join(f"<li>{entry}</li>" for entry, occurs in entries.items() if occurs)
