"""The report on many hosts as a page, in a browser."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from fleet import reports
from fleet.browser import Browser, chromium
from shim.errors import printable
from shim.fleet.page import page

DARK = "rgba(22, 24, 27, 1)"
# Each text that can be seen, and each field, with its colour and the one behind it.
COLOURS = """() => {
  const rgb = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const behind = (element) => {
    const colour = rgb(getComputedStyle(element).backgroundColor);
    return colour[3] === 0 ? behind(element.parentElement) : colour;
  };
  const texts = [], edges = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (walk.currentNode.data.trim() && element.checkVisibility())
      texts.push([walk.currentNode.data, rgb(getComputedStyle(element).color), behind(element)]);
  }
  for (const field of document.querySelectorAll("[type=search], select, form button")) {
    const hint = getComputedStyle(field, "::placeholder").color;
    texts.push([field.tagName, rgb(hint), behind(field)]);
    const edge = getComputedStyle(field).borderTopColor;
    edges.push([field.tagName, rgb(edge), behind(field.parentElement)]);
  }
  return [texts, edges];
}"""


class Report(Browser):
    """A browser that shows reports."""

    def show(self, document: Mapping[str, Any], view: str = "") -> None:
        """Open a document's page anew, at a view."""
        self.open(page(document), view)

    def arrive(self, act: Callable[[], None]) -> None:
        """Do what leads to another view, and wait until it is shown."""
        once = "addEventListener('hashchange', () => { window.arrived = true; }, { once: true })"
        self(f"[window.arrived = false, {once}]")
        act()
        self.wait("window.arrived")

    def unfold(self) -> None:
        """Open everything that can be opened, and wait for what comes with it."""
        self("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        self.wait("!document.querySelector('#hosts-table a.diff')")

    def hosts(self) -> list[str]:
        """Return the hosts that can be seen, from the top."""
        heads = "[...document.querySelectorAll('#hosts-table tbody th')]"
        seen = self(f"{heads}.filter(e => e.checkVisibility()).map(e => e.textContent)")
        return [str(each) for each in seen]

    def view(self) -> str:
        """Return the part of the address that says what is shown."""
        return str(self("location.hash"))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Yield a Chromium that is used by all tests here."""
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def browser(driver: webdriver.Chrome, tmp_path: Path) -> Iterator[Report]:
    """Yield the browser; what a test shows must neither log anything nor ask for anything."""
    browser = Report(driver, tmp_path)
    browser.emulate()
    yield browser
    assert browser.logged() == []
    assert browser.asked_for() == []


def test_who_is_left_is_one_click(browser: Report) -> None:
    """One click leaves the hosts with something left to do; another brings all of them back."""
    browser.show(reports.example())
    everybody = browser.hosts()
    assert everybody[:2] == ["web3", "web10"]
    assert len(everybody) == 10
    assert browser.find("#shown").text == "10 of 10 hosts"
    browser.arrive(browser.named("5 of 10 hosts are left").click)
    assert browser.hosts() == ["web3", "web10", "edge1", "edge2", "edge3"]
    assert browser.find("#shown").text == "5 of 10 hosts"
    browser.arrive(browser.named("All hosts").click)
    assert browser.hosts() == everybody
    browser.arrive(browser.named("Who is left").click)
    assert len(browser.hosts()) == 5
    browser.arrive(browser.driver.back)
    assert browser.hosts() == everybody


def test_filters(browser: Report) -> None:
    """Choices of one kind add up, kinds and words narrow down; text is found wherever it is."""
    browser.show(reports.example())
    browser.named("protected").click()
    browser.named("exposed").click()
    assert browser.hosts() == ["web3", "web10", "web1", "web2"]
    browser.named("not changed").click()
    assert browser.hosts() == ["web10"]
    browser.named("rolled back").click()
    assert browser.hosts() == ["web3", "web10"]
    browser.find("[name=find]").send_keys("CLOUD  /usr/bin/crun")
    assert browser.hosts() == ["web3"]
    browser.find("[name=find]").send_keys(" nothing", Keys.ENTER)
    assert browser.hosts() == []
    assert browser.find("#shown").text == "0 of 10 hosts"


def test_the_matrix_filters(browser: Report) -> None:
    """Numbers of the matrix add up, and each leads to just so many hosts."""
    browser.show(reports.example())
    cells = browser.driver.find_elements(By.CSS_SELECTOR, ".matrix td a")
    assert len(cells) > 15
    for cell in cells:
        browser.arrive(cell.click)
        assert len(browser.hosts()) == int(cell.text), browser.view()


def test_columns_sort(browser: Report) -> None:
    """Each column sorts up and down, numbers in names by value, urgency by its order."""
    browser.show(reports.example())
    column = browser.find("[data-column=host]")
    button = column.find_element(By.TAG_NAME, "button")
    button.click()
    up = ["db2", "db10", "edge1", "edge2", "edge3", "lab1", "web1", "web2", "web3", "web10"]
    assert browser.hosts() == up
    assert column.get_attribute("aria-sort") == "ascending"
    assert browser.find("[data-column=verdict]").get_attribute("aria-sort") is None
    button.send_keys(Keys.ENTER)
    assert browser.hosts() == up[::-1]
    assert column.get_attribute("aria-sort") == "descending"
    browser.find("[data-column=kernel] button").click()
    assert browser.hosts()[2:5] == ["db2", "web10", "edge1"]
    browser.find("[data-column=changed] button").click()
    browser.find("[data-column=changed] button").click()
    assert browser.hosts()[:2] == ["web1", "web2"]
    browser.find("[data-column=state] button").click()
    assert browser.hosts()[-2:] == ["db10", "db2"]
    browser.find("[data-column=asked] button").click()
    assert set(browser.hosts()[:2]) == {"edge2", "edge3"}
    browser.find("[data-column=verdict] button").click()
    assert browser.hosts()[:2] == ["web3", "web10"]


def test_a_view_can_be_linked_to(browser: Report) -> None:
    """The address that a view has gives the same view anew, in its order."""
    browser.show(reports.example())
    assert browser.view() == ""
    browser.named("protected").click()
    browser.named("exposed").click()
    browser.named("filtered").click()
    browser.find("[data-column=host] button").click()
    browser.find("[data-column=host] button").click()
    browser.find("[name=find]").send_keys("web & 6.12")
    browser.find("[name=find]").send_keys(Keys.BACKSPACE * 6, "6.12")
    seen, view = browser.hosts(), browser.view()
    assert seen == ["web3", "web2", "web1"]
    browser.show(reports.example(), view)
    assert browser.hosts() == seen
    assert browser.view() == view
    assert browser.find("[name=find]").get_property("value") == "web 6.12"
    for view in ("#verdict=none&state=&sort=nothing&find=&x", "#diff-2"):
        browser.show(reports.example(), view)
        assert browser.find("#shown").text == "10 of 10 hosts"
    assert browser.find("#diff-2").is_displayed()


def test_a_host_opens_to_its_changes(browser: Report) -> None:
    """An opened host shows all that is told of it, with the diffs in colours."""
    browser.show(reports.example())
    inside = browser.find("#hosts-table tbody details")
    assert "docker" not in inside.text
    inside.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    browser.wait("document.querySelector('#hosts-table .removed')")
    for told in (
        "not the default runtime",
        "/usr/sbin/runc 2.5.4",
        "1 allows, 2 denies by default",
    ):
        assert told in inside.text
    added, removed = (
        inside.find_element(By.CSS_SELECTOR, f"pre .{kind}") for kind in ("added", "removed")
    )
    assert added.text == '+  {"names": ["uretprobe"]},'
    assert removed.text == '-  {"names": ["uretprobe"]},'
    backgrounds = {each.value_of_css_property("background-color") for each in (added, removed)}
    assert len(backgrounds) == 2
    assert browser("document.querySelectorAll('[id=diff-1]').length") == 1
    browser.named("Open or close all shown").click()
    assert browser("document.querySelectorAll('#hosts-table details:not([open])').length") == 0
    browser.named("Open or close all shown").click()
    assert browser("document.querySelectorAll('#hosts-table details[open]').length") == 0


def _luminance(colour: Sequence[float]) -> float:
    parts = [each / 255 for each in colour[:3]]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the contrast ratio of two colours, as WCAG 2 defines it."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("chosen", ["system", "light", "dark"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours(browser: Report, scheme: str, chosen: str) -> None:
    """Light or dark as the system is, unless chosen otherwise; all text has contrast enough."""
    browser.emulate(scheme)
    browser.show(reports.example())
    browser.unfold()
    browser.find(f"option[value={chosen}]").click()
    wanted = scheme if chosen == "system" else chosen
    texts, edges = browser(f"({COLOURS})()")
    assert len(texts) > 200
    page_ = texts[0][2]
    assert (_luminance(page_) < 0.05) == (wanted == "dark")
    assert (_luminance(page_) > 0.9) == (wanted == "light")
    assert [each for each in texts if _contrast(each[1], each[2]) < 4.5] == []
    assert [each for each in edges if _contrast(each[1], each[2]) < 3] == []
    assert len({tuple(each[1]) for each in texts}) >= 6


def test_on_a_phone(browser: Report) -> None:
    """At 360 pixels nothing makes the page scroll sideways, whatever is long in it."""
    document = reports.example()
    document["inventory"] = "/srv/" + "inventories" * 20
    document["hosts"][0] |= {"host": "h" * 253, "kernel": "6" * 64, "why": "w" * 400}
    document["hosts"][0]["problems"] = ["/" + "p" * 400]
    document["hosts"][0]["changes"] = [
        reports.change(
            3,
            "apply",
            "changed",
            {"/" + "f" * 400: "patched"},
            reports.DIFF + " " + "d" * 999 + "\n",
        )
    ]
    document["runs"][1]["why"] = "r" * 400
    browser.emulate(width=360)
    browser.show(document)
    browser.unfold()
    assert browser("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    outside = "e => !e.closest('.box, pre') && e.getBoundingClientRect().right > 360"
    assert browser(f"[...document.body.querySelectorAll('*')].filter({outside}).length") == 0
    tables = browser("[...document.querySelectorAll('.box')].map(e => e.scrollWidth > 360)")
    assert tables == [True, True, True]
    # What is opened in the table is read without moving it.
    inside = "e => e.getBoundingClientRect().right > 360"
    assert browser(f"[...document.querySelectorAll('.hosts details')].filter({inside}).length") == 0


def test_all_of_it_by_keyboard(browser: Report) -> None:
    """The tabulator key reaches every control and every host, and shows where it is."""
    browser.show(reports.example())
    wanted = browser(
        "[...document.querySelectorAll('a, button, input, select, summary')]"
        ".filter(e => e.checkVisibility() && e.type !== 'hidden').length"
    )
    assert wanted > 50
    reached = set()
    for _ in range(wanted + 10):
        webdriver.ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        element = browser.driver.switch_to.active_element
        if element.tag_name in {"a", "button", "input", "select", "summary"}:
            assert element.value_of_css_property("outline-style") != "none"
            reached.add(element)
    assert len(reached) == wanted


def test_without_javascript(browser: Report) -> None:
    """Without JavaScript all can be read, the most urgent first, and no control is dead."""
    browser.scripts(run=False)
    try:
        browser.show(reports.example())
        assert browser.hosts()[:2] == ["web3", "web10"]
        assert len(browser.hosts()) == 10
        assert not browser.find("form").is_displayed()
        assert browser.driver.find_elements(By.CSS_SELECTOR, "main button:not(form *)") == []
        assert browser.find(".matrix tfoot td:last-child").text == "10"
        browser.find("#hosts-table summary").click()
        assert "not the default runtime" in browser.find("#hosts-table details").text
        assert not browser.find("#diff-1").is_displayed()
        browser.named("Diff 1").click()
        assert browser.find("#diff-1").is_displayed()
        browser.find("option[value=dark]").click()
        assert browser.find("body").value_of_css_property("background-color") == DARK
    finally:
        browser.scripts(run=True)


def test_printed(browser: Report) -> None:
    """On paper it is black on white, without controls, with all diffs and the hosts of the view."""
    browser.emulate("dark", "print", 700)
    browser.show(reports.example(), "#verdict=exposed")
    assert _luminance(browser(f"({COLOURS})()")[0][0][2]) > 0.9
    assert browser.hosts() == ["web3", "web10"]
    assert not browser.find("form").is_displayed()
    assert not browser.find("select").is_displayed()
    seen = "e => e.checkVisibility() && e.getBoundingClientRect().height > 0"
    assert browser(f"[...document.querySelectorAll('#changes pre')].filter({seen}).length") == 2
    assert browser("document.documentElement.scrollWidth") <= 700


def test_hostile_text_stays_text(browser: Report) -> None:
    """Markup, scripts and control characters in anything that hosts tell are only to be read."""
    hosts = [
        reports.host(
            each,
            "exposed",
            each,
            **dict.fromkeys(("why", "kernel", "asked"), each),
            **{key: [each] for key in ("libseccomp", "engines", "problems", "notes")},
            profiles={each: 1},
            changes=[reports.change(1, each, each, {each: "patched"}, f"--- {each}\n+++ {each}\n")],
        )
        for each in reports.HOSTILE
    ]
    document = reports.document(*hosts) | {
        "inventory": reports.HOSTILE[0],
        "made": reports.HOSTILE[1],
    }
    browser.show(document)
    browser.unfold()
    assert browser("typeof hit") == "undefined"
    assert browser.hosts() == [printable(each) for each in reports.HOSTILE]
    assert browser("document.querySelectorAll('img, svg, iframe').length") == 0
    assert browser("document.scripts.length") == 1
    for each in browser.driver.find_elements(By.CSS_SELECTOR, "[name=state]")[5:]:
        each.click()
        assert len(browser.hosts()) == 1
        each.click()


def test_markup_that_came_in_would_do_nothing(browser: Report) -> None:
    """Were there other script, style or images in the page, the browser would refuse them all."""
    evil = "<script>hit = 1</script><img onerror='hit = 1' src='http://127.0.0.1:9/'><style>h1{color:red}</style>"
    browser.open(page(reports.example()).replace("<h1>", f"{evil}<h1 style='color: red'>"))
    assert browser("typeof hit") == "undefined"
    assert browser.find("h1").value_of_css_property("color") == "rgba(28, 30, 33, 1)"
    logged = browser.logged()
    assert len(logged) == 5
    assert all("Content Security Policy" in each for each in logged)
    # What it refuses to load is listed all the same.
    assert browser.asked_for() == ["http://127.0.0.1:9/"]


def test_thousands_of_hosts(browser: Report) -> None:
    """With 2,000 hosts, most of them changed, it filters and sorts; each diff is there once."""
    hosts = reports.example()["hosts"]
    many = [{**hosts[each % 10], "host": f"host{each}"} for each in range(2000)]
    browser.show(reports.document(*many))
    assert browser.find("#shown").text == "2000 of 2000 hosts"
    assert browser("document.querySelectorAll('pre').length") == 2
    browser.arrive(browser.named("Who is left").click)
    assert browser.find("#shown").text == "1000 of 2000 hosts"
    browser.find("[name=find]").send_keys("host199")
    assert browser.find("#shown").text == "5 of 2000 hosts"
    browser.find("[data-column=host] button").click()
    assert browser.hosts() == [f"host{each}" for each in range(1994, 1999)]
