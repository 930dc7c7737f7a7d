"""Maps of projects: their vectors laid out in a plane, kept, coloured, and asked for parts.

Vectors are compared by direction, as searches do. A map has at most 50 000 texts; of larger
projects a sample is drawn, which depends on the ids alone. Where a text lies is kept until another
map is made; what it says and what its metadata holds is looked up when it is shown.
"""

from embeddings.projections._colours import NO_VALUE, OTHER, Colouring, Group, colour
from embeddings.projections._making import (
    LEAST_FOR_UMAP,
    MAKE,
    MOST_TEXTS,
    ask,
    is_outdated,
    make,
    projection_of,
    show,
    sweep,
)
from embeddings.projections._parts import Map, around, inside, map_of
from embeddings.projections._umap import has_umap

__all__ = [
    "LEAST_FOR_UMAP",
    "MAKE",
    "MOST_TEXTS",
    "NO_VALUE",
    "OTHER",
    "Colouring",
    "Group",
    "Map",
    "around",
    "ask",
    "colour",
    "has_umap",
    "inside",
    "is_outdated",
    "make",
    "map_of",
    "projection_of",
    "show",
    "sweep",
]
