"""What results carry besides id and similarity."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from embeddings import store
from embeddings.filters import Path
from embeddings.shaping._shape import Context, Fields, Passage, Result
from embeddings.store import Described, Neighbour

# Keys to follow; None stands for all that is there.
Tree = dict[str, "Tree | None"]


def dressed(
    project_id: int, results: Sequence[Result], fields: Fields, context: Context | None = None
) -> list[Result]:
    """Return results of a project with what they carry; without those deleted meanwhile.

    Two to four statements, however many results there are: none without anything to carry.
    """
    if not (fields or context) or not results:
        return list(results)
    within = [] if context is None or context.within is None else [context.within]
    described = _describe(project_id, [each.text_id for each in results], fields, within)
    tree = _tree(fields)
    found = [
        replace(each, carries=_carried(described[each.text_id], fields, tree))
        for each in results
        if each.text_id in described
    ]
    return found if context is None else _placed(project_id, found, described, fields, context)


def _placed(
    project_id: int,
    results: Sequence[Result],
    described: Mapping[str, Described],
    fields: Fields,
    context: Context,
) -> list[Result]:
    """Return the results with the passages around them."""
    text_ids = list({each.text_id for each in results})
    shared = () if context.within is None else _shared(described[each] for each in text_ids)
    around = store.neighbours(
        project_id,
        text_ids,
        order=context.path,
        before=context.before,
        after=context.after,
        within=context.within,
        shared=shared,
    )
    near = _describe(project_id, list({each.text_id for each in around}), fields) if fields else {}
    tree = _tree(fields)
    by_result: dict[str, list[Neighbour]] = {}
    for each in around:
        by_result.setdefault(each.of, []).append(each)

    def passages(of: str, *, after: bool) -> tuple[Passage, ...]:
        return tuple(
            Passage(each.text_id, _carried(near[each.text_id], fields, tree) if fields else {})
            for each in by_result.get(of, ())
            if (each.step > 0) is after and (not fields or each.text_id in near)
        )

    return [
        replace(
            each,
            before=passages(each.text_id, after=False),
            after=passages(each.text_id, after=True),
        )
        for each in results
    ]


def _shared(described: Iterable[Described]) -> tuple[Any, ...]:
    # 1 and true are equal, and so is what they match here: the store looks at both.
    values = {(isinstance(value, bool), value) for each in described for value in each.values[0]}
    return tuple(value for _, value in values)


def _describe(
    project_id: int, text_ids: Sequence[str], fields: Fields, paths: Sequence[Path] = ()
) -> dict[str, Described]:
    return store.describe(
        project_id,
        text_ids,
        text=fields.text,
        metadata=fields.metadata,
        vector=fields.vector,
        paths=paths,
    )


def _carried(described: Described, fields: Fields, tree: Tree) -> dict[str, Any]:
    carried: dict[str, Any] = {}
    if fields.text:
        carried["text"] = described.text
    if fields.metadata:
        if fields.parts is None:
            carried["metadata"] = orjson.Fragment(described.metadata)
        else:
            carried["metadata"] = _part(orjson.loads(described.metadata), tree)
    if fields.vector:
        carried["vector"] = described.vector
    return carried


def _tree(fields: Fields) -> Tree:
    tree: Tree = {}
    for path in fields.parts or ():
        for *parents, last in path.places:
            inner: Tree | None = tree
            for key in parents:
                inner = None if inner is None else inner.setdefault(key, {})
            if inner is not None:
                inner[last] = None
    return tree


def _part(value: Any, tree: Tree) -> Any:
    """Return what of an object, or of a list of objects, is on the paths."""
    if isinstance(value, list):
        parts = (_part(each, tree) for each in value if isinstance(each, dict))
        return [each for each in parts if each]
    found: dict[str, Any] = {}
    for key, inner in tree.items():
        if key not in value:
            continue
        if inner is None:
            found[key] = value[key]
        elif isinstance(value[key], dict | list) and (part := _part(value[key], inner)):
            found[key] = part
    return found
