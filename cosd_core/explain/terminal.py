"""A generation for terminals, drawn by rich."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cosd_core.explain.answers import Answer, as_generation
from cosd_core.explain.tokens import explained_tokens, figures
from cosd_core.utils.escaping import harmless, mark_whitespace, quote

ASSISTANT_STYLES = ("bold underline color(166)", "bold underline2 color(30)", "bold underline color(133)")
_DISPUTED, _CUT, _QUIET = "italic", "dim strike", "dim"
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def to_text(answer: Answer, *, prompt: bool = False) -> Text:
    """The answer for a terminal: the draft's tokens plain, the assistants' tokens bold and underlined.

    A draft token that was kept although an assistant disagreed is italic, the stop sequence that was cut off
    is struck through. Control characters are shown as symbols, an assistant's white space as ␣ ↵ ⇥, the
    end-of-sequence token as ■. With several assistants a small number follows each assistant's token.

    Args:
        answer: The generation to show, or an answer that carries it (:func:`as_generation`).
        prompt: Whether to begin with the prompt, dimmed.

    Raises:
        TraceError: The answer carries no trace, or a damaged one.
    """
    generation = as_generation(answer)
    text = Text()
    text.append(harmless(generation.prompt) if prompt else "", _QUIET)
    for each in explained_tokens(generation):
        style, shown = _DISPUTED if each.outcome == "disputed" else "", harmless(each.text)
        if each.outcome == "replaced":
            style, shown = ASSISTANT_STYLES[each.color], mark_whitespace(shown, "{}")
            shown += "" if shown or each.cut or each.is_end else "▫"
            shown += str(each.assistant_number).translate(_SUPERSCRIPTS) if each.assistant_number else ""
        text.append(shown, style)
        text.append(quote(each.cut) if each.cut else "", _CUT)
        text.append("■" if each.is_end else "", style or _QUIET)
    return text


def summary(answer: Answer, *, replacements: int = 20) -> RenderableType:
    """For a terminal: the statistics of a generation, and a table of the replaced tokens with the reasons.

    Args:
        answer: The generation to show, or an answer that carries it (:func:`as_generation`).
        replacements: The maximum number of replacements in the table.

    Raises:
        TraceError: The answer carries no trace, or a damaged one.
    """
    generation = as_generation(answer)
    grid = Table.grid(padding=(0, 2))
    for name, value in figures(generation):
        grid.add_row(Text(name, _QUIET), Text(value))
    numbered = enumerate(explained_tokens(generation), 1)
    replaced = [(number, each) for number, each in numbered if each.outcome == "replaced"]
    if not replaced:
        return Group(grid, Text("No token was replaced.", _QUIET))
    table = Table("token", "by", "draft", "p", "written", "q", "why", box=None, header_style=_QUIET)
    for number, each in replaced[:replacements]:
        token = each.token
        rejected = Text(quote(token.other_text, token.draft_id), "strike")
        written = Text(quote(token.text, token.id), ASSISTANT_STYLES[each.color])
        p, q = (f"{confidence:.2f}" for confidence in (token.p, token.q or 0.0))
        table.add_row(str(number), Text(each.named_assistant), rejected, p, written, q, Text(each.reason))
    more = len(replaced) - replacements
    return Group(grid, "", table, *[Text(f"and {more} more", _QUIET)] * (more > 0))
