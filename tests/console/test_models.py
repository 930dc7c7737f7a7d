"""Models, templates and standards; and the model of a project."""

from typing import Any

import pytest
from django.test import Client

from accounts.models import Role
from accounts.policy import BOOTSTRAP_ADMIN
from embeddings.models import Reembedding, ReembeddingState
from llm_services import services
from llm_services.models import Definition, Instance
from projects.models import Project
from tests.console import matrices, test_matrix
from tests.console.browser import PROJECT, browser, page, queries
from tests.console.conftest import HOSTILE
from tests.factories import Cast, item, make_instance, make_project
from tests.jobs import run_jobs
from tests.llm_services.providers import conftest as providers
from tests.llm_services.providers.servers import DIMENSIONS, KEY, SAYS, Reply

HTMX = {"HX-Request": "true", "HX-Target": "trial"}
MODEL, TEMPLATE = "/models/alice/model", "/models/t/alice/template"
SETTINGS = f"{PROJECT}/settings/model"
CANARY = "sk-canary-of-the-console"
VALUES = {
    "description": "Ours",
    "endpoint": "https://embed.example.org/v1/embeddings",
    "api_standard": "openai",
    "model": "bge-m3",
    "dimensions": "3",
    "context_limit": "",
}

browsers = test_matrix.browsers
serve = providers.serve
server = providers.server


@pytest.fixture
def lent(texts: Cast) -> Cast:
    """The cast with texts; Alice has a template and a second model, and lends things to Rita."""
    share: dict[str, Any] = {"actor": BOOTSTRAP_ADMIN, "owner": "alice"}
    make_instance("alice", "second")
    values = {**VALUES, "context_limit": None, "dimensions": 3}
    services.create_definition(**share, handle="template", values=values)
    services.share_definition(**share, handle="template", user="rita")
    services.share_instance(**share, handle="model", user="rita", role=Role.READER)
    return texts


@pytest.fixture
def alice(lent: Cast) -> Client:
    """A browser of Alice's."""
    return browser("alice")


def model(handle: str = "model") -> Instance:
    """Return one of Alice's models as it is stored."""
    return Instance.objects.get(owner__handle="alice", handle=handle)


ROWS = matrices.MODELS | {f"project: {k}": row for k, row in matrices.PROJECT_MODEL.items()}


@pytest.mark.parametrize("name", ROWS)
def test_everybody_gets_what_the_policy_says(
    name: str, lent: Cast, browsers: dict[str, Client]
) -> None:
    matrices.check(ROWS[name], browsers)


# --- Lists and pages ------------------------------------------------------------------------------
def test_models_are_listed_by_how_one_has_them(lent: Cast) -> None:
    text = page(browser("rita").get("/models/"))
    mine, borrowed, builtin, templates = text.split("<section")[1:5]
    assert "None yet." in mine
    assert MODEL in borrowed
    assert "/models/alice/second" not in text
    assert "/models/_system/builtin" in builtin
    for address in (TEMPLATE, "/models/t/_system/openai-small", "/models/new?template=_system/"):
        assert address in templates


def test_a_borrower_sees_what_it_is_and_neither_sharees_nor_forms(lent: Cast) -> None:
    text = page(browser("rita").get(MODEL))
    assert "alice lends it to you" in text
    assert "https://api.example.org" in text
    assert "alice/letters" in text
    for word in ("Delete the model", "Share with somebody", f"{MODEL}/edit"):
        assert word not in text


def test_what_the_program_brings_along_can_only_be_used(lent: Cast) -> None:
    for handle in ("sam", "ada"):
        text = page(browser(handle).get("/models/_system/builtin"))
        assert "It runs on this server" in text
        assert "Delete the model" not in text
    page(browser("ada").post("/models/_system/builtin/edit", VALUES), 400)


def test_what_one_may_not_see_looks_as_if_it_were_not_there(lent: Cast) -> None:
    sam = browser("sam")
    texts = [
        page(sam.get(f"/models/alice/{handle}"), 404)
        .split("<main")[1]
        .split("</main>")[0]
        .replace(handle, "x")
        for handle in ("model", "no-such-one")
    ]
    assert texts[0] == texts[1]


# --- Making and changing --------------------------------------------------------------------------
def test_a_model_is_made_from_a_template(alice: Client) -> None:
    text = page(alice.get("/models/new?template=_system/openai-small"))
    assert 'value="text-embedding-3-small"' in text
    sent = {
        **VALUES,
        "handle": "mine",
        "api_key": CANARY,
        "definition_owner": "_system",
        "definition_handle": "openai-small",
    }
    made: Any = alice.post("/models/new", sent)
    assert made.headers["Location"] == "/models/alice/mine"
    text = page(alice.get("/models/alice/mine"))
    assert "_system/openai-small" in text
    assert "Set. It is stored encrypted" in text
    row = model("mine")
    assert (row.model, row.dimensions, row.has_api_key) == ("bge-m3", 3, True)
    page(alice.get("/models/new?template=bob/secret"), 404)


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        ({"handle": ""}, "Give it a handle"),
        ({"handle": "no spaces"}, "is not a valid"),
        ({"handle": "Model"}, "already exists"),
        ({"handle": "share"}, "is reserved"),
        ({"endpoint": "ftp://example.org"}, "must be a web address"),
        ({"endpoint": "https://me:secret@example.org"}, "may not hold a user name"),
        ({"endpoint": ""}, "Type the address"),
        ({"api_standard": "none-such"}, "Select a valid choice"),
        ({"dimensions": "0"}, "greater than or equal to 1"),
        ({"dimensions": "16001"}, "less than or equal to 16000"),
        ({"dimensions": "many"}, "Enter a whole number"),
        ({"context_limit": "-1"}, "greater than or equal to 1"),
        ({"definition_owner": "alice", "definition_handle": "nothing"}, "not"),
    ],
)
def test_what_is_wrong_stands_beside_the_field(
    sent: dict[str, str], problem: str, alice: Client
) -> None:
    given = {**VALUES, "handle": "new", "api_key": CANARY, **sent}
    text = page(alice.post("/models/new", given), 400)
    assert problem in text
    assert ">\nOurs</textarea>" in text
    assert CANARY not in text
    assert Instance.objects.filter(owner__handle="alice").count() == 2


def edited(client: Client, status: int = 302, **sent: str) -> Any:
    """Send the form that changes Alice's model."""
    given = {**VALUES, "endpoint": "https://api.example.org/v1/embeddings", **sent}
    response: Any = client.post(f"{MODEL}/edit", given)
    assert response.status_code == status, response.content
    return response


def test_a_key_is_set_kept_replaced_and_removed(alice: Client) -> None:
    assert "not set" in page(alice.get(f"{MODEL}/edit"))
    edited(alice, api_key=CANARY)
    first = bytes(model().sealed_key)
    edited(alice, model="another")
    assert bytes(model().sealed_key) == first
    edited(alice, api_key="sk-other")
    assert bytes(model().sealed_key) not in {first, b""}
    both = page(edited(alice, 400, api_key="sk-x", erase_key="on"), 400)
    assert "Type a key or remove it, not both." in both
    edited(alice, erase_key="on")
    assert not model().has_api_key


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://other.example.org/v1/embeddings",
        "http://api.example.org/v1/embeddings",
        "https://api.example.org:8443/v1/embeddings",
    ],
)
def test_e5_another_server_without_a_key_erases_it_and_says_so(
    endpoint: str, alice: Client
) -> None:
    edited(alice, api_key=CANARY)
    edited(alice, endpoint="https://api.example.org/v2/embeddings")
    assert model().has_api_key
    edited(alice, endpoint=endpoint)
    assert not model().has_api_key
    assert "The stored key was erased" in page(alice.get(MODEL))
    edited(alice, api_key=CANARY)
    edited(alice, endpoint="https://third.example.org/v1", api_key="sk-third")
    assert model().has_api_key


def test_dimensions_stay_while_projects_hold_texts(alice: Client) -> None:
    text = page(edited(alice, 400, dimensions="5"), 400)
    assert "dimensions" in text
    assert model().dimensions == 3


# --- Using it -------------------------------------------------------------------------------------
def test_the_connection_is_tested(serve: Any, lent: Cast) -> None:
    server = serve()
    values: dict[str, Any] = {"api_key": KEY, "dimensions": DIMENSIONS, "model": "small"}
    make_instance("alice", "real", endpoint=server.url, **values)
    alice = browser("alice")
    text = page(alice.post("/models/alice/real/test", {"text": "Hello"}))
    assert f"a vector of {DIMENSIONS} dimensions came back" in text
    assert "The provider counted 3 tokens." in text
    assert server.texts() == [["Hello"]]
    server.faults.append(Reply({"error": SAYS}, 401))
    part = page(alice.post("/models/alice/real/test", {}, headers=HTMX))
    assert "It does not work." in part
    assert "<html" not in part
    assert SAYS not in part
    assert server.complaints == []


def test_the_built_in_model_answers_everybody(lent: Cast) -> None:
    text = page(browser("sam").post("/models/_system/builtin/test", {}))
    assert "a vector of 512 dimensions came back" in text


def test_private_addresses_are_refused_when_they_are_called(alice: Client) -> None:
    make_instance("alice", "private", endpoint="http://127.0.0.1:9/v1")
    assert "It does not work." in page(alice.post("/models/alice/private/test", {}))


def test_sharing_and_taking_back(alice: Client) -> None:
    alice.post(f"{MODEL}/share", {"user": "sam"})
    assert "sam may use it now." in page(alice.get(MODEL))
    page(browser("sam").get(MODEL))
    alice.post(f"{MODEL}/unshare", {"user": "sam"})
    assert browser("sam").get(MODEL).status_code == 404
    for user, problem in (("", "Type the handle"), ("nobody-here", "does not exist"), ("*", "not")):
        assert problem in page(alice.post(f"{MODEL}/share", {"user": user}), 400)


def test_deleting_names_what_uses_it(lent: Cast, alice: Client) -> None:
    assert "It cannot be deleted while 1 project uses it" in page(alice.get(MODEL))
    refused = page(alice.post(f"{MODEL}/delete", {"typed": "model"}), 400)
    assert "in use by 1 projects" in refused
    assert "/p/alice/letters/" in refused
    second = "/models/alice/second"
    assert "This is not the handle" in page(alice.post(f"{second}/delete", {"typed": "2"}), 400)
    assert alice.post(f"{second}/delete", {"typed": "second"}).status_code == 302
    assert "second is deleted." in page(alice.get("/models/"))


def test_the_owner_learns_how_many_projects_of_others_use_it(lent: Cast) -> None:
    rita = browser("rita")
    make_project("alice", "other")
    made = lent.rita.post(
        "/v1/projects/rita",
        {"project_handle": "hidden", "instance_owner": "alice", "instance_handle": "model"},
    )
    assert made.status == 201, made.body
    text = page(browser("alice").get(MODEL))
    assert "rita/hidden" not in text
    assert "And 1 other project." in text
    text = page(rita.get(MODEL))
    assert "rita/hidden" in text
    assert "alice/other" not in text
    assert "other project" not in text


def test_templates_are_made_changed_and_deleted(alice: Client) -> None:
    made: Any = alice.post("/models/new-template", {**VALUES, "handle": "fresh"})
    assert made.headers["Location"] == "/models/t/alice/fresh"
    changed = {**VALUES, "model": "bge-m4", "is_public": "on"}
    alice.post("/models/t/alice/fresh/edit", changed)
    row = Definition.objects.get(handle="fresh")
    assert (row.model, row.is_public) == ("bge-m4", True)
    page(browser("sam").get("/models/t/alice/fresh"))
    alice.post("/models/t/alice/fresh/delete", {"typed": "fresh"})
    assert alice.get("/models/t/alice/fresh").status_code == 404


def test_e6_a_key_is_on_no_page(lent: Cast, alice: Client) -> None:
    edited(alice, api_key=CANARY)
    make_instance("alice", "private", endpoint="http://127.0.0.1:9/v1", api_key=CANARY)
    addresses = ["/models/", MODEL, f"{MODEL}/edit", f"{PROJECT}/settings", SETTINGS]
    for client in (alice, browser("rita"), browser("ada")):
        for address in addresses:
            response: Any = client.get(address)
            assert CANARY not in response.content.decode()
    for address, sent in (
        ("/models/alice/private/test", {}),
        (f"{MODEL}/edit", {**VALUES, "api_key": CANARY, "dimensions": "x"}),
        (f"{MODEL}/share", {"user": CANARY[:20]}),
    ):
        response = alice.post(address, sent)
        assert CANARY not in response.content.decode()


def test_what_people_write_stays_text(alice: Client) -> None:
    edited(alice, description=HOSTILE, model=HOSTILE)
    for address in ("/models/", MODEL, f"{MODEL}/edit", SETTINGS):
        text = page(alice.get(address))
        assert "&lt;script&gt;" in text


def test_forms_need_a_token(alice: Client) -> None:
    alice.handler.enforce_csrf_checks = True
    for end in ("edit", "share", "unshare", "delete", "test"):
        page(alice.post(f"{MODEL}/{end}", {**VALUES, "user": "sam"}), 403)
    page(alice.post("/models/new", {**VALUES, "handle": "third"}), 403)
    assert model().description == ""


@pytest.mark.parametrize(
    ("address", "most"),
    [
        ("/models/", 9),
        (MODEL, 6),
        (f"{MODEL}/edit", 4),
        (TEMPLATE, 4),
        ("/models/new?template=_system/openai-small", 4),
        (SETTINGS, 14),
        (f"{SETTINGS}?price=1", 15),
    ],
)
def test_pages_take_few_queries(address: str, most: int, lent: Cast, alice: Client) -> None:
    before = queries(alice, address)
    for number in range(4):
        make_instance("alice", f"extra{number}")
        make_project("alice", f"project{number}")
        values = {**VALUES, "context_limit": None, "dimensions": 3}
        services.create_definition(
            actor=BOOTSTRAP_ADMIN, owner="alice", handle=f"extra{number}", values=values
        )
    assert queries(alice, address) == before
    assert before <= most


# --- The model of a project -----------------------------------------------------------------------
def project() -> Project:
    """Return Alice's project as it is stored."""
    return Project.objects.select_related("instance").get(owner__handle="alice", handle="letters")


def test_a_project_gets_another_model_of_as_many_dimensions(alice: Client) -> None:
    make_instance("alice", "larger", dimensions=5)
    text = page(alice.get(SETTINGS)).split("Change the model only")[1]
    assert 'value="alice/second"' in text
    assert 'value="alice/larger"' not in text
    page(alice.post(SETTINGS, {"instance": "alice/larger"}), 400)
    page(alice.post(SETTINGS, {"instance": "rita/model"}), 400)
    assert "Choose a model." in page(alice.post(SETTINGS, {}), 400)
    assert alice.post(SETTINGS, {"instance": "alice/second"}).status_code == 302
    assert project().instance.handle == "second"
    assert "based on alice/second now" in page(alice.get(SETTINGS))


def test_an_empty_project_gets_any_model(lent: Cast, alice: Client) -> None:
    make_project("alice", "empty")
    address = "/p/alice/empty/settings/model"
    assert "any model will do" in page(alice.get(address))
    assert alice.post(address, {"instance": "_system/builtin"}).status_code == 302
    page(alice.get(address))


def test_texts_without_words_are_counted_in_the_refusal(alice: Client) -> None:
    assert "1 embedding has no text" in page(alice.get(f"{SETTINGS}?price="))
    refused = page(alice.post(f"{SETTINGS}/reembed", {"instance": "_system/builtin"}), 400)
    assert "1 embeddings of project" in refused


def test_the_price_is_estimated(lent: Cast, alice: Client) -> None:
    lent.alice.delete("/v1/embeddings/alice/letters/c%0A3")
    text = page(alice.get(f"{SETTINGS}?price=0.5"))
    assert "Price, about" in text
    page(alice.get(f"{SETTINGS}?price=cheap"), 400)
    page(alice.get(f"{SETTINGS}?colour=red"), 400)


def test_re_embedding_from_beginning_to_rollback(lent: Cast, alice: Client) -> None:
    lent.alice.delete("/v1/embeddings/alice/letters/c%0A3")
    assert alice.post(f"{SETTINGS}/reembed", {"instance": "_system/builtin"}).status_code == 302
    text = page(alice.get(SETTINGS))
    for word in ("Texts are embedded.", "0 of 3 texts", 'hx-trigger="every 2s"', "Pause"):
        assert word in text
    looking = page(browser("erin").get(SETTINGS))
    assert "Texts are embedded." in looking
    assert 'value="pause"' not in looking
    step(alice, "pause")
    assert "Paused." in page(alice.get(SETTINGS))
    step(alice, "resume")
    run_jobs()
    text = page(alice.get(SETTINGS))
    assert "Ready to switch." in text
    assert "every 2s" not in text
    compared = page(alice.get(f"{SETTINGS}?compare=20"))
    assert "3 texts were searched with." in compared
    page(alice.get(f"{SETTINGS}?compare=1000"), 400)
    step(alice, "switch")
    run_jobs()
    assert project().instance.dimensions == 512
    assert "The former vectors are kept until" in page(alice.get(SETTINGS))
    step(alice, "rollback")
    run_jobs()
    assert project().instance.handle == "model"
    step(alice, "forget")
    assert not Reembedding.objects.exists()
    part = page(alice.get(SETTINGS, headers={**HTMX, "HX-Target": "progress"}))
    assert "There is no re-embedding any more." in part
    assert "<html" not in part


def step(client: Client, name: str) -> None:
    """Press one of the buttons."""
    assert client.post(f"{SETTINGS}/step", {"step": name}).status_code == 302


def test_a_step_that_does_not_fit_is_refused(lent: Cast, alice: Client) -> None:
    page(alice.post(f"{SETTINGS}/step", {"step": "switch"}), 404)
    row = model("second")
    Reembedding.objects.create(
        project=project(), instance=row, model=row.embedding_model, state=ReembeddingState.FAILED
    )
    Reembedding.objects.update(last_error=HOSTILE)
    assert "&lt;script&gt;" in page(alice.get(SETTINGS))
    page(alice.post(f"{SETTINGS}/step", {"step": "switch"}), 409)
    page(alice.get(f"{SETTINGS}?compare=5"))
    assert queries(alice, SETTINGS) <= 14


def test_mixed_models_are_said(lent: Cast, alice: Client) -> None:
    edited(alice, model="another")
    rows = [item("new", [1, 0, 0], text="Text")]
    lent.alice.post("/v1/embeddings/alice/letters", {"embeddings": rows})
    assert "re-embed the project" in page(alice.get(SETTINGS))
