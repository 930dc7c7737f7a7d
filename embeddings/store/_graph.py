"""What the HNSW graph of a segment is built on, spelled once for the index and for its queries.

PostgreSQL uses an index on an expression only for that very expression. Vectors are brought to
length 1 first: half precision holds no number beyond 65504. Beyond 4000 dimensions, which is where
half-precision graphs end, the signs of the numbers are indexed and far more candidates re-ranked.
"""

LARGEST_HALFVEC = 4_000


def operand(vector: str, dimensions: int) -> str:
    """Return the SQL expression that the graph compares, for one that yields a vector."""
    if dimensions <= LARGEST_HALFVEC:
        return f"l2_normalize({vector})::halfvec({int(dimensions)})"
    return f"binary_quantize({vector})::bit({int(dimensions)})"


def operator(dimensions: int) -> str:
    """Return the operator by which the graph compares."""
    return "<=>" if dimensions <= LARGEST_HALFVEC else "<~>"


def index_type(dimensions: int) -> str:
    """Return the name of the operator class."""
    return "halfvec_cosine_ops" if dimensions <= LARGEST_HALFVEC else "bit_hamming_ops"


def candidates(wanted: int, dimensions: int) -> int:
    """Return how many candidates to re-rank by exact similarity so as to find the wanted ones."""
    if dimensions <= LARGEST_HALFVEC:
        # Half precision swaps neighbours only; some more make ties and the order exact.
        return wanted + max(4, wanted // 8)
    return max(200, 10 * wanted)
