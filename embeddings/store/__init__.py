"""Every statement that touches vectors. Knows projects by id, and neither users nor requests.

The table is partitioned by `segment`. Segment 0, the growing part, takes every upload and has no
approximate index: projects in it are searched exactly, through the btree on (project_id, text_id).
Vectors cross the wire in pgvector's binary format: 16-bit dimension count, 16 unused bits, and
big-endian float32 numbers.
"""

from embeddings.store._reading import (
    after,
    count,
    existing,
    get,
    metadata_after,
    of_other_dimensions,
    page,
    snapshot,
)
from embeddings.store._searching import nearest, nearest_to_stored
from embeddings.store._values import GROWING_SEGMENT, Exclusion, Hit, Row, TextIdExists, Wanted
from embeddings.store._wire import decode_vector, encode_vector
from embeddings.store._writing import insert, put, put_all, remove, remove_all

__all__ = [
    "GROWING_SEGMENT",
    "Exclusion",
    "Hit",
    "Row",
    "TextIdExists",
    "Wanted",
    "after",
    "count",
    "decode_vector",
    "encode_vector",
    "existing",
    "get",
    "insert",
    "metadata_after",
    "nearest",
    "nearest_to_stored",
    "of_other_dimensions",
    "page",
    "put",
    "put_all",
    "remove",
    "remove_all",
    "snapshot",
]
