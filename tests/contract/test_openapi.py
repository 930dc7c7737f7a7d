"""The OpenAPI document is public, valid, complete and true; `/docs` shows it."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from io import StringIO
from typing import Any
from urllib.parse import quote, urlencode

import orjson
import pytest
import yaml
from django.core.management import call_command

from common import projects_api
from config.documentation import document as served
from embeddings import indexes
from embeddings.models import EmbeddingJob, JobState, Reembedding, ReembeddingState
from embeddings.uploads import MEDIA_TYPES
from llm_services.providers.builtin import UNIVERSAL_SENTENCE_ENCODER
from projects.models import Project
from resources.models import File
from tests.contract import document
from tests.contract.world import ALIASES, api_views, described_at, methods_of, own_views
from tests.factories import (
    Answer,
    Caller,
    Cast,
    item,
    make_embedded,
    make_instance,
    make_project,
    make_user,
)

_WRITES = {"post", "put", "patch"}
_VERBS = {"get", "list", "create", "replace", "update", "delete", "share", "unshare"}
_VERBS |= {"count", "transfer", "upload", "search", "check", "rebuild", "measure", "test"}
_VERBS |= {"cancel", "retry", "start", "pause", "resume", "switch", "roll", "estimate", "compare"}
# What is done to what is there, with nothing to say about it.
_WITHOUT_BODY = {"rebuild_index", "measure_recall", "cancel_embedding_job", "retry_embedding_job"}
_WITHOUT_BODY |= {"pause_reembedding", "resume_reembedding", "switch_reembedding"}
_WITHOUT_BODY |= {"roll_back_reembedding"}


def _operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for template, path in served()["paths"].items():
        for method, described in path.items():
            yield method, template, described


OPERATIONS = list(_operations())
NAMES = [described["operationId"] for _, _, described in OPERATIONS]
OWN_NAMES = {
    described["operationId"]
    for _, template, described in OPERATIONS
    if projects_api.serves(template)
}
WORDS = "who painted the Mona Lisa"
# The id in the examples of addresses.
AN_EXAMPLE = "0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b10"
is_own = projects_api.serves
every_operation = pytest.mark.parametrize(
    ("method", "template", "described"), OPERATIONS, ids=NAMES
)


# --- The document ---------------------------------------------------------------------------------
@pytest.mark.django_db
@pytest.mark.parametrize("key", [None, "wrong"])
def test_the_document_is_public_and_the_same_in_json_and_yaml(key: str | None) -> None:
    in_json = Caller(key).get("/openapi.json")
    in_yaml = Caller(key).get("/openapi.yaml")
    assert in_json.status == in_yaml.status == 200
    assert in_json.headers["Content-Type"] == "application/json"
    assert in_yaml.headers["Content-Type"] == "application/yaml"
    assert in_json.headers["Access-Control-Allow-Origin"] == "*"
    assert in_json.body["openapi"].startswith("3.")
    assert yaml.safe_load(in_yaml.content) == in_json.body


def test_the_document_is_valid() -> None:
    written = StringIO()
    call_command(
        "spectacular", validate=True, fail_on_warn=True, stdout=written, format="openapi-json"
    )
    assert orjson.loads(written.getvalue())["paths"].keys() == served()["paths"].keys()


@pytest.mark.parametrize("path", ["/openapi.json", "/openapi.yaml", "/docs"])
def test_only_reading_is_served(path: str, db: None) -> None:
    answer = Caller().post(path, {})
    assert (answer.status, answer["title"]) == (405, "Method Not Allowed")
    assert Caller().ask("HEAD", path).status == 200


def test_every_method_of_every_route_is_described_and_nothing_else() -> None:
    described = {(method.upper(), template) for method, template, _ in OPERATIONS}
    routed = {
        (method, described_at(method, template))
        for template, view in {**api_views(), **own_views()}.items()
        for method in methods_of(view)
    }
    assert routed == described
    assert not [each for each in served()["paths"] if each.startswith(tuple(ALIASES))]


def test_tags_are_grouped_by_the_two_apis() -> None:
    groups = {group["name"]: set(group["tags"]) for group in served()["x-tagGroups"]}
    tags = [tag["name"] for tag in served()["tags"]]
    assert sorted(tag for group in groups.values() for tag in group) == sorted(tags)
    for _, template, described in OPERATIONS:
        (tag,) = described["tags"]
        assert (tag in groups["Projects API"]) == is_own(template), template


def test_names_of_operations_are_unique_and_start_with_a_verb() -> None:
    assert len(NAMES) == len(set(NAMES))
    odd = [name for name in NAMES if name.split("_")[0] not in _VERBS or "v1" in name]
    assert odd == []
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", name) for name in NAMES)


@every_operation
def test_an_operation_is_described_in_full(
    method: str, template: str, described: dict[str, Any]
) -> None:
    assert described["summary"]
    assert len(described["description"]) > len("A short sentence")
    known = [each["name"] for each in served()["tags"]]
    assert [tag in known for tag in described["tags"]] == [True]
    for parameter in described.get("parameters", []):
        assert parameter.get("description") or parameter["name"] == "metadata_value"
    assert [each for each in described["responses"] if each.startswith("2")]
    for status, response in described["responses"].items():
        assert response["description"], status
        if status.startswith(("4", "5")):
            refusal = "application/json" if is_own(template) else "application/problem+json"
            assert list(response["content"]) == [refusal]
    if "requestBody" in described:
        media = described["requestBody"]["content"]
        others = MEDIA_TYPES if described["operationId"] == "upload_embeddings" else ()
        assert set(media) == {"application/json", *others}
        assert media["application/json"]["examples"]
    has_body = method in _WRITES and described["operationId"] not in _WITHOUT_BODY
    assert ("requestBody" in described) == has_body


@every_operation
def test_an_operation_names_the_refusals_of_its_kind(
    method: str, template: str, described: dict[str, Any]
) -> None:
    statuses = set(described["responses"])
    expected = {"400", "503"}
    if template != "/v1":
        expected.add("401")
        assert {"apiKey": []} in described["security"]
    if "requestBody" in described:
        expected |= {"411", "413", "415"}
    if is_own(template):
        expected.add("422")
        assert {"authKey": []} in described["security"]
    if {} not in described.get("security", [{}]):
        expected.add("403")
    if described["operationId"].startswith("create_") or method == "put":
        expected.add("409")
    if described["operationId"] in {"create_project", "replace_project", "update_project"}:
        expected.add("422")
    if "{" in template and method in {"get", "delete", "patch"}:
        expected.add("404")
    assert expected - statuses == set()


def test_only_what_can_be_asked_without_a_key_says_so() -> None:
    optional = {each["operationId"] for _, _, each in OPERATIONS if {} in each.get("security", [])}
    assert optional == {
        "get_limits",
        "list_api_standards",
        "get_api_standard",
        "get_project",
        "list_embeddings",
        "get_embedding",
        "count_embeddings",
        "list_facets",
        "search_by_vector",
        "search_by_words",
        "search_by_text",
        "search_in_batch",
        "search_projects",
        "measure_recall",
        "get_index",
    }
    assert [
        name
        for _, _, each in OPERATIONS
        if "security" not in each
        for name in [each["operationId"]]
    ] == ["get_manifest"]


# --- Refusals, each provoked and compared with its description ------------------------------------
_NEW = {
    "endpoint": "https://api.example.org/v1",
    "api_standard": "openai",
    "model": "test",
    "dimensions": 3,
}
PROBES: list[tuple[str, str, str, Any, int]] = [
    ("POST", "/v1/users", "", {"user_handle": "alice"}, 409),
    ("POST", "/v1/users", "", {"user_handle": "ALICE"}, 409),
    ("PUT", "/v1/users/{user}", "/v1/users/Alice", {}, 409),
    ("PUT", "/v1/users/{user}", "/v1/users/alice", {"user_handle": "sam"}, 400),
    ("GET", "/v1/users/{user}", "/v1/users/nobody", None, 404),
    ("PATCH", "/v1/users/{user}", "/v1/users/nobody", {}, 404),
    ("PATCH", "/v1/users/{user}", "/v1/users/alice", {"email": "erin@example.org"}, 409),
    ("DELETE", "/v1/users/{user}", "/v1/users/nobody", None, 404),
    ("DELETE", "/v1/users/{user}", "/v1/users/_system", None, 403),
    ("DELETE", "/v1/users/{user}", "/v1/users/alice", None, 409),
    ("POST", "/v1/api-standards", "", {"api_standard_handle": "openai", "key_method": "none"}, 409),
    (
        "PUT",
        "/v1/api-standards/{standard}",
        "/v1/api-standards/OpenAI",
        {"key_method": "none"},
        409,
    ),
    ("GET", "/v1/api-standards/{standard}", "/v1/api-standards/nothing", None, 404),
    ("PATCH", "/v1/api-standards/{standard}", "/v1/api-standards/nothing", {}, 404),
    ("DELETE", "/v1/api-standards/{standard}", "/v1/api-standards/nothing", None, 404),
    ("DELETE", "/v1/api-standards/{standard}", "/v1/api-standards/openai", None, 409),
    *(
        (method, f"{base}{rest}", f"{base}{path}", body, status)
        for base, name in (
            ("/v1/llm-service-definitions", "definition_handle"),
            ("/v1/llm-services", "instance_handle"),
        )
        for method, rest, path, body, status in (
            ("GET", "/{owner}", "/nobody", None, 404),
            ("POST", "/{owner}", "/nobody", {**_NEW, name: "another"}, 404),
            ("POST", "/{owner}", "/alice", {**_NEW, name: "model"}, 409),
            ("POST", "/{owner}", "/alice", {name: "another"}, 400),
            ("GET", "/{owner}/{handle}", "/alice/nothing", None, 404),
            ("PUT", "/{owner}/{handle}", "/nobody/thing", _NEW, 404),
            ("PUT", "/{owner}/{handle}", "/alice/MODEL", _NEW, 409),
            ("PATCH", "/{owner}/{handle}", "/alice/nothing", {}, 404),
            ("DELETE", "/{owner}/{handle}", "/alice/nothing", None, 404),
            (
                "POST",
                "/{owner}/{handle}/share",
                "/alice/nothing/share",
                {"share_with_handle": "sam", "role": "reader"},
                404,
            ),
            (
                "POST",
                "/{owner}/{handle}/share",
                "/alice/model/share",
                {"share_with_handle": "alice", "role": "reader"},
                400,
            ),
            ("DELETE", "/{owner}/{handle}/share/{user}", "/alice/model/share/erin", None, 404),
            ("GET", "/{owner}/{handle}/shared-with", "/alice/nothing/shared-with", None, 404),
        )
    ),
    (
        "POST",
        "/v1/llm-services/{owner}/from-definition",
        "/v1/llm-services/alice/from-definition",
        {
            "instance_handle": "model",
            "definition_owner": "_system",
            "definition_handle": "cohere-v4",
        },
        409,
    ),
    (
        "POST",
        "/v1/llm-services/{owner}/from-definition",
        "/v1/llm-services/alice/from-definition",
        {"instance_handle": "new", "definition_owner": "_system", "definition_handle": "nothing"},
        404,
    ),
    ("DELETE", "/v1/llm-services/{owner}/{handle}", "/v1/llm-services/alice/model", None, 409),
    (
        "PATCH",
        "/v1/llm-services/{owner}/{handle}",
        "/v1/llm-services/alice/model",
        {"dimensions": 4},
        409,
    ),
    (
        "PUT",
        "/v1/llm-services/{owner}/{handle}",
        "/v1/llm-services/alice/model",
        {**_NEW, "dimensions": 4},
        409,
    ),
    ("GET", "/v1/projects/{owner}", "/v1/projects/nobody", None, 404),
    (
        "POST",
        "/v1/projects/{owner}",
        "/v1/projects/alice",
        {"project_handle": "letters", "instance_handle": "model"},
        409,
    ),
    (
        "POST",
        "/v1/projects/{owner}",
        "/v1/projects/alice",
        {"project_handle": "new", "instance_handle": "model", "metadataScheme": "{"},
        422,
    ),
    (
        "PUT",
        "/v1/projects/{owner}/{project}",
        "/v1/projects/alice/letters",
        {"instance_handle": "model", "metadataScheme": "{"},
        422,
    ),
    (
        "PUT",
        "/v1/projects/{owner}/{project}",
        "/v1/projects/alice/letters",
        {"instance_handle": "wide"},
        409,
    ),
    (
        "PATCH",
        "/v1/projects/{owner}/{project}",
        "/v1/projects/alice/letters",
        {"metadataScheme": 5},
        422,
    ),
    (
        "PATCH",
        "/v1/projects/{owner}/{project}",
        "/v1/projects/alice/letters",
        {"instance_handle": "wide"},
        409,
    ),
    ("GET", "/v1/projects/{owner}/{project}", "/v1/projects/alice/nothing", None, 404),
    ("PATCH", "/v1/projects/{owner}/{project}", "/v1/projects/alice/nothing", {}, 404),
    ("DELETE", "/v1/projects/{owner}/{project}", "/v1/projects/alice/nothing", None, 404),
    ("DELETE", "/v1/projects/{owner}/{project}", "/v1/projects/alice/default", None, 409),
    (
        "POST",
        "/v1/projects/{owner}/{project}/share",
        "/v1/projects/alice/nothing/share",
        {"share_with_handle": "sam", "role": "reader"},
        404,
    ),
    (
        "POST",
        "/v1/projects/{owner}/{project}/share",
        "/v1/projects/alice/letters/share",
        {"share_with_handle": "sam", "role": "owner"},
        400,
    ),
    (
        "DELETE",
        "/v1/projects/{owner}/{project}/share/{user}",
        "/v1/projects/alice/letters/share/sam",
        None,
        404,
    ),
    (
        "GET",
        "/v1/projects/{owner}/{project}/shared-with",
        "/v1/projects/alice/nothing/shared-with",
        None,
        404,
    ),
    (
        "POST",
        "/v1/projects/{owner}/{project}/transfer-ownership",
        "/v1/projects/alice/letters/transfer-ownership",
        {"new_owner_handle": "nobody"},
        404,
    ),
    (
        "POST",
        "/v1/projects/{owner}/{project}/transfer-ownership",
        "/v1/projects/alice/default/transfer-ownership",
        {"new_owner_handle": "sam"},
        409,
    ),
    ("GET", "/v1/embeddings/{owner}/{project}", "/v1/embeddings/alice/nothing", None, 404),
    (
        "POST",
        "/v1/embeddings/{owner}/{project}",
        "/v1/embeddings/alice/nothing",
        {"embeddings": [item("x", [1, 2, 3])]},
        404,
    ),
    (
        "POST",
        "/v1/embeddings/{owner}/{project}",
        "/v1/embeddings/alice/letters",
        {"embeddings": [item("known", [1, 2, 3])]},
        409,
    ),
    (
        "POST",
        "/v1/embeddings/{owner}/{project}",
        "/v1/embeddings/alice/letters",
        {"embeddings": [item("x", [1, 2])]},
        400,
    ),
    (
        "POST",
        "/v1/embeddings/{owner}/{project}",
        "/v1/embeddings/alice/letters",
        {"embeddings": [1] * 5001},
        413,
    ),
    ("DELETE", "/v1/embeddings/{owner}/{project}", "/v1/embeddings/alice/nothing", None, 404),
    (
        "GET",
        "/v1/embeddings/{owner}/{project}/{text_id}",
        "/v1/embeddings/alice/letters/nothing",
        None,
        404,
    ),
    (
        "PUT",
        "/v1/embeddings/{owner}/{project}/{text_id}",
        "/v1/embeddings/alice/nothing/known",
        item("known", [1, 2, 3]),
        404,
    ),
    (
        "DELETE",
        "/v1/embeddings/{owner}/{project}/{text_id}",
        "/v1/embeddings/alice/letters/nothing",
        None,
        404,
    ),
    *(
        (
            method,
            f"/v1/embeddings/{{owner}}/{{project}}/{kind}",
            f"{where}/{kind}{query}",
            body,
            404,
        )
        for where in ("/v1/embeddings/alice/nothing",)
        for method, kind, query, body in (
            ("GET", "count", '?filter={"a":1}', None),
            ("GET", "facets", "?path=a", None),
            ("POST", "delete", "", {"filter": {"a": 1}}),
            ("POST", "update", "", {"filter": {"a": 1}, "metadata": {}}),
        )
    ),
    *(
        (
            method,
            f"/v1/embeddings/{{owner}}/{{project}}/{kind}",
            f"{where}/{kind}{query}",
            body,
            400,
        )
        for where in ("/v1/embeddings/alice/letters",)
        for method, kind, query, body in (
            ("GET", "count", "?filter={}", None),
            ("GET", "facets", "?path=", None),
            ("POST", "delete", "", {"filter": {}}),
            ("POST", "update", "", {"filter": {"a": 1}}),
        )
    ),
    (
        "POST",
        "/v1/similars/{owner}/{project}",
        "/v1/similars/alice/nothing",
        {"vector": [1, 2, 3]},
        404,
    ),
    (
        "POST",
        "/v1/similars/{owner}/{project}",
        "/v1/similars/alice/letters",
        {"vector": [0, 0, 0]},
        400,
    ),
    (
        "GET",
        "/v1/similars/{owner}/{project}/{text_id}",
        "/v1/similars/alice/letters/nothing",
        None,
        404,
    ),
    *(
        ("POST", "/v1/similars/{owner}/{project}/batch", path, body, status)
        for path, body, status in (
            ("/v1/similars/alice/nothing/batch", {"queries": [{"vector": [1, 2, 3]}]}, 404),
            ("/v1/similars/alice/letters/batch", {"queries": [{"vector": [1, 2]}]}, 400),
            ("/v1/similars/alice/letters/batch", {"queries": [{"positive": ["nothing"]}]}, 404),
        )
    ),
    *(
        ("POST", "/v1/similars", "/v1/similars", {**body, "vector": [1, 2, 3]}, status)
        for body, status in (
            ({"projects": ["alice/nothing"]}, 404),
            ({"projects": []}, 400),
            ({"projects": ["alice/letters", "alice/wide"]}, 409),
        )
    ),
    (
        "GET",
        "/v1/similars/{owner}/{project}/{text_id}",
        "/v1/similars/alice/letters/known?group_size=3",
        None,
        400,
    ),
    (
        "DELETE",
        "/v1/projects/{owner}/{project}",
        "/v1/projects/ada/full",
        None,
        409,
    ),
    *(
        (method, "/v1/projects/{owner}/{project}/index", path, body, status)
        for method, path, body, status in (
            ("GET", "/v1/projects/alice/nothing/index", None, 404),
            ("GET", "/v1/projects/alice/letters/index?nothing=1", None, 400),
            ("PATCH", "/v1/projects/alice/nothing/index", {}, 404),
            ("PATCH", "/v1/projects/alice/letters/index", {"m": 1}, 400),
            ("PATCH", "/v1/projects/alice/letters/index", {"m": 50}, 400),
        )
    ),
    *(
        ("POST", "/v1/projects/{owner}/{project}/index/rebuild", path, None, status)
        for path, status in (
            ("/v1/projects/alice/nothing/index/rebuild", 404),
            ("/v1/projects/alice/letters/index/rebuild", 409),
            ("/v1/projects/alice/letters/index/rebuild?now=1", 400),
        )
    ),
    *(
        (method, f"/v1/projects/{{owner}}/{{project}}/reembedding{step}", path, body, status)
        for method, step, path, body, status in (
            ("GET", "", "/v1/projects/alice/letters/reembedding", None, 404),
            ("DELETE", "", "/v1/projects/alice/letters/reembedding", None, 404),
            ("POST", "", "/v1/projects/alice/letters/reembedding", {}, 400),
            (
                "POST",
                "",
                "/v1/projects/alice/letters/reembedding",
                {"instance_handle": "model"},
                409,
            ),
            ("GET", "/estimate", "/v1/projects/alice/letters/reembedding/estimate?a=1", None, 400),
            ("GET", "/comparison", "/v1/projects/alice/letters/reembedding/comparison", None, 404),
            (
                "POST",
                "/comparison",
                "/v1/projects/alice/letters/reembedding/comparison",
                {"questions": ["a"]},
                404,
            ),
            ("POST", "/switch", "/v1/projects/alice/nothing/reembedding/switch", None, 404),
        )
    ),
    *(
        ("POST", "/v1/similars/{owner}/{project}/recall", path, None, status)
        for path, status in (
            ("/v1/similars/alice/nothing/recall", 404),
            ("/v1/similars/alice/letters/recall?k=0", 400),
            ("/v1/similars/alice/letters/recall?limit=3", 400),
        )
    ),
    (
        "GET",
        "/v1/similars/{owner}/{project}/recall",
        "/v1/similars/alice/letters/recall",
        None,
        404,
    ),
    ("GET", "/projects", "/projects?limit=1000", None, 422),
    ("GET", "/agents", "/agents?nothing=1", None, 422),
    ("GET", "/users", "/users?metadata_filter=5", None, 422),
    ("GET", "/files", "/files?include_content=maybe", None, 422),
    ("POST", "/projects", "", {"name": "Full", "canonical_name": "FULL"}, 409),
    ("POST", "/projects", "", {"name": "Full", "canonical_name": "no dots."}, 422),
    ("GET", "/projects/{id}", f"/projects/{AN_EXAMPLE}", None, 404),
    ("PUT", "/projects/{id}", f"/projects/{AN_EXAMPLE}", {"name": "x"}, 404),
    ("PATCH", "/projects/{id}", "/projects/nothing", {}, 422),
    ("DELETE", "/projects/{id}", f"/projects/{AN_EXAMPLE}", None, 404),
    ("DELETE", "/projects/{id}", f"/projects/{AN_EXAMPLE}?on_resources=keep", None, 422),
    ("POST", "/agents", "", {"name": "x", "project": "nothing"}, 404),
    ("POST", "/agents", "", {"name": "x", "canonical_name": "Known"}, 409),
    ("POST", "/agents", "", {}, 422),
    *(
        (method, f"/{kind}/{{id}}", f"/{kind}/{AN_EXAMPLE}{query}", body, status)
        for kind in ("agents", "users")
        for method, query, body, status in (
            ("GET", "", None, 404),
            ("PUT", "", {"name": "x"}, 404),
            ("PATCH", "", {"name": "x"}, 404),
            ("DELETE", "", None, 404),
            ("POST", "", {"name": 5}, 422),
            ("POST", "", {"name": "x", "project": "nothing"}, 404),
        )
    ),
    ("POST", "/files", "", {"name": "x", "content": "SGVsbG8"}, 422),
    ("POST", "/files", "", {"name": "x", "content": "SGVsbG8h", "project": "nothing"}, 404),
    ("GET", "/files/{id}", f"/files/{AN_EXAMPLE}", None, 404),
    ("PATCH", "/files/{id}", f"/files/{AN_EXAMPLE}", {"content": "SGVsbG8h"}, 422),
    ("DELETE", "/files/{id}", f"/files/{AN_EXAMPLE}", None, 404),
    ("GET", "/v1/users", "/v1/users?limit=201", None, 400),
    ("GET", "/v1", "/v1?nothing=1", None, 400),
]


@pytest.mark.django_db
def test_refusals_are_as_described(cast: Cast) -> None:
    cast.erin.patch("/v1/users/erin", {"email": "erin@example.org"})
    cast.alice.post("/v1/llm-service-definitions/alice", {**_NEW, "definition_handle": "model"})
    make_instance("alice", "wide", dimensions=4)
    make_project("alice", "wide", instance="wide")
    uploaded = cast.alice.post(
        "/v1/embeddings/alice/letters", {"embeddings": [item("known", [1, 2, 3])]}
    )
    assert uploaded.status == 201
    # Somebody else's project uses Alice's instance.
    share = {"share_with_handle": "sam", "role": "reader"}
    assert cast.alice.post("/v1/llm-services/alice/model/share", share).status == 201
    borrowed = {"project_handle": "mine", "instance_owner": "alice", "instance_handle": "model"}
    assert cast.sam.post("/v1/projects/sam", borrowed).status == 201
    cast.ada.post("/projects", {"name": "Full", "canonical_name": "full"})
    cast.ada.post("/agents", {"name": "Known", "canonical_name": "known", "project": "full"})
    problems = []
    for method, template, path, body, status in PROBES:
        answer = cast.ada.ask(method, path or template, body)
        if answer.status != status:
            problems.append(f"{method} {path or template}: {answer.status}: {answer.content!r}")
        elif difference := document.difference(method, template, answer):
            problems.append(f"{method} {path or template}: {difference}")
    assert problems == []


@pytest.mark.django_db
@every_operation
def test_bodies_of_the_wrong_kind_are_refused_as_described(
    method: str, template: str, described: dict[str, Any], cast: Cast
) -> None:
    if "requestBody" not in described:
        return
    path = _example_path(template, described).replace("my-openai", "model").replace("bob", "sam")
    for options, status in (
        ({"raw": b"{", "content_type": "application/json"}, 400),
        ({"raw": b"[]", "content_type": "application/json"}, 422 if is_own(template) else 400),
        ({"raw": b"a=1", "content_type": "text/plain"}, 415),
        ({"raw": b"\xff", "content_type": "application/json; charset=latin-1"}, 415),
        ({"raw": b"{}", "headers": {"Content-Encoding": "br"}}, 415),
    ):
        answer = cast.ada.ask(method.upper(), path, **options)
        assert answer.status == status, (options, answer.content)
        assert document.difference(method, template, answer) == ""


# --- Examples -------------------------------------------------------------------------------------
def _example_path(template: str, described: dict[str, Any]) -> str:
    path = template
    for parameter in described.get("parameters", []):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(parameter["example"], safe=""))
    return f"{path}?{urlencode({'q': WORDS})}" if described["operationId"] in _BY_WORDS else path


# What takes a query parameter that must be there.
_BY_WORDS = {"search_by_words"}


def _examples() -> Iterator[Any]:
    for method, template, described in OPERATIONS:
        media = described.get("requestBody", {}).get("content", {}).get("application/json", {})
        for name, example in media.get("examples", {"": {"value": None}}).items():
            label = f"{described['operationId']} {name}".strip()
            yield pytest.param(method, template, described, example["value"], id=label)


# What an operation makes, and so must not exist before.
_MAKES = {
    "create_user": {"alice"},
    "create_project": {"letters"},
    "create_llm_service": {"my-openai"},
    "create_llm_service_from_definition": {"my-openai"},
    "upload_embeddings": {"letter-1:p.3"},
    "delete_api_standard": {"openai"},
    "create_own_project": {"customer_support"},
}


_STATE_OF_JOB = {
    "get_embedding_job": JobState.RUNNING,
    "cancel_embedding_job": JobState.WAITING,
    "retry_embedding_job": JobState.FAILED,
    "delete_embedding_job": JobState.CANCELLED,
}


_STATE_OF_REEMBEDDING = {
    "get_reembedding": ReembeddingState.FILLING,
    "delete_reembedding": ReembeddingState.FAILED,
    "compare_reembedding": ReembeddingState.READY,
    "compare_reembedding_by_questions": ReembeddingState.READY,
    "pause_reembedding": ReembeddingState.FILLING,
    "resume_reembedding": ReembeddingState.PAUSED,
    "switch_reembedding": ReembeddingState.READY,
    "roll_back_reembedding": ReembeddingState.SWITCHED,
}


def _prepare(name: str) -> Caller:
    """Make what the examples speak of, but what the operation itself makes; return who may."""
    if name in OWN_NAMES:
        return _prepare_own(name)
    ada, makes = make_user("ada", is_superuser=True), _MAKES.get(name, set())
    make_user("bob")
    if "alice" in makes:
        return ada
    make_user("alice")
    definition = {**_NEW, "definition_handle": "my-openai"}
    assert ada.post("/v1/llm-service-definitions/alice", definition).status == 201
    model = make_instance("alice", "my-model")
    make_embedded(model, "My dear friend, …", "The garden is …", WORDS)
    if "my-openai" not in makes:
        make_instance("alice", "my-openai")
    if name == "test_llm_service":
        builtin = {"api_standard": "builtin", "model": UNIVERSAL_SENTENCE_ENCODER}
        ada.patch("/v1/llm-services/alice/my-openai", {**builtin, "dimensions": 512})
    if "letters" not in makes:
        make_project("alice", "letters", instance="my-model", readers=["bob"])
        if "letter-1:p.3" not in makes and name != "replace_project":
            first = item("letter-1:p.3", [1, 2, 3], instance_handle="my-model", text="My dear")
            ada.post("/v1/embeddings/alice/letters", {"embeddings": [first]})
    if name == "search_projects":
        make_project("alice", "diaries", instance="my-model")
    if name in _STATE_OF_JOB:
        project = Project.objects.get(owner__handle="alice", handle="letters")
        state = _STATE_OF_JOB[name]
        EmbeddingJob.objects.create(pk=AN_EXAMPLE, project=project, state=state, total=1)
    if name in _STATE_OF_REEMBEDDING:
        Reembedding.objects.create(
            project=Project.objects.get(owner__handle="alice", handle="letters"),
            instance=model,
            model_id=model.embedding_model_id,
            state=_STATE_OF_REEMBEDDING[name],
        )
    if name.startswith("unshare"):
        shared = {"share_with_handle": "bob", "role": "reader"}
        for kind in ("llm-services", "llm-service-definitions"):
            ada.post(f"/v1/{kind}/alice/my-openai/share", shared)
    if "openai" in makes:
        # Nothing may refer to the standard of the example.
        for kind in ("llm-services/alice/my-openai", "llm-service-definitions/alice/my-openai"):
            ada.delete(f"/v1/{kind}")
        ada.delete("/v1/users/alice")
        for handle in ("mistral-embed", "openai-large", "openai-small", "vllm-bge-m3"):
            ada.delete(f"/v1/llm-service-definitions/_system/{handle}")
    return ada


def _prepare_own(name: str) -> Caller:
    """Make what the examples of the Projects API speak of; return the account it belongs to."""
    alice, makes = make_user("alice"), _MAKES.get(name, set())
    for project in {"customer_support", "archive"} - makes:
        assert alice.post("/projects", {"name": project, "canonical_name": project}).status == 201
    if "own_project" in name:
        # Another one than the example's name, so that the example can take it.
        Project.objects.filter(owner__handle="alice", handle="archive").update(uuid=AN_EXAMPLE)
        Project.objects.filter(owner__handle="alice", handle="customer_support").delete()
    if name.startswith(("get_", "replace_", "update_", "delete_")):
        alice.post(f"/agents/{AN_EXAMPLE}", {"name": "Agent"})
        alice.post(f"/users/{AN_EXAMPLE}", {"name": "End user"})
        alice.post("/files", {"name": "a.txt", "content": "SGVsbG8h"})
        File.objects.update(uuid=AN_EXAMPLE)
    return alice


# What operations have to be asked with.
_QUERIES = {"count_embeddings": '?filter={"author": "Ann"}', "list_facets": "?path=author"}


@pytest.mark.django_db
@pytest.mark.parametrize(("method", "template", "described", "body"), list(_examples()))
def test_examples_work_as_they_stand(
    method: str, template: str, described: dict[str, Any], body: Any, settings: Any
) -> None:
    settings.ALLOW_RESET = True
    caller = _prepare(described["operationId"])
    if described["operationId"] == "rebuild_index":
        settings.INDEX_THRESHOLD = 1
        indexes.tend(Project.objects.get(owner__handle="alice", handle="letters").pk)
    path = _example_path(template, described) + _QUERIES.get(described["operationId"], "")
    answer = caller.ask(method.upper(), path, body)
    assert 200 <= answer.status < 300, answer.body
    assert document.difference(method, template, answer) == ""


@every_operation
def test_examples_of_answers_fit_their_description(
    method: str, template: str, described: dict[str, Any]
) -> None:
    for status, response in described["responses"].items():
        for media in response.get("content", {}).values():
            for example in media.get("examples", {}).values():
                content = orjson.dumps(example["value"])
                answer = Answer(
                    int(status),
                    orjson.loads(content),
                    {"Content-Type": next(iter(response["content"]))},
                )
                assert document.difference(method, template, answer) == ""


# --- The page -------------------------------------------------------------------------------------
class _Page(HTMLParser):
    """Collects what a page loads, and what stands inline."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note addresses, styles and event handlers."""
        given = dict(attrs)
        self.loaded += [str(given[name]) for name in ("src", "href", "action") if name in given]
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        self._inside = tag if tag in {"script", "style"} else ""

    def handle_data(self, data: str) -> None:
        """Note scripts and styles between tags."""
        if self._inside and data.strip():
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        """Leave a script or style."""
        self._inside = ""


@pytest.mark.django_db
def test_the_page_works_under_the_strict_policy() -> None:
    nobody = Caller()
    answer = nobody.get("/docs")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    for directive in (
        "default-src 'self'",
        "script-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "form-action 'self'",
    ):
        assert directive in policy.split("; ")
    assert "unsafe" not in policy
    page = _Page()
    page.feed(answer.content.decode())
    assert page.inline == []
    assert len(page.loaded) >= 5
    for address in page.loaded:
        assert address.startswith("/")
        assert nobody.get(address).status == 200, address
    assert b'data-document="/openapi.json"' in answer.content
