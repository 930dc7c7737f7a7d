"""The cast that most tests play with."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from embeddings import model_guard, store
from projects import access
from projects.models import Project
from tests.end_to_end.harness import Armarium
from tests.factories import Caller, Cast, make_cast
from tests.replay import Replay

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("armarium", deadline=None)
settings.load_profile("armarium")


@pytest.fixture(autouse=True)
def new_places() -> None:
    """Forget where embeddings are, and who may reach them.

    What a test does is undone, which happens nowhere else.
    """
    store.forget_all()
    model_guard.forget_all()
    access.forget_all()


def _same_cast(made: Cast, shift: int) -> Cast:
    def again(person: Caller) -> Caller:
        return Caller(person.key, person.handle)

    return Cast(
        alice=again(made.alice),
        erin=again(made.erin),
        rita=again(made.rita),
        sam=again(made.sam),
        ada=again(made.ada),
        nobody=Caller(),
        project=Project.objects.select_related("owner", "instance").get(pk=made.project.pk + shift),
    )


_cast = Replay(make_cast, _same_cast)


@pytest.fixture
def cast(db: None) -> Cast:
    """Alice owns, Erin edits, Rita reads, Sam is a stranger, Ada administers."""
    return _cast()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Armarium]:
    """A running server without a project, for tests that leave it as it is and make their own.

    They belong to `xdist_group("served")`, so that one process of the run starts it, once. Each
    module makes accounts that no other has.
    """
    one = Armarium(tmp_path_factory.mktemp("served") / "data").migrated()
    one.start()
    yield one
    one.kill_everything()
