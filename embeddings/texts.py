"""Makes the vectors of texts that came without, with the model of their project's LLM service.

All of this is called outside of transactions: a provider may take a minute.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from django.conf import settings

from common import json
from common.errors import Invalid
from embeddings import batches
from embeddings.batches import Batch
from embeddings.columns import Matrix
from llm_services.embedding import embed_documents, is_local
from llm_services.models import Instance
from llm_services.providers import TextRefused

# What the built-in model embeds in about a second.
CHARACTERS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Embedded:
    """What became of a batch.

    batch: the rows that have a vector now; rows: which rows those were before.
    refused: why the texts of the others cannot be embedded, by their rows.
    tokens: those that the provider counted, None where it does not say.
    """

    batch: Batch
    rows: list[int]
    refused: dict[int, str] = field(default_factory=dict)
    tokens: int | None = 0


def fit_into_request(instance: Instance, batch: Batch) -> bool:
    """Say whether the texts of a batch are so few that whoever sent them can wait for them."""
    if is_local(instance):
        return sum(len(batch.texts[row]) for row in batch.to_embed) <= CHARACTERS_AT_ONCE
    return len(batch.to_embed) <= int(settings.TEXTS_PER_REQUEST)


def embedded(instance: Instance, batch: Batch, place: Callable[[int], str]) -> Batch:
    """Return a batch with vectors of all its texts.

    place: where a row is in the request, for the refusal of one text, which refuses them all.
    Raises Invalid naming the row, and else as `embed_documents`.
    """
    if not batch.to_embed:
        return batch
    try:
        vectors, _ = _vectors(instance, batch, batch.to_embed)
    except TextRefused as refusal:
        raise _refusal(refusal, batch, place) from refusal
    return _filled(batch, batch.to_embed, vectors)


def embedded_one_by_one(instance: Instance, batch: Batch) -> Embedded:
    """Embed the texts of a batch, but for those that are refused; raise as `embed_documents`."""
    refused: dict[int, str] = {}
    wanted = batch.to_embed
    while wanted:
        try:
            vectors, tokens = _vectors(instance, batch, wanted)
        except TextRefused as refusal:
            refused[wanted[refusal.index]] = f"text cannot be embedded: {refusal.reason}"
            wanted = [row for row in batch.to_embed if row not in refused]
        else:
            rows = [row for row in range(len(batch)) if row not in refused]
            return Embedded(_filled(batch, wanted, vectors).part(rows), rows, refused, tokens)
    rows = [row for row in range(len(batch)) if row not in refused]
    return Embedded(replace(batch.part(rows), to_embed=[]), rows, refused)


def _vectors(instance: Instance, batch: Batch, rows: list[int]) -> tuple[Matrix, int | None]:
    made = embed_documents(instance, [batch.texts[row] for row in rows])
    for index, problem in batches.vector_problems(made.vectors).items():
        raise TextRefused(index, f"what the model makes of it cannot be used: {problem}")
    return made.vectors, made.tokens


def _filled(batch: Batch, rows: list[int], vectors: Matrix) -> Batch:
    every = np.array(batch.vectors)
    every[rows] = vectors
    return replace(batch, vectors=every, to_embed=[])


def _refusal(refusal: TextRefused, batch: Batch, place: Callable[[int], str]) -> Invalid:
    row = batch.to_embed[refusal.index]
    invalid = json.invalid(
        f"{place(row)}.text",
        f"text of text_id '{batch.text_ids[row]}' cannot be embedded: {refusal.reason}",
    )
    return Invalid(invalid.detail, errors=invalid.errors, details=refusal.details)
