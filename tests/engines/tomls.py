"""TOML texts with everything that may mislead a reader of lines."""

import tomllib

from hypothesis import strategies as st

_names = st.sampled_from(["a", "b-c", '"d.e"', "'f g'", 'g."h=i"', "plugins", '"#"'])
_values = st.sampled_from(
    [
        "1", "true", '"x # y"', "'[z]'", "[1, 2]", '[\n  "a", # one\n  ["]"],\n]',
        "{ a = 1, b.c = 2 }", '"""\n[not.a.table]\nk = 1\n"""', "'''\n'' [x]\n'''",
        '"""quote\\""""', "1979-05-27T07:32:00Z", '""""one" quote"""', "'''it's'''", '"\\\\"',
    ]
)  # fmt: skip
_lines = st.one_of(
    st.builds(lambda name, value, note: f"{name} = {value}{note}", _names, _values,
              st.sampled_from(["", "  # = [note]", "#"])),
    st.builds(lambda name: f"[{name}]", _names),
    st.builds(lambda name: f"  [ plugins . {name} ] # header", _names),
    st.builds(lambda name: f"[[list.{name}]]", _names),
    st.sampled_from(["", "# [comment]", "   ", "# a = 'b"]),
)  # fmt: skip


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Draw a valid TOML text with everything that may mislead a reader of lines."""
    kept: list[str] = []
    for line in draw(st.lists(_lines, max_size=8)):
        try:
            tomllib.loads("\n".join([*kept, line]))
        except tomllib.TOMLDecodeError:
            continue
        kept.append(line)
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return "".join(line.replace("\n", end) + end for line in kept)
