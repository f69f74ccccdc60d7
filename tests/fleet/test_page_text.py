"""The report on many hosts as a page: everything is in it, and as text."""

from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from itertools import chain
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleet import reports
from shim.errors import printable
from shim.fleet.page import page
from shim.profile.diff import unified
from support.isolated import isolated


class _Reader(HTMLParser):
    """Reads a page: its text, that of each kind of part of a diff, elements and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.parts: list[tuple[str, str]] = []
        self._part = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        kind = dict(attrs).get("class") or ""
        self._part = kind if kind in {"file", "hunk", "same", "added", "removed"} else ""

    def handle_endtag(self, _: str) -> None:
        """Know that a part ends."""
        self._part = ""

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self.text += data
        if self._part:
            self.parts.append((self._part, data))


def _texts(value: Any) -> Iterator[str]:
    """Yield every text of a document, and the keys that are told."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (key for key in value if key not in _FIXED)
        yield from chain.from_iterable(map(_texts, value.values()))
    elif isinstance(value, list):
        yield from chain.from_iterable(map(_texts, value))


# Also lines that make a diff look as if another file began in it.
LINE = st.sampled_from(
    ["", "a", "b", "-- /etc/x", "++ /etc/x", "@@ -1 +1 @@", "\\ No newline", "\t"]
)
TEXT = st.text(st.characters(), max_size=12) | st.sampled_from(reports.HOSTILE)
LINES = st.lists(TEXT, max_size=2)
COUNTS = st.dictionaries(TEXT, st.integers(1, 9), max_size=2)
CHANGES = st.fixed_dictionaries(
    {
        **dict.fromkeys(("run", "time", "kind", "result", "reason", "diff"), TEXT),
        "files": st.lists(
            st.fixed_dictionaries(
                {
                    **dict.fromkeys(("file", "reason"), TEXT),
                    "result": st.sampled_from(["patched", "rolled back", "failed"]),
                }
            ),
            max_size=2,
        ),
    }
)
HOSTS = st.fixed_dictionaries(
    {
        **dict.fromkeys(("host", "why", "kernel", "asked"), TEXT),
        **dict.fromkeys(("libseccomp", "engines", "problems", "notes"), LINES),
        "verdict": st.sampled_from(list(reports.VERDICTS)),
        "calls": st.dictionaries(st.just("uretprobe") | TEXT, TEXT, max_size=2),
        "profiles": COUNTS,
        "changes": st.lists(CHANGES, max_size=2),
    }
)
RUNS = st.fixed_dictionaries(
    {**dict.fromkeys(("run", "kind", "time", "ended", "why"), TEXT), "hosts": COUNTS}
)
DOCUMENTS = st.fixed_dictionaries(
    {
        **dict.fromkeys(("made", "version", "inventory"), TEXT),
        "verdicts": st.just(reports.VERDICTS),
        "hosts": st.lists(HOSTS, max_size=3),
        "runs": st.lists(RUNS, max_size=2),
    }
)
_FIXED = {
    *reports.document(),
    *reports.host("", ""),
    *reports.change(1, "", "", {}, ""),
    "file",
    "ended",
    "uretprobe",
}
TAGS = set(_Reader(page(reports.example())).tags) | {"p"}


@given(DOCUMENTS)
def test_everything_told_is_in_the_page(document: dict[str, Any]) -> None:
    """Each text of any document can be read in its page, control characters as escapes."""
    read = _Reader(page(document))
    everything = "\n".join([read.text, *(value for _, value in read.attributes)])
    for text in _texts(document):
        # Only diffs have lines, and keep tabs.
        lines = ["\t".join(map(printable, line.split("\t"))) for line in text.split("\n")]
        assert printable(text) in everything or all(line in everything for line in lines)


@given(DOCUMENTS)
def test_no_text_becomes_markup(document: dict[str, Any]) -> None:
    """Whatever hosts are called and say, the page has its own elements and no others."""
    text = page(document)
    read = _Reader(text)
    assert set(read.tags) <= TAGS
    assert read.tags.count("script") == read.tags.count("style") == 1
    assert not [name for name, _ in read.attributes if name in {"src", "style"} or name[:2] == "on"]
    assert all(value.startswith("#diff-") for name, value in read.attributes if name == "href")
    assert not set(text) - {"\n", "\t"} & set(map(chr, range(32)))
    text.encode()


@given(st.lists(LINE, max_size=8), st.lists(LINE, max_size=8))
def test_lines_of_a_diff_are_told_apart(old: list[str], new: list[str]) -> None:
    """Parts of a diff are its lines in their order; only real names of files count as such."""
    before, after = "\n".join(old), "\n".join(new)
    diff = unified(before, after, "/etc/a b.json")
    change = reports.change(1, "apply", "changed", {}, diff)
    parts = _Reader(
        page(reports.document(reports.host("one", "protected", changes=[change])))
    ).parts
    assert "".join(text for _, text in parts) == diff
    assert [text for kind, text in parts if kind == "file"] == (
        ["--- /etc/a b.json\n+++ /etc/a b.json\n"] if diff else []
    )
    for kind, text in parts:
        signs = {"hunk": "@", "added": "+", "removed": "-", "same": " \\"}.get(kind, "-+")
        assert all(line[0] in signs for line in text.splitlines())


def test_without_jinja2() -> None:
    """Where Jinja2 is not installed, one line says what is to be installed."""
    code = (
        "import json\n"
        "from shim.errors import ShimError\n"
        "from shim.fleet.page import page\n"
        "try:\n"
        "    page({'verdicts': {}, 'hosts': [], 'runs': [], 'made': '', 'version': '', "
        "'inventory': ''})\n"
        "except ShimError as error:\n"
        "    print(json.dumps(str(error)))\n"
    )
    assert isolated(code) == (
        "jinja2 is not installed (install.sh --with fleet, from the project's checkout)"
    )
