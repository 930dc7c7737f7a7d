"""The fingerprint of a whole server: equal where two hold the same rows and files.

What the server keeps for itself is left out: sessions, failed sign-ins, jobs, when a key or an
account was last used, and where embeddings are kept and how they are indexed.
"""

import hashlib
from collections.abc import Callable

from django.db import connection
from psycopg import sql

from common.database import at_one_moment
from resources.content_check import digests_of_files
from resources.fingerprints import INDEX_SETTINGS, Digest

_OWN_TABLES = (
    "django_session",
    "accounts_session",
    "axes_",
    "procrastinate_",
    "common_",
    "embeddings_retiredsegment",
)
_OWN_COLUMNS = {
    ("accounts_apikey", "last_used_at"),
    ("accounts_user", "last_login"),
    ("embeddings_embedding", "segment"),
}
_ONLY_COLUMNS = {"embeddings_searchindex": {"project_id", *INDEX_SETTINGS}}

_COLUMNS = """
SELECT c.relname, a.attname FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = current_schema()
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY c.relname, a.attname
"""
# Sums of the halves of hashes: the order of rows does not matter, and equal rows count twice.
_DIGEST = sql.SQL(
    "SELECT count(*), coalesce(sum(('x' || left(hash, 15))::bit(60)::bigint), 0),"
    " coalesce(sum(('x' || right(hash, 15))::bit(60)::bigint), 0) FROM (SELECT"
    " encode(sha256(convert_to(ROW({columns})::text, 'UTF8')), 'hex') AS hash FROM {table}) AS rows"
)


def server_fingerprint(on_progress: Callable[[int, float], object]) -> dict[str, str]:
    """Return a fingerprint for each table, for the bytes of files, and for all of it.

    As the rows are at one moment; on_progress is told how many tables were read, and what part.
    """
    with at_one_moment(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        tables: dict[str, list[str]] = {}
        cursor.execute(_COLUMNS)
        for table, column in cursor.fetchall():
            if table.startswith(_OWN_TABLES) or (table, column) in _OWN_COLUMNS:
                continue
            if column in _ONLY_COLUMNS.get(table, {column}):
                tables.setdefault(table, []).append(column)
        found = {}
        for number, (table, columns) in enumerate(tables.items(), start=1):
            statement = _DIGEST.format(
                columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
                table=sql.Identifier(table),
            )
            cursor.execute(statement.as_string())
            count, first, second = cursor.fetchone()
            found[table] = f"{count}:{int(first):x}.{int(second):x}"
            on_progress(number, number / (len(tables) + 1))
        contents = Digest()
        for uuid, digest in digests_of_files():
            contents.add(str(uuid).encode(), digest.encode())
    found["bytes of files"] = str(contents)
    whole = hashlib.sha256("\n".join(f"{name} {each}" for name, each in found.items()).encode())
    return {**found, "everything": whole.hexdigest()}
