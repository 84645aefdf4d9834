"""Read the jobs of a pipeline with everything they inherit: `extends`, merge keys, `!reference`, `default:`, globals.

The rules are those of GitLab's CI/CD YAML reference: a job's own keywords override those of the jobs it extends, of
which the last takes precedence, and these override `default:`. Mappings are merged, other values are replaced. A job
that several files define is merged in the same way.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from builder.gitlab.adopt.job import GLOBAL_KEYWORDS, SCRIPTS, STORES, Job, Line, scalars
from builder.gitlab.adopt.node import Alias, Collection, Node, Scalar, Slot
from builder.gitlab.adopt.pipeline import Pipeline

DEFAULTS: Final = frozenset(
    {"image", "cache", "artifacts", "before_script", "after_script"}
)  # among the keywords read here
MOST_COMBINATIONS: Final = 200  # of a job's parallel:matrix; GitLab's own limit
_FLOAT: Final = re.compile(r"[-+]?[0-9]+\.[0-9]+")


def read_jobs(pipeline: Pipeline) -> tuple[Job, ...]:
    """The jobs of a pipeline that run, and its unused hidden jobs, which other files may use.

    If all jobs are in files that could not be read, the only one stands for those: it has the global keywords alone.
    """
    reader = _Reader(pipeline)
    used = _used(pipeline)
    jobs = []
    for name, slots in pipeline.tops.items():
        own = [slot for slot in slots if isinstance(slot.value, Collection) and slot.value.is_mapping]
        is_idle = name.startswith(".") and (name in used or not reader.names_in(own) & {*SCRIPTS, "image"})
        if name not in GLOBAL_KEYWORDS and own and not is_idle:
            jobs.append(reader.job(name, own))
    if not jobs and pipeline.foreign and (tops := pipeline.tops.get("image") or pipeline.tops.get("default")):
        jobs.append(reader.job("default", tops[:1]))
    return tuple(jobs)


def _used(pipeline: Pipeline) -> set[str]:
    """The names of jobs that other jobs of the pipeline extend, reference, or alias."""
    used = set()
    for collection in pipeline.collections():
        if collection.tag == "!reference" and collection.slots and isinstance(collection.slots[0].value, Scalar):
            used.add(collection.slots[0].value.value)
        for slot in collection.slots:
            if slot.name == "extends":
                used.update(name.value for name in scalars(slot.value))
            if isinstance(slot.value, Alias) and slot.value.target in pipeline.holders:
                used.add(pipeline.top(pipeline.holders[slot.value.target]).name)
    return used


class _Reader:
    """Resolves what the jobs of a pipeline inherit."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._tops = pipeline.tops
        self._tables: dict[Collection, Mapping[str, Slot]] = {}

    def job(self, name: str, own: Sequence[Slot]) -> Job:
        values = [slot.value for slot in own if slot.name not in GLOBAL_KEYWORDS]
        chain, missing = self._chain([value for value in values if isinstance(value, Collection)], (name,))
        own_slots = {key: self._definitions(key, chain) for key in (*SCRIPTS, *STORES, "image")}
        inherited = {key: (*slots, *self._defaults(key, chain)) for key, slots in own_slots.items()}
        variables = self._variables(chain)
        matrix = next((table["parallel"] for table in map(self._table, chain) if "parallel" in table), None)
        is_trigger = any("trigger" in self._table(mapping) for mapping in chain)
        is_elsewhere = bool(chain and self._pipeline.foreign and not name.startswith("."))
        return Job(
            name=name,
            slot=own[0],
            stage=next((self._value(slot.value) for slot in self._definitions("stage", chain)), "test"),
            image=self._image(own_slots["image"] if missing else inherited["image"]),
            is_trigger=is_trigger,
            is_partial=is_elsewhere and not is_trigger and not own_slots["script"],
            missing_bases=tuple(missing),
            lines=tuple(line for key in SCRIPTS for script in inherited[key][:1] for line in self._lines(key, script)),
            stores=tuple(group for key in STORES for group in self._stores(own_slots[key] or inherited[key])),
            inherited=inherited,
            variables=variables,
            variable_sets=tuple(self._variable_sets(variables, matrix, chain)),
        )

    def names_in(self, own: Sequence[Slot]) -> set[str]:
        """The keys of a job's mappings, including merged ones."""
        return {name for slot in own for name in self._table(slot.value)}

    def _table(self, node: Node | None) -> Mapping[str, Slot]:
        """The entries of a mapping by key. Of duplicates the last one counts; own entries override merged ones."""
        mapping = self._resolve(node) if node else None
        if not isinstance(mapping, Collection) or not mapping.is_mapping:
            return {}
        if mapping not in self._tables:
            self._tables[mapping] = self._read_table(mapping)
        return self._tables[mapping]

    def _read_table(self, mapping: Collection) -> dict[str, Slot]:
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
        """The node that an alias or a `!reference` stands for; None if it is in no file that was read."""
        if node in seen or len(seen) > MOST_COMBINATIONS:
            return None
        if isinstance(node, Alias):
            return self._resolve(node.target, (*seen, node))
        if not isinstance(node, Collection) or node.tag != "!reference":
            return node
        job, *keys = [key.value for key in scalars(node)] or [""]
        targets = [self._resolve(slot.value, (*seen, node)) for slot in self._tops.get(job, ())]
        for key in keys:
            slots = [slot for target in targets if target and (slot := self._table(target).get(key))]
            targets = [self._resolve(slot.value, (*seen, node)) for slot in slots]
        return next((target for target in targets if target), None)

    def _chain(self, own: Sequence[Collection], seen: tuple[str, ...]) -> tuple[list[Collection], list[str]]:
        """A job's mappings and all it extends, in order of precedence, and the names that are in no file read."""
        chain, missing = [*own], []
        extends = next((table["extends"] for table in map(self._table, own) if "extends" in table), None)
        value = self._resolve(extends.value) if extends else None
        for name in reversed([base.value for base in scalars(value)] if value else []):
            if name in seen:
                continue
            values = [self._resolve(slot.value) for slot in self._tops.get(name, ())]
            bases = [value for value in values if isinstance(value, Collection)]
            further, absent = self._chain(bases, (*seen, name)) if bases else ([], [name])
            chain += further
            missing += absent
        return chain, missing

    def _definitions(self, key: str, chain: Sequence[Collection]) -> tuple[Slot, ...]:
        """Every definition of a keyword in a job and the jobs it extends, the effective one first."""
        return tuple(table[key] for table in map(self._table, chain) if key in table)

    def _defaults(self, key: str, chain: Sequence[Collection]) -> tuple[Slot, ...]:
        """The definitions that apply to a job without its own: those under `default:`, then the global ones."""
        if key not in DEFAULTS or not self._inherits(key, "default", chain):
            return ()
        tables = [self._table(slot.value) for slot in self._tops.get("default", ())]
        return (*(table[key] for table in tables if key in table), *self._tops.get(key, ()))

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
            holder = self._pipeline.holders[value]
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
        for top in self._tops.get("variables", ()):
            global_table = self._table(top.value)
            tables.append(
                {name: slot for name, slot in global_table.items() if self._inherits(name, "variables", chain)}
            )
        return {name: slot for table in reversed(tables) for name, slot in table.items() if name != "<<"}

    def _variable_sets(
        self, variables: Mapping[str, Slot], parallel: Slot | None, chain: Sequence[Collection]
    ) -> Iterator[dict[str, str]]:
        defaults = {name: self._value(slot.value) for name, slot in variables.items()}
        of_rules = [{**workflow, **job} for job, workflow in itertools.product(*self._rules(chain))]
        choices = of_rules[:MOST_COMBINATIONS]
        for name, slot in variables.items():
            options = self._table(slot.value).get("options")
            if options:
                choices.append({**choices[0], name: [self._value(option) for option in scalars(options.value)]})
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

    def _rules(self, chain: Sequence[Collection]) -> tuple[list[dict[str, list[str]]], list[dict[str, list[str]]]]:
        """The variables that the rules of a job, and of the whole pipeline, set: one of each holds when it runs."""
        own = [table["rules"] for table in map(self._table, chain) if "rules" in table][:1]
        workflows = [self._table(top.value) for top in self._tops.get("workflow", ())]
        return self._rule(own), self._rule([table["rules"] for table in workflows if "rules" in table][:1])

    def _rule(self, slots: Sequence[Slot]) -> list[dict[str, list[str]]]:
        value = self._resolve(slots[0].value) if slots else None
        tables = [self._table(rule.value) for rule in value.slots] if isinstance(value, Collection) else []
        running = [table for table in tables if "when" not in table or self._value(table["when"].value) != "never"]
        chosen = [self._table(table["variables"].value) if "variables" in table else {} for table in running]
        return [{name: [self._value(slot.value)] for name, slot in table.items()} for table in chosen] or [{}]

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
