"""A trace tells who wrote what and why: in a terminal without colour, in a page, and in a real browser."""

import importlib.util
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cosd_core import Generation, RuleVerifier, Stats, TracedToken, explain
from langchain_cosd import ChatCoSD
from tests.grids import every
from tests.models import ascii_model

HOSTILE = "<script>alert('x')</script> & \"quotes\""


def token(text: str, *, source: str = "draft", other: str | None = None, **values: Any) -> TracedToken:
    own = {"id": 1, "assistant_index": None, "p": 0.9, "q": None, "draft_id": 1, "assistant_id": None}
    return TracedToken(text=text, source=source, other_text=other, **{**own, **values})  # type: ignore[arg-type]


def replaced(text: str, instead_of: str, *, p: float, q: float, assistant: int = 0) -> TracedToken:
    return token(
        text, source="assistant", other=instead_of, id=2, p=p, q=q, assistant_id=2, assistant_index=assistant
    )


def generation(*tokens: TracedToken, text: str | None = None, stop: str | None = None) -> Generation:
    whole = "".join(each.text for each in tokens)
    kept = sum(each.source == "draft" for each in tokens)
    stats = Stats(3, len(tokens), len(tokens) + 4, kept, len(tokens) - kept, 4, len(tokens) + 4, 2, 5, 0.5)
    return Generation(
        text=whole if text is None else text, token_ids=tuple(each.id for each in tokens), tokens=tokens,
        finish_reason="stop", stop_sequence=stop, prompt="Q: iron plus 7? A:", prompt_tokens=18, stats=stats,
        verifier=RuleVerifier(), models=("org/a", "org/b"), calibration=(1.0, 1.0),
    )  # fmt: skip


IRON = generation(
    *map(token, " iron is 26, 26+7="),
    replaced("3", "1", p=0.18, q=0.99),
    replaced("3", "0", p=0.31, q=0.98),
    token("", q=0.97, assistant_id=1, assistant_index=0),
)


def printed(renderable: Any) -> str:
    console = Console(file=StringIO(), width=200, no_color=True, force_terminal=True)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


class Reader(HTMLParser):
    """What a person reads of the answer: its text without cards, and every card on its own."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.answer, self.cards, self._open = "", [], []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        kind = dict(attributes).get("class") or ""
        self._open.append((tag, kind))
        if kind == "card":
            self.cards.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        kinds = [kind for _, kind in self._open]
        if "card" in kinds:
            self.cards[-1] += data
        elif "answer" in kinds:
            self.answer += data


# The page


@pytest.mark.parametrize(
    "answer", [" plain", HOSTILE, "two\nlines\tand  spaces", "naïve 你好 🦊 e\u0301", "\x1b[31mred\x00"]
)
def test_the_text_that_is_read_is_the_answer(answer: str) -> None:
    html = explain.to_html(generation(*map(token, answer)))
    shown = answer.replace("\x1b", "␛").replace("\x00", "␀")  # control characters as pictures
    assert Reader(html).answer == shown
    assert "<script>alert" not in html


def test_the_card_of_a_replaced_token_names_both_confidences_the_loser_and_the_reason() -> None:
    card = next(card for card in Reader(explain.to_html(IRON)).cards if "0.18" in card)
    assert all(words in card for words in ("p = 0.18", "q = 0.99", "1", "3", "the draft was unsure"))


def test_every_token_has_a_card() -> None:
    assert len(Reader(explain.to_html(IRON)).cards) == len(IRON.tokens)


def test_hostile_tokens_titles_and_rejected_texts_are_escaped() -> None:
    html = explain.to_html(generation(replaced(HOSTILE, HOSTILE, p=0.1, q=0.9)), title=HOSTILE)
    assert "alert('x')" not in re.sub(r"&lt;script&gt;.*?&lt;/script&gt;", "", html)


def test_the_page_asks_nothing_of_the_network() -> None:
    assert not re.search(r"https?://|url\(|src=|@import", explain.to_html(IRON))


def test_a_notebook_gets_a_fragment_without_script_whose_styles_touch_nothing_else() -> None:
    fragment = IRON._repr_html_()
    assert "<script" not in fragment
    styles = re.search(r"<style>(.*?)</style>", fragment, re.DOTALL)
    assert styles
    rules = re.findall(r"(?:^|\})\s*([^{}@]+)\{", styles[1])
    assert rules
    assert all(".cosd" in selector for rule in rules for selector in rule.split(","))


def test_two_fragments_in_one_notebook_share_no_id() -> None:
    other = generation(*IRON.tokens[:-1])
    ids = [set(re.findall(r'id="([^"]+)"', explain.to_html_fragment(each))) for each in (IRON, other)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_what_a_stop_sequence_cut_off_is_struck() -> None:
    html = explain.to_html(generation(token("one"), token(" END"), text="one", stop=" END"))
    assert "<s>" in html
    assert any("stop sequence" in card for card in Reader(html).cards)


def test_the_models_are_told_and_calibration_where_there_is_one() -> None:
    assert "org/a, org/b" in printed(explain.summary(IRON))
    assert "Calibration" not in printed(explain.summary(IRON))
    assert "1.7, 0.9" in printed(explain.summary(replace(IRON, calibration=(1.7, 0.9))))


def test_models_with_adapters_are_called_by_both_names() -> None:
    for names, told in (
        (("org/a[org/lora]", "org/b"), "org/a[org/lora], org/b"),
        (("/x/base[/y/one]", "/x/base[/y/two]"), "base[one], base[two]"),
    ):
        assert told in printed(explain.summary(replace(IRON, models=names)))
    assert "(no name), b" in printed(explain.summary(replace(IRON, models=("", "b"))))


def test_several_assistants_can_be_told_apart() -> None:
    two = generation(replaced("a", "x", p=0.1, q=0.9), replaced("b", "x", p=0.1, q=0.9, assistant=1))
    two = replace(two, models=("a", "b", "c"))
    html = explain.to_html(two)
    assert 'class="t a1"' in html
    assert 'class="t a2"' in html
    assert "assistant 2" in html


def test_a_long_answer_stays_small() -> None:
    tokens = [replaced("b", "a", p=0.2, q=0.9) if at % 8 == 0 else token("a") for at in range(2000)]
    assert len(explain.to_html(generation(*tokens))) < 600 * 2000


# The terminal


def test_without_colour_the_assistants_tokens_are_still_marked() -> None:
    text = printed(explain.to_text(IRON))
    assert re.search(r"\x1b\[1;4m3\x1b", text), "bold and underlined"
    assert re.sub(r"\x1b\[[\d;]*m", "", text).strip() == "iron is 26, 26+7=33■"


def test_a_token_cannot_steer_the_terminal() -> None:
    assert "\x1b[2J" not in printed(explain.to_text(generation(token("\x1b[2J"))))


def test_the_summary_lists_what_was_replaced_and_why() -> None:
    text = printed(explain.summary(IRON))
    assert all(words in text for words in ("0.18", "0.99", "the draft was unsure", "Rounds", "alpha 0.5"))


# A real browser


def picture_script() -> Any:
    path = Path(__file__).parent.parent / "docs/images/picture.py"
    spec = importlib.util.spec_from_file_location("picture", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver")
    driver = picture_script().start_chromium(str(tmp_path_factory.mktemp("profile")))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Any:
    """The page at a given width and colour scheme."""

    def open_page(width: int = 900, scheme: str = "light", shown: Any = IRON) -> Any:
        path = tmp_path / "trace.html"
        path.write_text(explain.to_html(shown), encoding="utf-8")
        metrics = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.execute_cdp_cmd(
            "Emulation.setFocusEmulationEnabled", {"enabled": True}
        )  # as if it were in front
        browser.get(path.as_uri())
        return browser

    return open_page


def visible_card(driver: Any) -> Any:
    cards = [card for card in driver.find_elements("css selector", ".card") if card.is_displayed()]
    assert len(cards) == 1
    return cards[0]


@pytest.mark.browser
class TestInABrowser:
    def test_hovering_a_replaced_token_shows_its_card(self, page: Any) -> None:
        from selenium.webdriver import ActionChains

        driver = page()
        assert not any(card.is_displayed() for card in driver.find_elements("css selector", ".card"))
        ActionChains(driver).move_to_element(driver.find_element("css selector", "mark.t")).perform()
        card = visible_card(driver).text
        assert all(words in card for words in ("p = 0.18", "q = 0.99", "was unsure"))

    def test_the_tab_key_shows_it_too_and_escape_hides_it(self, page: Any) -> None:
        from selenium.webdriver import ActionChains, Keys

        driver = page()
        ActionChains(driver).send_keys(Keys.TAB).perform()
        assert "p = 0.18" in visible_card(driver).text
        ActionChains(driver).send_keys(Keys.ESCAPE).perform()
        assert not any(card.is_displayed() for card in driver.find_elements("css selector", ".card"))

    def test_the_page_of_a_langchain_message_shows_its_text_and_the_reason_of_a_token(
        self, page: Any
    ) -> None:
        from selenium.webdriver import ActionChains

        draft, assistant = (ascii_model(seed=seed, eos_token_id=None) for seed in (0, 1))
        chat = ChatCoSD(draft_model=draft, assistant_model=assistant, max_tokens=24, return_trace=True)
        message = chat.invoke("Hello")
        driver = page(shown=message)
        answer = driver.execute_script(
            "const copy = document.querySelector('.answer').cloneNode(true);"
            "copy.querySelectorAll('.card').forEach(card => card.remove()); return copy.textContent"
        )
        assert answer == explain.harmless(message.text)
        assert "### User" in driver.find_element("css selector", ".prompt").text
        ActionChains(driver).move_to_element(driver.find_element("css selector", "mark.t")).perform()
        assert all(word in visible_card(driver).text for word in ("assistant", "p = ", "q = ", "was unsure"))

    @pytest.mark.parametrize("width", every(2, [380, 900]))
    def test_the_card_is_not_cut_off_even_at_the_right_edge(self, page: Any, width: int) -> None:
        words = generation(*[token("word ") for _ in range(40)], replaced("!", "?", p=0.1, q=0.9))
        driver = page(width, shown=words)
        for mark in driver.find_elements("css selector", ".answer .t")[::5]:
            driver.execute_script("arguments[0].focus()", mark)
            left, right = driver.execute_script(
                "const box = arguments[0].getBoundingClientRect(); return [box.left, box.right]",
                visible_card(driver),
            )
            assert left >= 0
            assert right <= width

    @pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
    def test_text_and_paper_contrast_in_both_colour_schemes(self, page: Any, scheme: str, dark: bool) -> None:
        driver = page(scheme=scheme)
        paper = luminance(
            driver.find_element("css selector", ".cosd").value_of_css_property("background-color")
        )
        assert (paper < 0.2) == dark
        for selector in (".answer", ".prompt", "mark.t", ".figures dt"):
            ink = luminance(driver.find_element("css selector", selector).value_of_css_property("color"))
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, selector


def luminance(colour: str) -> float:
    """Relative luminance of a CSS colour, as WCAG 2 defines it."""
    channels = [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
