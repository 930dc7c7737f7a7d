"""What all providers reached over HTTP have in common: keys, batches, tries, distrust of answers.

Errors say what happened in our own words and name the provider's status, never its address, what
its answer holds, or the key.
"""

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar
from urllib.parse import quote

import numpy as np
import orjson
import simdjson
from django.conf import settings
from django.utils import timezone
from numpy.typing import NDArray
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_any,
    stop_before_delay,
    wait_random_exponential,
)

from common import outgoing
from common.errors import BadGateway, DomainError, GatewayTimeout
from llm_services.models import KeyMethod, Service
from llm_services.providers._base import Embedded, Misconfigured, Purpose, TextRefused, joined

_TRIES = 4
# Seconds until an answer must be there, with all tries: somebody waits for the vector of a query.
_PATIENCE_S = {Purpose.DOCUMENT: 60.0, Purpose.QUERY: 15.0}
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0
# Batches of one call that are under way at once.
_CONCURRENCY = 4
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
# What providers answer to a text that is too long, and to much else.
_REFUSED = frozenset({400, 413, 422})
_NOT_THERE = frozenset({404, 405, 410})
_KEY_REFUSED = frozenset({401, 403})
_PROBE = "test"
_pause = wait_random_exponential(multiplier=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S)


@dataclass(frozen=True)
class Limits:
    """How much a provider takes in one request."""

    texts: int
    characters: int


class _Refused(Exception):
    """The provider took offence at a batch."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


class _Passing(Exception):
    """A failure that may be gone at the next try.

    error: what to raise if it is not.
    pause_s: how long the provider asks to wait, if it does.
    """

    def __init__(self, error: DomainError, pause_s: float | None = None) -> None:
        super().__init__()
        self.error = error
        self.pause_s = pause_s


@dataclass
class _Batch:
    """Texts that go out together, unless the provider refuses them.

    numbers: which texts these are. parts: what came back, with the numbers of its texts.
    """

    numbers: Sequence[int]
    texts: Sequence[str]
    parts: list[tuple[Sequence[int], Embedded]] = field(default_factory=list)


class HttpProvider(ABC):
    """A provider that answers POST requests with JSON. Subclasses know what is in them."""

    limits: ClassVar[Limits]
    has_purposes: bool = False
    is_local: bool = False
    # Whether requests for documents carry a key that follows from what they ask for: then a
    # provider that keeps its answers for a while answers a repeated request without working, and
    # charging, again. Protocols whose own clients send such keys: those repeat them when they try
    # again after a failure, so failures are not what is kept.
    sends_idempotency_key: ClassVar[bool] = False

    def __init__(self, service: Service, api_key: str) -> None:
        self.service = service
        self._api_key = api_key

    @abstractmethod
    def body(self, texts: Sequence[str], purpose: Purpose) -> dict[str, Any]:
        """Return the request for a batch."""

    @abstractmethod
    def read(self, answer: Any) -> tuple[Sequence[Any], int | None]:
        """Return the arrays of numbers in the order of the texts, and the tokens if known.

        answer: simdjson's view. Any ValueError, TypeError, LookupError or AttributeError means that
        the answer is not what the protocol says.
        """

    def endpoint(self) -> str:
        """Return the address to send to."""
        return self.service.endpoint

    def embed(self, texts: Sequence[str], *, purpose: Purpose) -> Embedded:
        """Return a vector for every text; see Provider."""
        parts = sorted(self.parts(texts, purpose=purpose), key=lambda part: part[0][0])
        return joined([made for _, made in parts], self.service.dimensions)

    def parts(
        self, texts: Sequence[str], *, purpose: Purpose, known: Collection[int] = frozenset()
    ) -> Iterator[tuple[Sequence[int], Embedded]]:
        """Yield the vectors as they come; see Provider."""
        batches = []
        for together in _batches(texts, self.limits):
            if numbers := [number for number in together if number not in known]:
                batches.append(_Batch(numbers, [texts[number] for number in numbers]))
        failures: dict[int, BaseException] = {}
        for batch, failure in self._answers(batches, purpose):
            yield from batch.parts
            if failure is not None:
                failures[batch.numbers[0]] = failure
        if failures:
            raise failures[min(failures)]

    def _answers(
        self, batches: Sequence["_Batch"], purpose: Purpose
    ) -> Iterator[tuple["_Batch", BaseException | None]]:
        """Yield each batch when it is done, and why it failed; some are under way at once.

        What has not begun when one fails is left undone.
        """
        with ThreadPoolExecutor(max_workers=_CONCURRENCY) as threads:
            asked = {threads.submit(self._fill, each, purpose): each for each in batches}
            try:
                for done in as_completed(asked):
                    if done.cancelled():
                        continue
                    failure = done.exception()
                    if failure is not None:
                        _cancel(asked)
                    yield asked[done], failure
            finally:
                _cancel(asked)

    def _fill(self, batch: "_Batch", purpose: Purpose) -> None:
        self._embed_batch(batch, batch.texts, batch.numbers, purpose)

    def _embed_batch(
        self, batch: "_Batch", texts: Sequence[str], numbers: Sequence[int], purpose: Purpose
    ) -> None:
        """Get the vectors of a batch, halving it while the provider refuses it as it is.

        That finds the text that it will not take, and gets along with servers that take less at
        once than others of their protocol.
        """
        try:
            batch.parts.append((numbers, self._ask(texts, purpose)))
        except _Refused as refusal:
            if len(texts) == 1:
                raise self._explained(refusal.status, numbers[0], purpose) from None
        else:
            return
        middle = len(texts) // 2
        self._embed_batch(batch, texts[:middle], numbers[:middle], purpose)
        self._embed_batch(batch, texts[middle:], numbers[middle:], purpose)

    def _explained(self, status: int, index: int, purpose: Purpose) -> DomainError:
        """Return what it means that a text was refused: does the provider take any?"""
        try:
            self._ask([_PROBE], purpose, may_be_kept=False)
        except _Refused:
            return self._misconfigured(
                "refuses every text. Check the model's name, the dimensions and the key", status
            )
        reason = (
            f"the provider refuses it (HTTP {status}), most likely because it is longer than the "
            "model's context."
        )
        if self.service.context_limit:
            reason += f" The limit is {self.service.context_limit} tokens."
        return TextRefused(index, reason, provider_status=status)

    # --- One request ------------------------------------------------------------------------------
    def _ask(self, texts: Sequence[str], purpose: Purpose, *, may_be_kept: bool = True) -> Embedded:
        """Return the vectors of texts; raise _Refused where the provider takes offence at them.

        may_be_kept: whether an answer that the provider has kept will do.
        """
        patience = _PATIENCE_S[purpose]
        deadline = time.monotonic() + patience
        tries = Retrying(
            stop=stop_any(stop_after_attempt(_TRIES), stop_before_delay(patience)),
            wait=_wanted_pause,
            retry=retry_if_exception_type(_Passing),
            reraise=True,
        )
        request = self.body(texts, purpose)
        # Queries are short, and trying an instance out is to tell what the provider says now.
        is_keyed = self.sends_idempotency_key and purpose is Purpose.DOCUMENT and may_be_kept
        key = _idempotency_key(request) if is_keyed else None
        try:
            return tries(self._try, request, key, len(texts), deadline)
        except _Passing as failure:
            raise failure.error from failure.__cause__

    def _try(
        self, request: dict[str, Any], idempotency_key: str | None, count: int, deadline: float
    ) -> Embedded:
        left = max(deadline - time.monotonic(), 0.1)
        endpoint, headers, extra = self._with_key()
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        try:
            reply = outgoing.post(
                endpoint, headers=headers, body=orjson.dumps({**request, **extra}), total_s=left
            )
        except outgoing.NotAllowed as error:
            raise Misconfigured(f"{self._name} cannot be called: {error}.") from error
        except outgoing.TimedOut as error:
            raise GatewayTimeout(f"{self._name}: the provider did not answer in time.") from error
        except outgoing.TooLong as error:
            raise self._failed(f"cannot be used: {error}") from error
        except outgoing.OutgoingError as error:
            raise _Passing(self._failed(f"cannot be reached: {error}")) from error
        if not 200 <= reply.status < 300:
            raise self._refusal(reply)
        return self._checked(reply.body, count)

    def _with_key(self) -> tuple[str, dict[str, str], dict[str, str]]:
        """Return the address, the headers, and what to add to the body, with the key in one."""
        endpoint, extra = self.endpoint(), {}
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": f"armarium/{settings.VERSION}",
        }
        key, standard = self._api_key, self.service.api_standard
        if not key:
            return endpoint, headers, {}
        match standard.key_method:
            case KeyMethod.AUTH_BEARER:
                headers[standard.key_field or "Authorization"] = f"Bearer {key}"
            case KeyMethod.AUTH_APIKEY:
                headers[standard.key_field or "Authorization"] = f"ApiKey {key}"
            case KeyMethod.CUSTOM_HEADER:
                headers[standard.key_field] = key
            case KeyMethod.QUERY_PARAM:
                separator = "&" if "?" in endpoint else "?"
                name, value = quote(standard.key_field, safe=""), quote(key, safe="")
                endpoint = f"{endpoint.partition('#')[0]}{separator}{name}={value}"
            case KeyMethod.BODY_FORM:
                extra = {standard.key_field: key}
        return endpoint, headers, extra

    # --- What came back ---------------------------------------------------------------------------
    def _checked(self, body: bytes, count: int) -> Embedded:
        try:
            # The arrays are views of what the parser holds.
            parser = simdjson.Parser()
            arrays, tokens = self.read(parser.parse(body))
            rows = [np.frombuffer(each.as_buffer(of_type="d"), dtype=np.float64) for each in arrays]
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError):
            raise self._failed("answered something else than embeddings") from None
        if len(rows) != count:
            raise self._failed(f"returned {len(rows)} vectors for {count} texts")
        sizes = {len(row) for row in rows}
        if len(sizes) > 1 or 0 in sizes:
            raise self._failed("returned empty vectors, or of different dimensions")
        if sizes != {self.service.dimensions}:
            raise self._misconfigured(
                f"returns vectors of {sizes.pop()} dimensions where the LLM service says "
                f"{self.service.dimensions}. Change its dimensions or its model"
            )
        return Embedded(self._usable(np.stack(rows)), tokens)

    def _usable(self, rows: NDArray[np.float64]) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            vectors = rows.astype(np.float32)
        norms = np.linalg.norm(vectors, axis=1)
        bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
        if bad.size:
            raise self._failed(f"returned a vector for text {bad[0]} that is zero or not finite")
        return vectors

    def _refusal(self, reply: outgoing.Reply) -> Exception:
        """Return what to raise for an answer that is none."""
        status = reply.status
        if status in _REFUSED:
            return _Refused(status)
        if status in _KEY_REFUSED:
            problem = (
                "refuses the stored key" if self._api_key else "wants a key, and none is stored"
            )
            return self._misconfigured(problem, status)
        if status in _NOT_THERE:
            return self._misconfigured(
                "does not know the endpoint or the model. The endpoint must be the full address of "
                "what makes embeddings",
                status,
            )
        if 300 <= status < 400:
            return self._misconfigured(
                "redirects elsewhere, which is not followed. Give the final address as endpoint",
                status,
            )
        if status == 402:
            return self._misconfigured("wants to be paid", status)
        if status not in _PASSING:
            return self._failed("failed", status)
        pause_s = _retry_after(reply.headers.get("retry-after", ""))
        if status == 429:
            error = self._failed("allows no more requests for now", status)
            if pause_s is not None:
                error.details["retry_after_s"] = round(pause_s)
            return _Passing(error, pause_s)
        return _Passing(self._failed("failed", status), pause_s)

    @property
    def _name(self) -> str:
        return f"LLM service '{self.service}'"

    def _failed(self, problem: str, status: int | None = None) -> BadGateway:
        return BadGateway(
            f"{self._name}: the provider {problem}{_shown(status)}.", details=_details(status)
        )

    def _misconfigured(self, problem: str, status: int | None = None) -> Misconfigured:
        return Misconfigured(
            f"{self._name}: the provider {problem}{_shown(status)}.", details=_details(status)
        )


def _cancel(asked: Iterable[Future[None]]) -> None:
    for each in asked:
        each.cancel()


def whole(answer: Any, *path: str) -> int | None:
    """Return the count at a path of an answer, None where there is none."""
    try:
        for name in path:
            answer = answer[name]
    except (LookupError, TypeError, ValueError):
        return None
    is_count = isinstance(answer, int) and not isinstance(answer, bool) and answer >= 0
    return answer if is_count else None


def in_order(entries: Any) -> list[Any]:
    """Return the arrays of entries `{embedding, index}` by their indexes; raise ValueError."""
    entries = list(entries)
    if all("index" not in entry for entry in entries):
        return [entry["embedding"] for entry in entries]
    by_index = {entry["index"]: entry["embedding"] for entry in entries}
    if set(by_index) != set(range(len(entries))):
        raise ValueError("indexes")
    return [by_index[index] for index in range(len(entries))]


def _shown(status: int | None) -> str:
    return "" if status is None else f" (HTTP {status})"


def _details(status: int | None) -> dict[str, Any]:
    return {} if status is None else {"provider_status": status}


def _idempotency_key(request: dict[str, Any]) -> str:
    """Return what names a request by what it asks for: its model, its texts, and nothing else."""
    return hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _batches(texts: Sequence[str], limits: Limits) -> Iterator[range]:
    """Yield the numbers of texts that fit into a request together.

    A text that is longer than a batch may be is one by itself.
    """
    first = characters = 0
    for index, text in enumerate(texts):
        full = index - first == limits.texts or characters + len(text) > limits.characters
        if full and index > first:
            yield range(first, index)
            first, characters = index, 0
        characters += len(text)
    if first < len(texts):
        yield range(first, len(texts))


def _wanted_pause(state: RetryCallState) -> float:
    """Return the pause before the next try: what the provider asks for, else longer each time."""
    failure = state.outcome.exception() if state.outcome is not None else None
    wanted = failure.pause_s if isinstance(failure, _Passing) else None
    return _pause(state) if wanted is None else wanted + _pause(state) / 4


def _retry_after(header: str) -> float | None:
    """Return the seconds of a Retry-After header, which holds a number or a date."""
    header = header.strip()
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        return max((parsedate_to_datetime(header) - timezone.now()).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
