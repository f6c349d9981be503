"""The page in a real browser: who wrote what, live, by keyboard and on a phone, under its own policy."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from cosd_core import Chat, Turn
from tests.serving.servers import Running, decoder, serving
from tests.test_explain import browser, luminance, visible_card  # noqa: F401 - a fixture

QUESTION = "How many people live in Tamiro?"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(api_keys=(SecretStr("open"),), name="a <b>pair</b>") as running:
        running.name = "a <b>pair</b>"
        yield running


def test_the_page_and_its_files_load_nothing_from_elsewhere(server: Running) -> None:
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        response = server.client.get(path)
        assert response.headers["content-type"].startswith(kind)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "innerHTML" not in response.text
        assert "http" not in response.text
    assert "a &lt;b&gt;pair" in server.client.get("/").text


@pytest.fixture
def page(browser: Any, server: Running) -> Any:  # noqa: F811
    """The page at a given width and colour scheme."""

    def open_page(width: int = 900, scheme: str = "light") -> Any:
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(server.url)
        return browser

    return open_page


def find(driver: Any, selector: str) -> Any:
    return driver.find_element("css selector", selector)


def ask(driver: Any, text: str, *, key: str | None = "open") -> None:
    from selenium.webdriver import Keys

    if key is not None:
        driver.execute_script("document.getElementById('key').value = arguments[0]", key)
    find(driver, "#question").send_keys(text, Keys.ENTER)


def wait_for(driver: Any, words: str) -> None:
    ends = time.monotonic() + 20
    while words not in find(driver, "#status").text:
        assert time.monotonic() < ends, find(driver, "#status").text
        time.sleep(0.02)


def shown_text(driver: Any) -> str:
    return str(
        driver.execute_script(
            "const copy = document.querySelector('#answer').cloneNode(true);"
            "copy.querySelectorAll('.card, s').forEach(each => each.remove()); return copy.textContent"
        )
    )


def set_options(driver: Any, **values: Any) -> None:
    for name, value in values.items():
        driver.execute_script("document.getElementById(arguments[0]).value = arguments[1]", name, str(value))


@pytest.mark.browser
class TestInABrowser:
    def test_an_answer_is_that_of_the_pair_with_its_sources(self, page: Any) -> None:
        driver = page()
        ask(driver, QUESTION)
        wait_for(driver, "Done.")
        turn = Turn(Chat([{"role": "user", "content": QUESTION}]), decoder().models)
        wanted = decoder().generate(turn.prompt)
        assert shown_text(driver) == wanted.text
        written = driver.find_elements("css selector", "#answer > mark")
        assert len(written) == sum(token.source == "assistant" for token in wanted.tokens)
        assert str(wanted.stats.replaced) in find(driver, "#figures").text
        assert not [entry for entry in driver.get_log("browser") if "favicon" not in entry["message"]]

    def test_tokens_appear_while_the_text_is_written_and_stop_ends_the_work(
        self, page: Any, server: Running
    ) -> None:
        driver = page()
        set_options(driver, max_tokens=1500, temperature=3, seed=1)
        ask(driver, "Hello")
        server.wait_until(lambda: len(driver.find_elements("css selector", "#answer > .t")) > 3)
        assert server.running() == 1
        find(driver, "#stop").click()
        wait_for(driver, "Stopped.")
        server.wait_until(lambda: server.running() == 0)
        assert driver.find_elements("css selector", "#answer > .t")

    def test_the_keyboard_alone_asks_and_shows_the_confidences(self, page: Any) -> None:
        from selenium.webdriver import ActionChains, Keys

        driver = page()
        ask(driver, QUESTION)
        wait_for(driver, "Done.")
        driver.execute_script("document.querySelector('#answer > .t').focus()")
        assert "p = " in visible_card(driver).text
        ActionChains(driver).send_keys(Keys.ARROW_RIGHT).perform()
        assert driver.execute_script(
            "return document.activeElement === document.querySelectorAll('#answer > .t')[1]"
        )
        ActionChains(driver).send_keys(Keys.ESCAPE).perform()
        assert not any(card.is_displayed() for card in driver.find_elements("css selector", ".card"))

    def test_markup_in_a_text_is_text(self, page: Any) -> None:
        driver = page()
        markup = "<img src=x onerror=alert(1)>"
        token = {
            "id": 1, "text": markup, "source": "assistant", "assistant_index": 0, "p": 0.1, "q": 0.9,
            "draft_id": 2, "assistant_id": 1, "other_text": "<b>\u202e",
        }  # fmt: skip
        driver.execute_script(
            "document.getElementById('shown').hidden = false;"
            "document.getElementById('answer').replaceChildren(shownToken(arguments[0], []))",
            token,
        )
        assert shown_text(driver) == markup
        assert not driver.find_elements("css selector", "#answer img, #answer mark b:not(.card b)")
        assert "<b><U+202E>" in driver.execute_script("return document.querySelector('.card').textContent")

    def test_a_missing_key_is_asked_for_and_an_error_is_told(self, page: Any) -> None:
        driver = page()
        ask(driver, QUESTION, key=None)
        wait_for(driver, "needs an API key")
        assert driver.execute_script("return document.activeElement.id") == "key"
        set_options(driver, key="open", max_tokens=100_000)
        find(driver, "#send").click()
        wait_for(driver, "context window")

    @pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (900, "dark")])
    def test_it_fits_a_phone_and_contrasts_in_both_colour_schemes(
        self, page: Any, width: int, scheme: str
    ) -> None:
        driver = page(width, scheme)
        ask(driver, QUESTION)
        wait_for(driver, "Done.")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert find(driver, "#send").size["height"] >= 44
        paper = luminance(find(driver, "body").value_of_css_property("background-color"))
        assert (paper < 0.2) == (scheme == "dark")
        for selector in ("h1", "#hint", "#status", "label"):
            ink = luminance(find(driver, selector).value_of_css_property("color"))
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, selector
