"""What the rest of the program says, in the language of whoever reads it on a page.

Domain code speaks English, as the API does. Its words for states and kinds, and those of its
sentences that people meet most, have translations here; any other sentence stays English.
"""

import re
from collections.abc import Iterator
from functools import cache

from django.utils.translation import get_language, gettext, gettext_noop, pgettext_lazy

TERMS = {
    # How far jobs and changes of models are.
    "waiting": pgettext_lazy("word", "waiting"),
    "running": pgettext_lazy("word", "running"),
    "finished": pgettext_lazy("word", "finished"),
    "failed": pgettext_lazy("word", "failed"),
    "cancelled": pgettext_lazy("word", "cancelled"),
    "filling": pgettext_lazy("word", "filling"),
    "paused": pgettext_lazy("word", "paused"),
    "ready": pgettext_lazy("word", "ready"),
    "switching": pgettext_lazy("word", "switching"),
    "switched": pgettext_lazy("word", "switched"),
    "rolling_back": pgettext_lazy("word", "rolling_back"),
    "building": pgettext_lazy("word", "building"),
    "todo": pgettext_lazy("word", "todo"),
    "doing": pgettext_lazy("word", "doing"),
    "succeeded": pgettext_lazy("word", "succeeded"),
    "aborted": pgettext_lazy("word", "aborted"),
    # What was done, in the audit log.
    "create": pgettext_lazy("word", "create"),
    "update": pgettext_lazy("word", "update"),
    "delete": pgettext_lazy("word", "delete"),
    "share": pgettext_lazy("word", "share"),
    "unshare": pgettext_lazy("word", "unshare"),
    "publish": pgettext_lazy("word", "publish"),
    "unpublish": pgettext_lazy("word", "unpublish"),
    "transfer": pgettext_lazy("word", "transfer"),
    "import": pgettext_lazy("word", "import"),
    "rotate": pgettext_lazy("word", "rotate"),
    "revoke": pgettext_lazy("word", "revoke"),
    "set_access": pgettext_lazy("word", "set_access"),
    "set_password": pgettext_lazy("word", "set_password"),
    "set_secret": pgettext_lazy("word", "set_secret"),
    "erase_secret": pgettext_lazy("word", "erase_secret"),
    "sign_in_failed": pgettext_lazy("word", "sign_in_failed"),
    "reset": pgettext_lazy("word", "reset"),
    "prune": pgettext_lazy("word", "prune"),
    # To what it was done.
    "account": pgettext_lazy("word", "account"),
    "api_key": pgettext_lazy("word", "api_key"),
    "project": pgettext_lazy("word", "project"),
    "api_standard": pgettext_lazy("word", "api_standard"),
    "llm_service_definition": pgettext_lazy("word", "llm_service_definition"),
    "llm_service": pgettext_lazy("word", "llm_service"),
    "embeddings": pgettext_lazy("word", "embeddings"),
    "reembedding": pgettext_lazy("word", "reembedding"),
    "search_index": pgettext_lazy("word", "search_index"),
    "server": pgettext_lazy("word", "server"),
    "agent": pgettext_lazy("word", "agent"),
    "user": pgettext_lazy("word", "user"),
    "file": pgettext_lazy("word", "file"),
    # Several of them.
    "agents": pgettext_lazy("word", "agents"),
    "end users": pgettext_lazy("word", "end users"),
    "users": pgettext_lazy("word", "users"),
    "files": pgettext_lazy("word", "files"),
    # What the doctor looks at.
    "Background worker": pgettext_lazy("word", "Background worker"),
    "Database connections": pgettext_lazy("word", "Database connections"),
    "Database server": pgettext_lazy("word", "Database server"),
    "Migrations": pgettext_lazy("word", "Migrations"),
    "Disk": pgettext_lazy("word", "Disk"),
    "Settings": pgettext_lazy("word", "Settings"),
    "Encryption keys": pgettext_lazy("word", "Encryption keys"),
    "Search indexes": pgettext_lazy("word", "Search indexes"),
    "Searches through indexes": pgettext_lazy("word", "Searches through indexes"),
    "Stored vectors": pgettext_lazy("word", "Stored vectors"),
    "Models": pgettext_lazy("word", "Models"),
    "Metadata schemas": pgettext_lazy("word", "Metadata schemas"),
}

# As domain code says them, with names in place of what varies. What is called `sentence` may be
# one of these itself.
SENTENCES = (
    # Who may do what.
    gettext_noop("Only administrators may do this."),
    gettext_noop("Only '%(user)s' and administrators may do this."),
    gettext_noop("This API key is unknown, expired or revoked."),
    gettext_noop("This handle and this password do not belong together. Check both."),
    gettext_noop(
        "The configured admin key belongs to no account, so it cannot sign in here. Use the key or "
        "the password of an administrator."
    ),
    gettext_noop("You have no key of this name that still works."),
    gettext_noop("This session has ended already."),
    gettext_noop("%(what)s needs %(key)s; yours carries less."),
    gettext_noop("%(what)s needs a key that is not limited to one project."),
    gettext_noop("Your account may not do this."),
    # What there is not, or already.
    gettext_noop("There is nothing at this address."),
    gettext_noop("User '%(user)s' does not exist."),
    gettext_noop("User '%(user)s' already exists."),
    gettext_noop("Project '%(project)s' does not exist."),
    gettext_noop("Project '%(project)s' already exists."),
    gettext_noop("Project '%(project)s' has no embedding with text_id '%(text_id)s'."),
    gettext_noop("Project '%(project)s' has no text '%(text_id)s'."),
    gettext_noop("Project '%(project)s' is not shared with '%(user)s'."),
    gettext_noop("LLM service '%(name)s' already exists."),
    gettext_noop("Another user already has this email address."),
    gettext_noop("'%(email)s' is not an email address."),
    gettext_noop("The project was deleted."),
    # Handles.
    gettext_noop(
        "'%(given)s' is not a valid %(what)s: use 3 to 20 of the characters A–Z, a–z, 0–9, hyphen "
        "and underscore."
    ),
    gettext_noop("'%(given)s' is reserved; choose another %(what)s."),
    # Accounts, projects, models.
    gettext_noop("'%(user)s' is the last active administrator; appoint another one first."),
    gettext_noop("'%(user)s' owns the project already."),
    gettext_noop("'%(user)s' already has a project '%(handle)s'."),
    gettext_noop("'%(user)s' is the owner and has every right already."),
    gettext_noop("User '%(user)s' does not exist, so nothing can be shared with them."),
    gettext_noop("'%(subject)s' is not shared with '%(user)s'."),
    gettext_noop("LLM service '%(name)s' cannot be deleted: in use by %(number)s projects."),
    gettext_noop(
        "Project '%(project)s' holds %(number)s embeddings of %(dimensions)s dimensions; an "
        "instance with %(others)s cannot serve them. Delete them first, or make a new project."
    ),
    gettext_noop("endpoint must be a web address such as https://api.example.org/v1/embeddings."),
    # Uploads.
    gettext_noop("The file is empty."),
    gettext_noop("The file is compressed; unpack it first, or load it with loadembeddings."),
    gettext_noop("The file is of another format than the end of its name says; rename it."),
    gettext_noop("The file is not kept any more; upload it again."),
    gettext_noop("The rows of '%(file)s' are being stored, or were, already."),
    gettext_noop("The import of '%(file)s' has ended already."),
    gettext_noop("The import of '%(file)s' has not failed."),
    gettext_noop("The row has %(cells)s cells; there are %(columns)s columns."),
    gettext_noop("text_id must have 1 to %(most)s characters; this one has %(number)s."),
    gettext_noop("text is empty: there is nothing to embed."),
    gettext_noop("The text holds the character U+0000, which cannot be stored."),
    gettext_noop("The line is not a JSON object."),
    gettext_noop("vector dimension mismatch: expected %(expected)s dimensions, got %(found)s."),
    gettext_noop("Whoever uploaded the file may not edit the project now: %(sentence)s"),
    # Maps and changes of models.
    gettext_noop("UMAP needs %(least)s texts or more."),
    gettext_noop(
        "Texts are uploaded faster than the model embeds them; switch while less is uploaded."
    ),
    gettext_noop(
        "Some embeddings of project '%(project)s' were made by the model %(model)s%(where)s, not "
        "by that of its LLM service now, %(now)s. Vectors of different models cannot be compared: "
        "upload them anew, or re-embed the project."
    ),
    gettext_noop(
        "%(number)s embeddings were made by the model %(model)s, its LLM service has %(now)s now"
    ),
    # Metadata schemas.
    gettext_noop("The metadata schema has %(number)s bytes; at most %(most)s are allowed."),
    gettext_noop(
        "The metadata schema refers to %(reference)s, which does not exist; add it or correct the "
        "reference. It must be a path such as #/definitions/name."
    ),
    gettext_noop(
        "The metadata schema is not valid JSON Schema of %(dialect)s: the keyword %(name)s cannot "
        "be %(value)s; correct it."
    ),
    # The doctor and the sanity check.
    gettext_noop(
        "No background worker runs; %(number)s jobs wait. Indexes are not built, texts not "
        "embedded."
    ),
    gettext_noop("%(number)s jobs of %(task)s have failed."),
    gettext_noop("%(used)s of %(most)s connections to the database are in use."),
    gettext_noop(
        "%(number)s transactions have been left open for over ten minutes; what was deleted since "
        "cannot be tidied up."
    ),
    gettext_noop("This could not be looked at: %(reason)s"),
    gettext_noop(
        "The database uses %(name)s %(installed)s, and %(available)s is installed beside it."
    ),
    gettext_noop("The database keeps no checksums: damage on the disk goes unnoticed."),
    gettext_noop("%(number)s migrations are still to be applied, the first is %(name)s."),
    gettext_noop("The disk of %(folder)s is almost full: %(free)s."),
    gettext_noop("The disk of %(folder)s is getting full: %(free)s."),
    gettext_noop("Debugging is on: pages of errors show code and settings to everybody."),
    gettext_noop("An administrator's key can delete everything by one request."),
    gettext_noop("It listens on %(host)s without TLS: keys and texts can be read on their way."),
    gettext_noop("The admin key has fewer than %(number)s characters."),
    gettext_noop("The provider keys of %(number)s LLM services cannot be read: %(names)s."),
    gettext_noop("%(number)s provider keys are still encrypted by a previous encryption key."),
    gettext_noop(
        "The index %(name)s is not valid: it is not used, and writing keeps it up all the same."
    ),
    gettext_noop("The last attempt to look after the index of %(project)s failed: %(reason)s"),
    gettext_noop("The index of %(project)s is missing; it is searched exactly, and slowly."),
    gettext_noop("PostgreSQL does not use the index of %(project)s: each search reads every row."),
    gettext_noop(
        "%(project)s holds vectors without a direction (zero or not finite), which no search "
        "finds: %(ids)s."
    ),
    gettext_noop(
        "%(project)s holds %(number)s vectors of other dimensions than its LLM service has: "
        "%(ids)s."
    ),
    gettext_noop("%(project)s holds metadata that its schema refuses: %(ids)s."),
    gettext_noop("%(project)s has %(number)s embeddings but no metadata schema defined"),
    gettext_noop(
        "%(project)s: embedding '%(text_id)s' has %(found)s dimensions, its LLM service expects "
        "%(expected)s"
    ),
    # What mends what the doctor found, where it is no command.
    gettext_noop(
        "Add space, or delete what is not needed: manage.py listindexes tells the largest."
    ),
    gettext_noop("Lower ARMARIUM_WORKERS or ARMARIUM_THREADS, or raise max_connections."),
    gettext_noop("Stop the database, then: pg_checksums --enable -D <its data directory>"),
    gettext_noop(
        "Put a proxy with TLS in front, then ARMARIUM_BEHIND_TLS=true (docs/operations.md)"
    ),
    gettext_noop(
        "Add the encryption key that they were stored with to ARMARIUM_PREVIOUS_ENCRYPTION_KEYS, "
        "or give the provider keys again."
    ),
    gettext_noop("Keep it in ARMARIUM_PREVIOUS_ENCRYPTION_KEYS until they are stored anew."),
    gettext_noop("Upload these texts again, or delete them."),
    gettext_noop("Re-embed the project (docs/models.md), or upload the older texts again."),
)
_PLACE = re.compile(r"%\((\w+)\)s")
_INNER = "sentence"


def word(term: str) -> str:
    """Return how people call a state, an action or a kind of thing."""
    return str(TERMS.get(term, term))


def translated(sentence: str) -> str:
    """Return a sentence of domain code; those without a translation as they are."""
    if (get_language() or "en").startswith("en"):
        return sentence
    for shape, message in _shapes():
        if match := shape.fullmatch(sentence):
            given = match.groupdict()
            if _INNER in given:
                given[_INNER] = translated(given[_INNER])
            return gettext(message) % given
    return sentence


@cache
def _shapes() -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile("".join(_shape(each)), re.DOTALL), each) for each in SENTENCES]


def _shape(message: str) -> Iterator[str]:
    """Yield what matches a sentence: its words as they are, and anything at its names."""
    for number, part in enumerate(_PLACE.split(message)):
        yield f"(?P<{part}>.*?)" if number % 2 else re.escape(part)
