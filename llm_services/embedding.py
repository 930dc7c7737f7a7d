"""Embeds texts with an LLM service's model, each text once.

Vectors are kept in the database (`EmbeddedText`) for the account that owns the service, and those
of recent queries in the process besides. Who may use a service, the callers ask before. They call
outside of transactions: a provider may take a minute.
"""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import structlog
from cachetools import LRUCache
from django.conf import settings
from django.db.models import Sum
from django.db.models.functions import Length
from numpy.typing import NDArray

from llm_services.crypto import CannotOpen
from llm_services.models import EmbeddedText, Instance
from llm_services.providers import (
    Embedded,
    Misconfigured,
    Provider,
    Purpose,
    TextRefused,
    provider_for,
)
from llm_services.services import api_key_of

# Texts that are looked after together: four of the largest requests of most providers. What comes
# is kept as it comes.
_PIECE = 512
_SWEPT_AT_ONCE = 5_000
_SENTENCE = "Does this model answer?"
_QUERIES_BYTES = 16 * 1024**2

_log = structlog.get_logger(__name__)
_queries: LRUCache[tuple[int, bytes, bytes], NDArray[np.float32]] = LRUCache(
    _QUERIES_BYTES, getsizeof=lambda vector: vector.nbytes
)
_queries_lock = threading.Lock()


def provider_of(instance: Instance) -> Provider:
    """Return what embeds with an instance's model and key; raise Misconfigured."""
    try:
        return provider_for(instance, api_key_of(instance))
    except CannotOpen as error:
        _log.warning("provider_key_unreadable", instance=instance.pk, reason=str(error))
        raise Misconfigured(
            f"LLM service '{instance}': the stored key cannot be read by this server. "
            "Store it once more."
        ) from error


def digest_of(text: str) -> bytes:
    """Return the 32 bytes by which a text is known to be embedded already: SHA-256 of its UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).digest()


def is_local(instance: Instance) -> bool:
    """Say whether an instance's model runs in this process, so that its use costs nobody money."""
    return provider_for(instance, "").is_local


def embed_documents(instance: Instance, texts: Sequence[str]) -> Embedded:
    """Return the vectors of texts that are to be found, in their order.

    instance: with its owner and API standard, which are looked at.
    tokens: those that the provider counted now; texts known before cost none.
    Raises as Provider.embed; what was embedded until then is kept.
    """
    cache = _Cache(instance, Purpose.DOCUMENT)
    # Each text once, by the number of its first occurrence.
    first: dict[str, int] = {}
    for index, text in enumerate(texts):
        first.setdefault(text, index)
    wanted = list(first)
    known = cache.find(wanted)
    tokens: int | None = 0
    for start in range(0, len(wanted), _PIECE):
        piece = wanted[start : start + _PIECE]
        held = {number for number, text in enumerate(piece) if text in known}
        if len(held) == len(piece):
            continue
        lots = provider_of(instance).parts(piece, purpose=Purpose.DOCUMENT, known=held)
        try:
            for numbers, made in lots:
                lot = [piece[number] for number in numbers]
                # At once: what has come is not asked for again, even if this process is killed.
                cache.keep(lot, made.vectors)
                known.update(zip(lot, made.vectors, strict=True))
                tokens = None if tokens is None or made.tokens is None else tokens + made.tokens
        except TextRefused as refusal:
            raise refusal.at(first[piece[refusal.index]]) from refusal
    vectors = np.empty((len(texts), instance.dimensions), dtype=np.float32)
    for index, text in enumerate(texts):
        vectors[index] = known[text]
    return Embedded(vectors, tokens)


def embed_query(instance: Instance, text: str) -> NDArray[np.float32]:
    """Return the vector of a text that is searched with: float32 of shape (dimensions,), read-only.

    instance: with its owner and API standard, which are looked at.
    Raises as Provider.embed.
    """
    name = instance.owner_id, instance.fingerprint(), digest_of(text)
    with _queries_lock:
        vector = _queries.get(name)
    if vector is None:
        vector = _embed_query(instance, text)
        vector.setflags(write=False)
        with _queries_lock:
            _queries[name] = vector
    return vector


def forget_queries() -> None:
    """Forget the vectors of queries that this process has; those in the database stay."""
    with _queries_lock:
        _queries.clear()


def _embed_query(instance: Instance, text: str) -> NDArray[np.float32]:
    provider = provider_of(instance)
    ask = partial(provider.embed, [text], purpose=Purpose.QUERY)
    if provider.is_local:
        # As quick as looking it up.
        return ask().vectors.ravel()
    # Where the model makes no difference, a document of the same words will do.
    cache = _Cache(instance, Purpose.QUERY if provider.has_purposes else Purpose.DOCUMENT)
    known = cache.find([text])
    if text in known:
        return known[text]
    vectors = ask().vectors
    cache.keep([text], vectors)
    return vectors.ravel()


@dataclass(frozen=True)
class Trial:
    """What an instance made of a text; milliseconds include the network."""

    model: str
    dimensions: int
    milliseconds: float
    tokens: int | None


def try_out(instance: Instance, text: str | None = None) -> Trial:
    """Embed one text with an instance, past everything that is kept; raise as Provider.embed."""
    provider = provider_of(instance)
    began = time.perf_counter()
    made = provider.embed([text or _SENTENCE], purpose=Purpose.QUERY)
    took_ms = round((time.perf_counter() - began) * 1000, 1)
    return Trial(instance.model, made.vectors.shape[1], took_ms, made.tokens)


def sweep_cache() -> int:
    """Delete the oldest vectors beyond what the setting allows; return how many."""
    limit = settings.EMBEDDING_CACHE_MB * 1024**2
    swept = 0
    while True:
        size = EmbeddedText.objects.aggregate(size=Sum(Length("vector")))["size"] or 0
        if size <= limit:
            return swept
        for batch in _oldest(size - limit):
            swept += EmbeddedText.objects.filter(pk__in=batch).delete()[0]


def _oldest(size: int) -> Iterator[list[int]]:
    """Yield the oldest rows that hold at least so many bytes, in batches."""
    rows = EmbeddedText.objects.order_by("created_at", "pk").values_list("pk", Length("vector"))
    while size > 0:
        batch: list[int] = []
        for pk, held in rows[:_SWEPT_AT_ONCE]:
            if size <= 0:
                break
            batch.append(pk)
            size -= held
        if not batch:
            return
        yield batch


class _Cache:
    """The vectors of an instance's model that its owner has, for one purpose."""

    def __init__(self, instance: Instance, purpose: Purpose) -> None:
        self._owner_id = instance.owner_id
        self._fingerprint = instance.fingerprint()
        self._purpose = purpose.value

    def find(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the vectors of those texts that are known."""
        by_digest = {digest_of(text): text for text in texts}
        found = {}
        digests = list(by_digest)
        for start in range(0, len(digests), _PIECE):
            rows = EmbeddedText.objects.filter(
                owner_id=self._owner_id,
                fingerprint=self._fingerprint,
                purpose=self._purpose,
                text_digest__in=digests[start : start + _PIECE],
            )
            for digest, vector in rows.values_list("text_digest", "vector"):
                found[by_digest[bytes(digest)]] = np.frombuffer(vector, dtype="<f4")
        return found

    def keep(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep the vectors of texts."""
        if not settings.EMBEDDING_CACHE_MB:
            return
        EmbeddedText.objects.bulk_create(
            [
                EmbeddedText(
                    owner_id=self._owner_id,
                    fingerprint=self._fingerprint,
                    purpose=self._purpose,
                    text_digest=digest_of(text),
                    vector=vector.astype("<f4").tobytes(),
                )
                for text, vector in zip(texts, vectors, strict=True)
            ],
            # Somebody else may have embedded the same at the same time.
            ignore_conflicts=True,
        )
