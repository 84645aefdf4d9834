"""The jobs of a GitLab file, each with what it inherits: by `extends`, merge keys, `!reference`, `default:`, globals.

The rules are those of GitLab's CI/CD YAML reference: a job's own words go before those that it extends, the last of
these first, and before `default:`; mappings are merged, everything else is replaced.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from builder.gitlab.adopt.file import Alias, Collection, GitLabFile, Node, Scalar, Slot, walk

NO_JOBS: Final = frozenset(
    {"default", "include", "stages", "types", "variables", "workflow", "image", "services", "cache", "before_script",
     "after_script", "spec"}
)  # fmt: skip
SCRIPTS: Final = ("before_script", "script", "after_script")
DEFAULTS: Final = frozenset({"image", "cache", "artifacts", "before_script", "after_script"})  # of those read here
STORES: Final = ("cache", "artifacts")
STORED: Final = frozenset({"paths", "untracked", "reports"})  # what makes a cache or artifacts hold anything
MOST_COMBINATIONS: Final = 200  # of one job's parallel:matrix, GitLab's own limit
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_NAMED: Final = re.compile(rf"{_VARIABLE.pattern}|%(\w+)%")
_FLOAT: Final = re.compile(r"[-+]?[0-9]+\.[0-9]+")


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """A line of a script, and which script it is in; `slot` is None where the script is that one text."""

    scalar: Scalar
    script: str
    slot: Slot | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A job as it runs.

    `image` is None where it names none, `is_foreign` says that part of it is in another file. `stores` are its caches
    and artifacts, each as the mappings that are merged into one. `environments` are the values that its variables can
    have: one for each combination of its matrix, its rules, and the options of prefilled variables.
    """

    name: str
    slot: Slot
    image: Scalar | None
    is_foreign: bool
    is_trigger: bool
    bases: tuple[str, ...]
    lines: tuple[Line, ...]
    stores: tuple[tuple[Collection, ...], ...]
    inherited: Mapping[str, tuple[Slot, ...]]
    variables: Mapping[str, Slot]
    environments: tuple[Mapping[str, str], ...]


def variables_in(text: str) -> set[str]:
    """The names of the variables that a text expands, as `%NAME%` too."""
    return {name for names in _NAMED.findall(text) for name in names if name}


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Expand `$NAME` and `${NAME}`, nested ones too; names that are not known stay."""
    for _ in range(10):
        expanded = _VARIABLE.sub(lambda found: environment.get(found[1] or found[2], found[0]), text)
        if expanded == text:
            break
        text = expanded
    return text


def jobs(file: GitLabFile) -> tuple[Job, ...]:
    """The jobs of a file that run, and the hidden ones that nothing in it uses, which other files may."""
    reader = _Reader(file)
    used = _used(file)
    tops = {slot.name: slot for slot in file.root.slots if slot.name and slot.name not in NO_JOBS}
    return tuple(
        reader.job(slot)
        for name, slot in tops.items()
        if isinstance(slot.value, Collection) and slot.value.is_mapping and not slot.value.tag
        and not (name.startswith(".") and (name in used or not reader.table_names(slot.value) & {*SCRIPTS, "image"}))
    )  # fmt: skip


def _used(file: GitLabFile) -> set[str]:
    """The names of jobs that others of this file extend, refer to, or have by alias."""
    used = set()
    for collection in walk(file.root):
        if collection.tag == "!reference" and collection.slots and isinstance(collection.slots[0].value, Scalar):
            used.add(collection.slots[0].value.value)
        for slot in collection.slots:
            if slot.name == "extends":
                used.update(each.value for each in scalars(slot.value))
            if isinstance(slot.value, Alias) and slot.value.target in file.holders:
                used.add(file.top(file.holders[slot.value.target]).name)
    return used


def scalars(node: Node) -> Iterator[Scalar]:
    """The scalars of a node that is one, or a list of them."""
    if isinstance(node, Scalar):
        yield node
    elif isinstance(node, Collection) and not node.is_mapping:
        yield from (slot.value for slot in node.slots if isinstance(slot.value, Scalar))


class _Reader:
    """Follows what a file's jobs inherit."""

    def __init__(self, file: GitLabFile) -> None:
        self._file = file
        self._tops = {slot.name: slot for slot in file.root.slots}

    def job(self, slot: Slot) -> Job:
        own = slot.value
        assert isinstance(own, Collection)  # noqa: S101 - asked by jobs()
        chain, missing = self._chain(own, ())
        own_words = {key: self._definitions(key, chain) for key in (*SCRIPTS, *STORES, "image")}
        inherited = {key: (*words, *self._defaults(key, chain)) for key, words in own_words.items()}
        variables = self._variables(chain)
        matrix = next((each["parallel"] for each in map(self._table, chain) if "parallel" in each), None)
        return Job(
            name=slot.name,
            slot=slot,
            image=self._image(inherited["image"]),
            is_foreign=bool(missing),
            is_trigger=any("trigger" in self._table(each) for each in chain),
            bases=tuple(missing),
            lines=tuple(line for key in SCRIPTS for each in inherited[key][:1] for line in self._lines(key, each)),
            stores=tuple(group for key in STORES for group in self._stores(own_words[key] or inherited[key])),
            inherited=inherited,
            variables=variables,
            environments=tuple(self._environments(variables, matrix, chain)),
        )

    def table_names(self, mapping: Collection) -> set[str]:
        """The keys of a mapping, merged ones too."""
        return set(self._table(mapping))

    def _table(self, node: Node | None) -> dict[str, Slot]:
        """The entries of a mapping by key: the last of equal ones, and before those that are merged in."""
        mapping = self._resolve(node) if node else None
        if not isinstance(mapping, Collection) or not mapping.is_mapping:
            return {}
        own = {slot.name: slot for slot in mapping.slots}
        merged: dict[str, Slot] = {}
        for each in self._merged_into(mapping):
            merged = {**self._table(each), **merged}
        return {**merged, **own}

    def _merged_into(self, mapping: Collection) -> list[Collection]:
        values = [slot.value for slot in mapping.slots if slot.name == "<<"]
        lists = [[each.value for each in one.slots] for one in values if isinstance(one, Collection)]
        targets = [each.target for each in itertools.chain(values, *lists) if isinstance(each, Alias)]
        return [each for each in targets if isinstance(each, Collection) and each.is_mapping]

    def _resolve(self, node: Node, seen: tuple[Node, ...] = ()) -> Node | None:
        """The node that an alias or a `!reference` leads to; None where that is not in this file."""
        if node in seen or len(seen) > MOST_COMBINATIONS:
            return None
        if isinstance(node, Alias):
            return self._resolve(node.target, (*seen, node))
        if not isinstance(node, Collection) or node.tag != "!reference":
            return node
        at: Node | None = self._file.root
        for each in scalars(node):
            slot = self._table(at).get(each.value) if at else None
            at = self._resolve(slot.value, (*seen, node)) if slot else None
        return at

    def _chain(self, mapping: Collection, seen: tuple[str, ...]) -> tuple[list[Collection], list[str]]:
        """The mapping and all that it extends, the first to be asked first, and the names that are not here."""
        chain, missing = [mapping], []
        extends = self._table(mapping).get("extends")
        value = self._resolve(extends.value) if extends else None
        for name in reversed([each.value for each in scalars(value)] if value else []):
            base = self._resolve(self._tops[name].value) if name in self._tops else None
            if name in seen:
                continue
            if not isinstance(base, Collection):
                missing.append(name)
                continue
            further, absent = self._chain(base, (*seen, name))
            chain += further
            missing += absent
        return chain, missing

    def _definitions(self, key: str, chain: Sequence[Collection]) -> tuple[Slot, ...]:
        """Every definition of a keyword in a job and what it extends, the one in force first."""
        return tuple(table[key] for table in map(self._table, chain) if key in table)

    def _defaults(self, key: str, chain: Sequence[Collection]) -> tuple[Slot, ...]:
        """The definitions of a keyword that hold where a job has none: under `default:`, then those of the file."""
        if not self._inherits(key, "default", chain):
            return ()
        default = self._table(self._tops["default"].value) if "default" in self._tops else {}
        return tuple(table[key] for table in (default, self._tops) if key in table and key in DEFAULTS)

    def _inherits(self, key: str, what: str, chain: Sequence[Collection]) -> bool:
        slot = next((table["inherit"] for table in map(self._table, chain) if "inherit" in table), None)
        choice = self._table(slot.value).get(what) if slot else None
        value = self._resolve(choice.value) if choice else None
        if isinstance(value, Scalar):
            return value.value.lower() not in {"false", "no", "off"}
        return value is None or key in {each.value for each in scalars(value)}

    def _image(self, definitions: Sequence[Slot]) -> Scalar | None:
        for slot in definitions:
            value = self._resolve(slot.value)
            if isinstance(value, Scalar):
                return value
            name = self._table(value).get("name") if value else None
            found = self._resolve(name.value) if name else None
            if isinstance(found, Scalar):
                return found
        return None

    def _lines(self, script: str, slot: Slot, seen: tuple[Node, ...] = ()) -> Iterator[Line]:
        value = self._resolve(slot.value)
        if isinstance(value, Scalar):
            holder = self._file.holders[value]
            yield Line(scalar=value, script=script, slot=None if holder.key else holder)
        elif isinstance(value, Collection) and value not in seen:
            for item in value.slots:
                yield from self._lines(script, item, (*seen, value))

    def _stores(self, definitions: Sequence[Slot]) -> Iterator[tuple[Collection, ...]]:
        """The caches or artifacts of a job, each with what is merged into it."""
        group: list[Collection] = []
        for slot in definitions:
            value = self._resolve(slot.value)
            if isinstance(value, Collection) and value.is_mapping:
                group += [value, *self._merged_into(value)]
                continue
            if isinstance(value, Collection) and not group:
                for item in value.slots:
                    one = self._resolve(item.value)
                    if isinstance(one, Collection) and one.is_mapping:
                        yield (one, *self._merged_into(one))
            break
        if group:
            yield tuple(group)

    def _variables(self, chain: Sequence[Collection]) -> dict[str, Slot]:
        tables = [
            self._table(self._table(each)["variables"].value) for each in chain if "variables" in self._table(each)
        ]
        if "variables" in self._tops:
            everywhere = self._table(self._tops["variables"].value)
            tables.append({name: slot for name, slot in everywhere.items() if self._inherits(name, "variables", chain)})
        return {name: slot for table in reversed(tables) for name, slot in table.items() if name != "<<"}

    def _environments(
        self, variables: Mapping[str, Slot], parallel: Slot | None, chain: Sequence[Collection]
    ) -> Iterator[dict[str, str]]:
        plain = {name: self._value(slot.value) for name, slot in variables.items()}
        choices: list[dict[str, list[str]]] = [{}]
        for name, slot in variables.items():
            options = self._table(slot.value).get("options")
            if options:
                choices.append({name: [self._value(each) for each in scalars(options.value)]})
        rules = self._rules(chain)
        choices += [{name: [self._value(slot.value)] for name, slot in table.items()} for table in rules]
        for combination in self._matrix(parallel) or [{}]:
            for choice in choices:
                wanted = {**choice, **combination}
                products = itertools.product(*wanted.values())
                for values in itertools.islice(products, MOST_COMBINATIONS):
                    yield {**plain, **dict(zip(wanted, values, strict=True))}

    def _matrix(self, parallel: Slot | None) -> list[dict[str, list[str]]]:
        slot = self._table(parallel.value).get("matrix") if parallel else None
        value = self._resolve(slot.value) if slot else None
        items = value.slots if isinstance(value, Collection) else ()
        return [
            {name: [self._value(one) for one in scalars(self._resolve(each.value) or each.value)]
             for name, each in self._table(item.value).items()}
            for item in items
        ]  # fmt: skip

    def _rules(self, chain: Sequence[Collection]) -> Iterator[dict[str, Slot]]:
        """The variables that the rules of a job, and of the whole pipeline, set."""
        slots = [table["rules"] for table in map(self._table, chain) if "rules" in table][:1]
        if "workflow" in self._tops:
            slots += [each for name, each in self._table(self._tops["workflow"].value).items() if name == "rules"]
        for slot in slots:
            value = self._resolve(slot.value)
            for rule in value.slots if isinstance(value, Collection) else ():
                if "variables" in (table := self._table(rule.value)):
                    yield self._table(table["variables"].value)

    def _value(self, node: Node) -> str:
        """A variable's value as GitLab reads it: an unquoted 3.10 is the number 3.1."""
        found = self._resolve(node)
        if isinstance(found, Collection):
            inner = self._table(found).get("value")
            return self._value(inner.value) if inner else ""
        if not isinstance(found, Scalar):
            return ""
        is_number = not found.style and not found.tag and _FLOAT.fullmatch(found.value)
        return str(float(found.value)) if is_number else found.value
