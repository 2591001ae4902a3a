"""A script carries the fragments that it names: one too few breaks it when it runs, one too many slows every call."""

import re
from typing import Final

import pytest

from service.store.scripts import LUA, STORE_CLOCK, USES, load

FRAGMENTS: Final = {path.stem: path.read_text() for path in (LUA / "fragments").glob("*.lua")}
SCRIPTS: Final = {path.stem: path.read_text() for path in LUA.glob("*.lua")}
LINE_LENGTH: Final = 120
"""As ruff has it, which reads no Lua."""
NO_NAMES: Final = re.compile(r"--.*|'[^'\n]*'|\.\w+")
"""Comments, texts, and the fields of tables."""
GIVEN: Final = re.compile(r"^local (?:function )?([\w, ]+)", re.MULTILINE)
FUNCTION: Final = re.compile(r"^local function .*?^end$", re.MULTILINE | re.DOTALL)
KEPT: Final = re.compile(r"local (?:function )?([\w, ]+)(?:\(([\w, ]+)\))?|function ?\(([\w, ]+)\)")


def names(text: str) -> set[str]:
    """The names that stand in a text."""
    return set(re.findall(r"[A-Za-z_]\w*", text))


def used_fragments(name: str, text: str) -> set[str]:
    """The fragments whose names stand in a text that does not define them itself."""
    code = NO_NAMES.sub("", text)
    foreign = names(code) - names(" ".join(map(" ".join, KEPT.findall(code))))
    return {
        other for other, text in FRAGMENTS.items() if other != name and foreign & names(" ".join(GIVEN.findall(text)))
    }


def named_fragments(text: str) -> set[str]:
    """The fragments that a text says it uses."""
    return {name for uses in USES.finditer(text) for name in uses[2].split(", ")}


@pytest.mark.parametrize(("name", "text"), [*FRAGMENTS.items(), *SCRIPTS.items()])
def test_a_script_names_exactly_the_fragments_it_uses(name: str, text: str) -> None:
    functions = [function for function in FUNCTION.findall(text) if named_fragments(function)]
    around = text
    for function in functions:
        around = around.replace(function, "")
    assert named_fragments(around) == used_fragments(name, around)
    for function in functions:
        assert named_fragments(function) == used_fragments(name, function) - named_fragments(around)


@pytest.mark.parametrize(("name", "text"), [*FRAGMENTS.items(), *SCRIPTS.items()])
def test_fragments_are_named_before_anything_uses_them(name: str, text: str) -> None:
    own, within = 0, 0
    for before, uses in zip(["", *text.splitlines()], text.splitlines(), strict=False):
        if found := USES.fullmatch(uses):
            own += not found[1]
            within += bool(found[1])
            assert before.startswith("local function" if found[1] else "--")
    assert own <= 1
    assert not (within and name in FRAGMENTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_script_has_made_no_function_of_it_makes_anew(name: str) -> None:
    source = load(name, STORE_CLOCK).source
    first = source.partition(SCRIPTS[name].splitlines()[0])[0]
    assert [other for other, text in FRAGMENTS.items() if text in first and source.count(text) > 1] == []


@pytest.mark.parametrize("text", [*FRAGMENTS.values(), *SCRIPTS.values()], ids=[*FRAGMENTS, *SCRIPTS])
def test_no_line_is_longer_than_pythons(text: str) -> None:
    assert [line for line in text.splitlines() if len(line) > LINE_LENGTH] == []
