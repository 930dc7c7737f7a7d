"""The list of embeddings in the format that its reader prefers."""

from typing import Any, BinaryIO
from urllib.parse import urlencode

import orjson
from django.http import FileResponse, HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from common import bodies, json
from common.errors import FieldError, Invalid, Unavailable
from common.fields import QueryNumber, Text
from common.pagination import cursor_after, key_of
from common.query import DEFAULT_LIMIT, MAXIMUM_LIMIT, MAXIMUM_OFFSET, Query
from embeddings import files
from embeddings.api.serializers import FilterText, filter_in, shown
from embeddings.selectors import Listing, about
from embeddings.uploads import MEDIA_TYPES

JSON = "application/json"
MAXIMUM_BULK_LIMIT = 10_000
# Of all vectors of an answer together: 10 000 of 1536, or 64 MB.
MAXIMUM_NUMBERS = 16 * 1024**2
MAXIMUM_CURSOR_LENGTH = 2_000


class ListingQuery(Query):
    """Which part of a project's embeddings is wanted."""

    limit = QueryNumber(
        default=DEFAULT_LIMIT,
        min_value=1,
        max_value=MAXIMUM_BULK_LIMIT,
        help_text="How many entries to return at most: "
        f"{MAXIMUM_LIMIT} in JSON, {MAXIMUM_BULK_LIMIT} in the other formats.",
    )
    offset = QueryNumber(
        required=False,
        min_value=0,
        max_value=MAXIMUM_OFFSET,
        help_text="How many entries to skip (default 0). Past the end the list is empty.",
    )
    cursor = Text(
        required=False,
        max_length=MAXIMUM_CURSOR_LENGTH,
        help_text="Where to go on instead: `next_cursor` of the page before. Nothing is skipped or "
        "repeated, whatever is stored or deleted meanwhile.",
    )
    filter = FilterText()


def place_of(query: dict[str, Any], media_type: str) -> dict[str, Any]:
    """Return filter, limit, and offset or after, as a reader of the media type may ask for them.

    Raises Invalid.
    """
    limit = query["limit"]
    if media_type == JSON and limit > MAXIMUM_LIMIT:
        message = f"limit: Ensure this value is less than or equal to {MAXIMUM_LIMIT}."
        raise _refused("limit", message)
    place = {"limit": limit, "condition": filter_in(query)}
    if "cursor" not in query:
        return {**place, "offset": query.get("offset", 0)}
    if "offset" in query:
        raise _refused("cursor", "cursor and offset exclude each other; send one of them.")
    return {**place, "after": key_of(query["cursor"])}


def preferred(request: Request) -> str:
    """Return the media type to answer in: JSON unless the Accept header prefers another of ours."""
    try:
        wanted = request._request.get_preferred_type([JSON, *MEDIA_TYPES])
    except (LookupError, ValueError):
        # A parameter in a codec that does not exist, say.
        wanted = None
    return JSON if wanted is None else str(wanted)


def answer(request: Request, listing: Listing, media_type: str) -> HttpResponseBase:
    """Return the list in the format of the media type; raise Invalid for too many numbers at once.

    The header Link names the next page, if there is one.
    """
    response: HttpResponseBase
    if media_type == JSON:
        response = Response(_envelope(listing))
    else:
        _check_size(listing)
        response = FileResponse(_file(listing, media_type), content_type=media_type)
        # It is for programs; browsers are to keep it as a file.
        del response.headers["Content-Disposition"]
    if listing.has_more:
        place = {"limit": listing.limit, "cursor": cursor_after(listing.last)}
        if "filter" in request.query_params:
            place["filter"] = request.query_params["filter"]
        query = urlencode(place)
        # The path as it was sent: percent-encoded.
        here = request.build_absolute_uri("?")
        response.headers["Link"] = f'<{here.rstrip("?")}?{query}>; rel="next"'
    response.headers["Vary"] = "Accept"
    return response


def _envelope(listing: Listing) -> dict[str, Any]:
    rows = [shown(row, listing.project) for row in listing.rows()]
    envelope: dict[str, Any] = {"embeddings": rows}
    if listing.total is not None:
        envelope |= {"total_count": listing.total, "offset": listing.offset}
    envelope |= {"limit": listing.limit, "has_more": listing.has_more}
    if listing.has_more:
        envelope["next_cursor"] = cursor_after(listing.last)
    return envelope


def _check_size(listing: Listing) -> None:
    most = max(1, MAXIMUM_NUMBERS // listing.project.instance.dimensions)
    if listing.limit > max(most, MAXIMUM_LIMIT):
        raise _refused(
            "limit", f"limit: Vectors of this project are long; ask for {most} at most at once."
        )


def _file(listing: Listing, media_type: str) -> BinaryIO:
    """Return the rows in an unnamed file: however many, few are held in memory."""
    file = bodies.unnamed_file()
    try:
        if MEDIA_TYPES[media_type] == "jsonl":
            _write_lines(file, listing)
        else:
            _write_table(file, listing, MEDIA_TYPES[media_type])
        file.seek(0)
    except OSError as error:
        file.close()
        raise Unavailable("The server has no room for the answer at the moment.") from error
    except BaseException:
        file.close()
        raise
    return file


def _write_lines(file: BinaryIO, listing: Listing) -> None:
    for rows in listing.parts():
        for row in rows:
            metadata = orjson.Fragment(files.compact(row.metadata))
            file.write(json.render({**shown(row, listing.project), "metadata": metadata}) + b"\n")


def _write_table(file: BinaryIO, listing: Listing, file_format: str) -> None:
    project = listing.project
    dimensions = project.instance.dimensions
    writer = files.TableWriter(file, file_format, dimensions, about(project))
    for rows in listing.parts():
        writer.write(rows)
    writer.close()


def _refused(name: str, message: str) -> Invalid:
    return Invalid(message, errors=[FieldError(f"query.{name}", message)])
