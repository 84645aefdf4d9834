"""The jobs of a GitLab file with everything they inherit: `extends`, merge keys, `!reference`, `default:`, globals.

The rules are those of GitLab's CI/CD YAML reference: a job's own keywords override those of the jobs it extends, of
which the last takes precedence, and these override `default:`. Mappings are merged, other values are replaced.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from builder.gitlab.adopt.file import Alias, Collection, GitLabFile, Node, Scalar, Slot, walk

GLOBAL_KEYWORDS: Final = frozenset(
    {"default", "include", "stages", "types", "variables", "workflow", "image", "services", "cache", "before_script",
     "after_script", "spec"}
)  # fmt: skip
SCRIPTS: Final = ("before_script", "script", "after_script")
DEFAULTS: Final = frozenset(
    {"image", "cache", "artifacts", "before_script", "after_script"}
)  # among the keywords read here
STORES: Final = ("cache", "artifacts")
CONTENT_KEYS: Final = frozenset({"paths", "untracked", "reports"})  # the keys that give caches and artifacts content
MOST_COMBINATIONS: Final = 200  # of a job's parallel:matrix; GitLab's own limit
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_NAMED: Final = re.compile(rf"{_VARIABLE.pattern}|%(\w+)%")
_FLOAT: Final = re.compile(r"[-+]?[0-9]+\.[0-9]+")


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """A line of a script, and the keyword of that script; `slot` is None if the script is a single text."""

    scalar: Scalar
    script: str
    slot: Slot | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A job as it runs.

    `image` is None if it sets none. `missing_bases` are the jobs it extends that are not in this file. `stores` are its
    caches and artifacts, each as the mappings that are merged into it. `inherited` has the definitions of each keyword,
    the effective one first. `variable_sets` are the values that its variables can have: one for each combination of
    its matrix, its rules, and the options of prefilled variables.
    """

    name: str
    slot: Slot
    image: Scalar | None
    is_trigger: bool
    missing_bases: tuple[str, ...]
    lines: tuple[Line, ...]
    stores: tuple[tuple[Collection, ...], ...]
    inherited: Mapping[str, tuple[Slot, ...]]
    variables: Mapping[str, Slot]
    variable_sets: tuple[Mapping[str, str], ...]


def variables_in(text: str) -> set[str]:
    """The names of the variables that a text expands, including `%NAME%`."""
    return {name for names in _NAMED.findall(text) for name in names if name}


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Expand `$NAME` and `${NAME}`, also nested; unknown names are left as they are."""
    for _ in range(10):
        expanded = _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], match[0]), text)
        if expanded == text:
            break
        text = expanded
    return text


def read_jobs(file: GitLabFile) -> tuple[Job, ...]:
    """The jobs of a file that run, and its unused hidden jobs, which other files may use."""
    reader = _Reader(file)
    used = _used(file)
    tops = {slot.name: slot for slot in file.root.slots if slot.name and slot.name not in GLOBAL_KEYWORDS}
    return tuple(
        reader.job(slot)
        for name, slot in tops.items()
        if isinstance(slot.value, Collection) and slot.value.is_mapping and not slot.value.tag
        and not (name.startswith(".") and (name in used or not reader.table_names(slot.value) & {*SCRIPTS, "image"}))
    )  # fmt: skip


def _used(file: GitLabFile) -> set[str]:
    """The names of jobs that other jobs of this file extend, reference, or alias."""
    used = set()
    for collection in walk(file.root):
        if collection.tag == "!reference" and collection.slots and isinstance(collection.slots[0].value, Scalar):
            used.add(collection.slots[0].value.value)
        for slot in collection.slots:
            if slot.name == "extends":
                used.update(name.value for name in scalars(slot.value))
            if isinstance(slot.value, Alias) and slot.value.target in file.holders:
                used.add(file.top(file.holders[slot.value.target]).name)
    return used


def scalars(node: Node) -> Iterator[Scalar]:
    """The node itself if it is a scalar, or the scalars of a list."""
    if isinstance(node, Scalar):
        yield node
    elif isinstance(node, Collection) and not node.is_mapping:
        yield from (slot.value for slot in node.slots if isinstance(slot.value, Scalar))


class _Reader:
    """Resolves what the jobs of a file inherit."""

    def __init__(self, file: GitLabFile) -> None:
        self._file = file
        self._tops = {slot.name: slot for slot in file.root.slots}

    def job(self, slot: Slot) -> Job:
        own = slot.value
        assert isinstance(own, Collection)  # noqa: S101 - read_jobs() checks it
        chain, missing = self._chain(own, ())
        own_slots = {key: self._definitions(key, chain) for key in (*SCRIPTS, *STORES, "image")}
        inherited = {key: (*slots, *self._defaults(key, chain)) for key, slots in own_slots.items()}
        variables = self._variables(chain)
        matrix = next((table["parallel"] for table in map(self._table, chain) if "parallel" in table), None)
        return Job(
            name=slot.name,
            slot=slot,
            image=self._image(inherited["image"]),
            is_trigger=any("trigger" in self._table(mapping) for mapping in chain),
            missing_bases=tuple(missing),
            lines=tuple(line for key in SCRIPTS for script in inherited[key][:1] for line in self._lines(key, script)),
            stores=tuple(group for key in STORES for group in self._stores(own_slots[key] or inherited[key])),
            inherited=inherited,
            variables=variables,
            variable_sets=tuple(self._variable_sets(variables, matrix, chain)),
        )

    def table_names(self, mapping: Collection) -> set[str]:
        """The keys of a mapping, including merged ones."""
        return set(self._table(mapping))

    def _table(self, node: Node | None) -> dict[str, Slot]:
        """The entries of a mapping by key. Of duplicates the last one counts; own entries override merged ones."""
        mapping = self._resolve(node) if node else None
        if not isinstance(mapping, Collection) or not mapping.is_mapping:
            return {}
        own = {slot.name: slot for slot in mapping.slots}
        merged: dict[str, Slot] = {}
        for source in self._merged_into(mapping):
            merged = {**self._table(source), **merged}
        return {**merged, **own}

    def _merged_into(self, mapping: Collection) -> list[Collection]:
        values = [slot.value for slot in mapping.slots if slot.name == "<<"]
        lists = [[slot.value for slot in value.slots] for value in values if isinstance(value, Collection)]
        targets = [alias.target for alias in itertools.chain(values, *lists) if isinstance(alias, Alias)]
        return [target for target in targets if isinstance(target, Collection) and target.is_mapping]

    def _resolve(self, node: Node, seen: tuple[Node, ...] = ()) -> Node | None:
        """The node that an alias or a `!reference` stands for; None if it is not in this file."""
        if node in seen or len(seen) > MOST_COMBINATIONS:
            return None
        if isinstance(node, Alias):
            return self._resolve(node.target, (*seen, node))
        if not isinstance(node, Collection) or node.tag != "!reference":
            return node
        target: Node | None = self._file.root
        for key in scalars(node):
            slot = self._table(target).get(key.value) if target else None
            target = self._resolve(slot.value, (*seen, node)) if slot else None
        return target

    def _chain(self, mapping: Collection, seen: tuple[str, ...]) -> tuple[list[Collection], list[str]]:
        """The mapping and all it extends, in order of precedence, and the names that are not in this file."""
        chain, missing = [mapping], []
        extends = self._table(mapping).get("extends")
        value = self._resolve(extends.value) if extends else None
        for name in reversed([base.value for base in scalars(value)] if value else []):
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
        """Every definition of a keyword in a job and the jobs it extends, the effective one first."""
        return tuple(table[key] for table in map(self._table, chain) if key in table)

    def _defaults(self, key: str, chain: Sequence[Collection]) -> tuple[Slot, ...]:
        """The definitions that apply to a job without its own: the one under `default:`, then the file's global one."""
        if not self._inherits(key, "default", chain):
            return ()
        default = self._table(self._tops["default"].value) if "default" in self._tops else {}
        return tuple(table[key] for table in (default, self._tops) if key in table and key in DEFAULTS)

    def _inherits(self, key: str, source: str, chain: Sequence[Collection]) -> bool:
        slot = next((table["inherit"] for table in map(self._table, chain) if "inherit" in table), None)
        choice = self._table(slot.value).get(source) if slot else None
        value = self._resolve(choice.value) if choice else None
        if isinstance(value, Scalar):
            return value.value.lower() not in {"false", "no", "off"}
        return value is None or key in {name.value for name in scalars(value)}

    def _image(self, definitions: Sequence[Slot]) -> Scalar | None:
        for slot in definitions:
            value = self._resolve(slot.value)
            if isinstance(value, Scalar):
                return value
            name = self._table(value).get("name") if value else None
            image = self._resolve(name.value) if name else None
            if isinstance(image, Scalar):
                return image
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
        """The caches or artifacts of a job, each with the mappings that are merged into it."""
        group: list[Collection] = []
        for slot in definitions:
            value = self._resolve(slot.value)
            if isinstance(value, Collection) and value.is_mapping:
                group += [value, *self._merged_into(value)]
                continue
            if isinstance(value, Collection) and not group:
                for item in value.slots:
                    cache = self._resolve(item.value)
                    if isinstance(cache, Collection) and cache.is_mapping:
                        yield (cache, *self._merged_into(cache))
            break
        if group:
            yield tuple(group)

    def _variables(self, chain: Sequence[Collection]) -> dict[str, Slot]:
        tables = [self._table(table["variables"].value) for table in map(self._table, chain) if "variables" in table]
        if "variables" in self._tops:
            global_table = self._table(self._tops["variables"].value)
            tables.append(
                {name: slot for name, slot in global_table.items() if self._inherits(name, "variables", chain)}
            )
        return {name: slot for table in reversed(tables) for name, slot in table.items() if name != "<<"}

    def _variable_sets(
        self, variables: Mapping[str, Slot], parallel: Slot | None, chain: Sequence[Collection]
    ) -> Iterator[dict[str, str]]:
        defaults = {name: self._value(slot.value) for name, slot in variables.items()}
        choices: list[dict[str, list[str]]] = [{}]
        for name, slot in variables.items():
            options = self._table(slot.value).get("options")
            if options:
                choices.append({name: [self._value(option) for option in scalars(options.value)]})
        rules = self._rules(chain)
        choices += [{name: [self._value(slot.value)] for name, slot in table.items()} for table in rules]
        for combination in self._matrix(parallel) or [{}]:
            for choice in choices:
                alternatives = {**choice, **combination}
                products = itertools.product(*alternatives.values())
                for values in itertools.islice(products, MOST_COMBINATIONS):
                    yield {**defaults, **dict(zip(alternatives, values, strict=True))}

    def _matrix(self, parallel: Slot | None) -> list[dict[str, list[str]]]:
        slot = self._table(parallel.value).get("matrix") if parallel else None
        value = self._resolve(slot.value) if slot else None
        items = value.slots if isinstance(value, Collection) else ()
        return [
            {name: [self._value(value) for value in scalars(self._resolve(slot.value) or slot.value)]
             for name, slot in self._table(item.value).items()}
            for item in items
        ]  # fmt: skip

    def _rules(self, chain: Sequence[Collection]) -> Iterator[dict[str, Slot]]:
        """The variables that the rules of a job, or of the whole pipeline, set."""
        slots = [table["rules"] for table in map(self._table, chain) if "rules" in table][:1]
        if "workflow" in self._tops:
            slots += [slot for name, slot in self._table(self._tops["workflow"].value).items() if name == "rules"]
        for slot in slots:
            value = self._resolve(slot.value)
            for rule in value.slots if isinstance(value, Collection) else ():
                if "variables" in (table := self._table(rule.value)):
                    yield self._table(table["variables"].value)

    def _value(self, node: Node) -> str:
        """A variable's value as GitLab reads it: an unquoted 3.10 is the number 3.1."""
        target = self._resolve(node)
        if isinstance(target, Collection):
            inner = self._table(target).get("value")
            return self._value(inner.value) if inner else ""
        if not isinstance(target, Scalar):
            return ""
        is_number = not target.style and not target.tag and _FLOAT.fullmatch(target.value)
        return str(float(target.value)) if is_number else target.value
