"""Cuts in a text, and the diff that they make: in time proportional to the text, however many cuts there are."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

_CONTEXT = 3  # lines around a change, as in `diff -u`


@dataclass(frozen=True, kw_only=True, order=True)
class Cut:
    """Replace the characters from `start` up to `end` by `text`. The cuts of a text do not overlap."""

    start: int
    end: int
    text: str


def apply(text: str, cuts: Sequence[Cut]) -> str:
    """The text after the cuts."""
    parts, done = [], 0
    for cut in sorted(cuts):
        parts += [text[done : cut.start], cut.text]
        done = cut.end
    return "".join([*parts, text[done:]])


@dataclass(frozen=True, kw_only=True)
class _Change:
    """The lines from `first` up to `last`, counted from 0, are replaced."""

    first: int
    last: int
    new: tuple[str, ...]


def patch(name: str, text: str, cuts: Sequence[Cut]) -> str:
    """The cuts as a unified diff, for `git apply` and `patch -p1`; '' if there are none."""
    lines = _lines(text)
    changes = list(_changes(text, lines, cuts))
    if not changes:
        return ""
    tab = "\t" if " " in name else ""  # marks the end of a name with spaces, as in Git
    old, new = (f"a/{name}{tab}" if text else "/dev/null"), f"b/{name}{tab}"
    hunks = [f"--- {old}\n", f"+++ {new}\n"]
    shift = 0
    for group in _groups(changes):
        hunks += _hunk(lines, group, shift)
        shift += sum(len(change.new) - (change.last - change.first) for change in group)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in hunks)


def added(name: str, text: str) -> str:
    """A new file as a unified diff."""
    return patch(name, "", [Cut(start=0, end=0, text=text)])


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+\Z", text)


def _changes(text: str, lines: Sequence[str], cuts: Sequence[Cut]) -> Iterator[_Change]:
    """The lines that cuts touch, those of overlapping or neighbouring cuts together."""
    begins = [0, *accumulate(map(len, lines))]
    groups: list[tuple[int, int, list[Cut]]] = []
    for cut in sorted(cuts):
        first, last = _touched(cut, begins)
        if groups and first <= groups[-1][1]:
            begun, end, members = groups.pop()
            groups.append((begun, max(end, last), members))
            members.append(cut)
        else:
            groups.append((first, last, [cut]))
    for first, last, members in groups:
        begin, end = begins[first], begins[min(last, len(lines))]
        moved = [Cut(start=cut.start - begin, end=cut.end - begin, text=cut.text) for cut in members]
        new = _lines(apply(text[begin:end], moved))
        yield from _without_equal_lines(first, lines[first:last], new)


def _touched(cut: Cut, begins: Sequence[int]) -> tuple[int, int]:
    """The lines that a cut changes: the first one, and the one after the last."""
    first = bisect_right(begins, cut.start) - 1
    is_at_begin = begins[first] == cut.start
    if cut.end == cut.start:
        return first, first if is_at_begin and cut.text.endswith("\n") else first + 1
    last = bisect_right(begins, cut.end - 1)
    joins_the_next = last < len(begins) and begins[last] == cut.end and not is_at_begin
    return first, last + joins_the_next


def _without_equal_lines(first: int, old: Sequence[str], new: Sequence[str]) -> Iterator[_Change]:
    """The change without the lines that it leaves as they are, at both ends."""
    before = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    rest = zip(reversed(old[before:]), reversed(new[before:]), strict=False)
    after = next((i for i, (a, b) in enumerate(rest) if a != b), min(len(old), len(new)) - before)
    change = _Change(first=first + before, last=first + len(old) - after, new=tuple(new[before : len(new) - after]))
    if change.new or change.last > change.first:
        yield change


def _groups(changes: Sequence[_Change]) -> Iterator[list[_Change]]:
    """The changes that share a hunk, because their contexts touch."""
    group: list[_Change] = []
    for change in changes:
        if group and change.first - group[-1].last > 2 * _CONTEXT:
            yield group
            group = []
        group.append(change)
    yield group


def _hunk(lines: Sequence[str], changes: Sequence[_Change], shift: int) -> Iterator[str]:
    first = max(0, changes[0].first - _CONTEXT)
    last = min(len(lines), changes[-1].last + _CONTEXT)
    growth = sum(len(change.new) - (change.last - change.first) for change in changes)
    yield f"@@ -{_range(first, last - first)} +{_range(first + shift, last - first + growth)} @@\n"
    done = first
    for change in changes:
        yield from (f" {line}" for line in lines[done : change.first])
        yield from (f"-{line}" for line in lines[change.first : change.last])
        yield from (f"+{line}" for line in change.new)
        done = change.last
    yield from (f" {line}" for line in lines[done:last])


def _range(first: int, count: int) -> str:
    """Lines as `diff -u` writes them: an empty range names the line before it."""
    begin = first + 1 if count else first
    return str(begin) if count == 1 else f"{begin},{count}"
