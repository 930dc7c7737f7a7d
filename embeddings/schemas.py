"""What a metadata schema would mean for the texts of a project: drafts, and trials."""

import json
import time
from dataclasses import dataclass, field

import orjson

from accounts.policy import Actor, Level
from embeddings import store
from projects.metadata import Violation, check_schema, infer_schema, validator_for
from projects.selectors import project_for

# Texts of larger projects are sampled for a draft.
SAMPLE = 20_000
_PAGE = 2_000
# A trial is part of a request.
_SECONDS = 10.0


@dataclass(frozen=True)
class Draft:
    """A schema, as JSON text, that the metadata of so many of a project's texts matches."""

    schema: str
    texts: int
    total: int


@dataclass(frozen=True)
class Broken:
    """A stored text that a schema would refuse, and why."""

    text_id: str
    violations: list[Violation]


@dataclass
class Trial:
    """What a schema would mean for stored texts.

    checked: how many of all were compared, in the order of their ids, before time was up.
    broken: how many of those break it; shown: some of them; has_more: whether others follow.
    """

    total: int
    checked: int = 0
    broken: int = 0
    shown: list[Broken] = field(default_factory=list)
    has_more: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether all were compared."""
        return self.checked >= self.total


def draft_for(actor: Actor, *, owner: str, handle: str) -> Draft:
    """Return a schema that what is stored in a project matches; raise as `project_for`."""
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    documents = [orjson.loads(each) for each in store.metadata_sample(project.pk, SAMPLE)]
    schema = json.dumps(infer_schema(documents), indent=2, ensure_ascii=False)
    return Draft(schema, len(documents), store.count(project.pk))


def try_schema(
    actor: Actor, *, owner: str, handle: str, schema: str, after: str = "", limit: int = 25
) -> Trial:
    """Compare a project's texts with a schema that it might have; nothing is changed.

    after, limit: which of the broken ones are shown: so many behind this id.
    Raises as `project_for`, and InvalidSchema.
    """
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    validator = validator_for(check_schema(schema))
    trial = Trial(store.count(project.pk))
    ends_at = time.monotonic() + _SECONDS
    last = ""
    while rows := store.metadata_after(project.pk, last, limit=_PAGE):
        for text_id, metadata in rows:
            violations = validator.violations(orjson.loads(metadata))
            trial.checked += 1
            if violations:
                trial.broken += 1
                if text_id > after and len(trial.shown) < limit:
                    trial.shown.append(Broken(text_id, violations))
                elif text_id > after:
                    trial.has_more = True
        last = rows[-1][0]
        if time.monotonic() > ends_at:
            return trial
    # Some may have come or gone meanwhile.
    trial.total = trial.checked
    return trial
