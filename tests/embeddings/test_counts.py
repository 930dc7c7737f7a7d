"""`number_of_embeddings` while segments take each other's place."""

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from django.db import connection

from embeddings import indexes
from embeddings.models import SearchIndex
from tests.embeddings.large import Shelf
from tests.factories import Caller

_SWAPS = 1


@pytest.mark.slow
@pytest.mark.django_db(transaction=True, serialized_rollback=True)
@pytest.mark.usefixtures("real_segments")
def test_a_project_is_never_counted_between_two_segments(
    indexed: Callable[[int], Shelf],
) -> None:
    shelf = indexed(300)
    over = threading.Event()
    counted: Counter[int] = Counter()

    def count() -> None:
        reader = Caller(shelf.owner.key)
        try:
            while not over.is_set():
                answer = reader.get(f"/v1/projects/{shelf.name}")
                counted[answer["number_of_embeddings"]] += 1
                # Leaves the building its turn.
                time.sleep(0.005)
        finally:
            connection.close()

    readers = [threading.Thread(target=count) for _ in range(3)]
    for each in readers:
        each.start()
    try:
        for number in range(_SWAPS):
            SearchIndex.objects.update(building_segment=1_000_000 + number)
            indexes.tend(shelf.row.pk)
    finally:
        over.set()
        for each in readers:
            each.join()
    assert set(counted) == {300}
