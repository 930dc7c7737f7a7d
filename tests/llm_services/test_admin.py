"""The administration site: API standards, definitions, instances and what is shared of them."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db.models import Model
from django.test import Client

from accounts.models import Role
from accounts.policy import BOOTSTRAP_ADMIN
from embeddings import store
from llm_services import services
from llm_services.models import (
    ApiStandard,
    Definition,
    DefinitionShare,
    Instance,
    InstanceShare,
)
from llm_services.selectors import builtin_instance
from tests.admin_site import (
    NO_SHARES,
    SCRIPT,
    accepted,
    act,
    address,
    errors,
    page,
    queries,
    sign_in,
    submit,
)
from tests.factories import Cast, make_instance, make_user, stored, vectors

ENDPOINT = "https://api.example.org/v1/embeddings"
CANARY = "sk-canary-3f9b1c77"


def standard() -> ApiStandard:
    return ApiStandard.objects.get(handle="openai")


def alices() -> Instance:
    return Instance.objects.select_related("owner").get(owner__handle="alice", handle="model")


def make_definition(owner: str = "alice", handle: str = "template", **fields: Any) -> Definition:
    values = {
        "endpoint": ENDPOINT,
        "api_standard": "openai",
        "model": "m",
        "dimensions": 5,
        **fields,
    }
    return services.create_definition(
        actor=BOOTSTRAP_ADMIN, owner=owner, handle=handle, values=values
    )


def add_instance(client: Client, **entered: Any) -> Any:
    values = {
        **NO_SHARES,
        "owner": stored("alice").pk,
        "handle": "second",
        "endpoint": ENDPOINT,
        "api_standard": standard().pk,
        "model": "m",
        "dimensions": "3",
    }
    sent = {name: value for name, value in {**values, **entered}.items() if value is not None}
    return client.post(address(Instance, "add"), sent)


# --- API standards --------------------------------------------------------------------------------
def test_standards_are_made_changed_and_deleted(cast: Cast) -> None:
    ada = sign_in()
    entered = {"handle": "acme", "key_method": "custom_header", "description": SCRIPT}
    answer = submit(ada, address(ApiStandard, "add"), **entered)
    assert list(errors(answer)) == ["key_field"]
    accepted(submit(ada, address(ApiStandard, "add"), **entered, key_field="X-Key"))
    acme = ApiStandard.objects.get(handle="acme")
    assert acme.key_field == "X-Key"
    assert list(errors(submit(ada, address(acme, "change"), key_field=""))) == ["key_field"]
    accepted(submit(ada, address(acme, "change"), key_method="none", key_field="", handle="x"))
    acme.refresh_from_db()
    assert (acme.handle, acme.key_method) == ("acme", "none")
    assert "&lt;script&gt;" in page(ada.get(address(ApiStandard)))
    page(ada.get(address(acme, "change")))
    page(ada.get(address(acme, "delete")))
    accepted(ada.post(address(acme, "delete"), {"post": "yes"}))
    assert not ApiStandard.objects.filter(handle="acme").exists()


@pytest.mark.parametrize("handle", ["a b", "x", "OPENAI"])
def test_bad_handles_of_standards_are_refused(cast: Cast, handle: str) -> None:
    answer = submit(sign_in(), address(ApiStandard, "add"), handle=handle, key_method="none")
    assert list(errors(answer)) == ["__all__" if handle == "OPENAI" else "handle"]


def test_a_standard_in_use_stays(cast: Cast) -> None:
    ada = sign_in()
    answer = ada.post(address(standard(), "delete"), {"post": "yes"})
    assert "cannot be deleted: in use by" in accepted(answer)[0]
    answer = act(ada, ApiStandard, "delete_selected", [standard()], post="yes")
    assert "cannot be deleted: in use by" in accepted(answer)[0]


# --- Definitions ----------------------------------------------------------------------------------
def test_definitions_are_made_changed_shared_and_deleted(cast: Cast) -> None:
    ada = sign_in()
    entered = {
        "owner": stored("alice").pk,
        "handle": "template",
        "description": f"first\r\n{SCRIPT}",
        "endpoint": ENDPOINT,
        "api_standard": standard().pk,
        "model": SCRIPT,
        "dimensions": "5",
        "shares-0-user": stored("rita").pk,
    }
    accepted(submit(ada, address(Definition, "add"), **entered))
    definition = Definition.objects.get(owner__handle="alice")
    assert definition.description == f"first\n{SCRIPT}"
    assert [each.user.handle for each in DefinitionShare.of(definition)] == ["rita"]
    page(ada.get(address(Definition)))
    page(ada.get(address(DefinitionShare)))
    url = address(definition, "change")
    accepted(submit(ada, url, is_public="on", **{"shares-2-0-user": stored("sam").pk}))
    definition.refresh_from_db()
    assert definition.is_public
    assert [each.user.handle for each in DefinitionShare.of(definition)] == ["rita", "sam"]
    accepted(submit(ada, url, **{"shares-0-DELETE": "on"}))
    assert [each.user.handle for each in DefinitionShare.of(definition)] == ["sam"]
    accepted(ada.post(address(definition, "delete"), {"post": "yes"}))
    assert not Definition.objects.filter(owner__handle="alice").exists()


def test_an_unchanged_form_changes_nothing(cast: Cast) -> None:
    definition = make_definition(description="one\ntwo\r\nthree \n")
    accepted(submit(sign_in(), address(definition, "change")))
    after = Definition.objects.get(pk=definition.pk)
    assert after.description == "one\ntwo\r\nthree \n"


def test_grants_on_definitions_have_no_role_to_change(cast: Cast) -> None:
    ada, definition = sign_in(), make_definition()
    entered = {"subject": definition.pk, "user": stored("rita").pk}
    accepted(submit(ada, address(DefinitionShare, "add"), **entered))
    share = DefinitionShare.objects.get()
    assert share.role == Role.READER
    page(ada.get(address(share, "change")))
    assert ada.post(address(share, "change"), {"role": "editor"}).status_code == 403
    accepted(ada.post(address(share, "delete"), {"post": "yes"}))
    assert not DefinitionShare.objects.exists()


# --- Instances ------------------------------------------------------------------------------------
def test_instances_are_made_from_definitions(cast: Cast) -> None:
    ada, definition = sign_in(), make_definition()
    entered: dict[str, Any] = dict.fromkeys(("endpoint", "api_standard", "model", "dimensions"))
    answer = add_instance(ada, **entered)
    assert list(errors(answer)) == list(entered)
    accepted(add_instance(ada, **{**entered, "definition": definition.pk, "model": "mine"}))
    made = Instance.objects.get(handle="second")
    assert (made.definition, made.endpoint, made.model, made.dimensions) == (
        definition,
        ENDPOINT,
        "mine",
        5,
    )


@pytest.mark.parametrize(
    ("entered", "field"),
    [
        ({"handle": "model"}, "__all__"),
        ({"handle": "MODEL"}, "__all__"),
        ({"handle": "share"}, "handle"),
        ({"handle": "a b"}, "handle"),
        ({"endpoint": "ftp://example.org"}, "endpoint"),
        ({"endpoint": "https://user:secret@example.org/"}, "endpoint"),
        ({"endpoint": "https://example.org:99999/"}, "endpoint"),
        ({"dimensions": "0"}, "dimensions"),
        ({"dimensions": "16001"}, "dimensions"),
        ({"dimensions": "99999999999"}, "dimensions"),
        ({"dimensions": "many"}, "dimensions"),
        ({"context_limit": "-1"}, "context_limit"),
        ({"api_standard": "0"}, "api_standard"),
        ({"owner": None}, "owner"),
        ({"definition": "0"}, "definition"),
        ({"shares-0-user": "0"}, None),
    ],
)
def test_bad_instances_are_refused_beside_the_field(
    cast: Cast, entered: dict[str, str], field: str | None
) -> None:
    answer = add_instance(sign_in(), **entered, api_key=CANARY)
    assert list(errors(answer)) == ([field] if field else [])
    assert CANARY not in page(answer)
    assert not Instance.objects.filter(handle="second").exists()


def test_a_share_that_is_refused_takes_the_instance_back(cast: Cast) -> None:
    answer = add_instance(
        sign_in(), **{"shares-0-user": stored("alice").pk, "shares-0-role": "reader"}
    )
    assert "is the owner and has every right already" in errors(answer)["__all__"][0]
    assert not Instance.objects.filter(handle="second").exists()
    assert not LogEntry.objects.exists()


def test_instances_change(cast: Cast) -> None:
    ada = sign_in()
    url = address(alices(), "change")
    accepted(submit(ada, url, model=SCRIPT, handle="other", description=SCRIPT))
    assert (alices().model, alices().description) == (SCRIPT, SCRIPT)
    for each in (url, address(alices(), "delete"), address(alices(), "history"), address(Instance)):
        assert "&lt;script&gt;" in page(ada.get(each)) or "delete" in each or "history" in each
    for change in ({"endpoint": "nonsense"}, {"dimensions": "16001"}, {"model": ""}):
        assert list(errors(submit(ada, url, **change))) == list(change)


def test_a_provider_key_goes_in_and_never_comes_out(cast: Cast) -> None:
    ada = sign_in()
    accepted(add_instance(ada, api_key=CANARY))
    row = Instance.objects.get(handle="second")
    assert services.api_key_of(row) == CANARY
    assert services.api_key_of(alices()) == ""
    url = address(row, "change")
    # Saved without touching the key: it stays.
    accepted(submit(ada, url, model="other"))
    row.refresh_from_db()
    assert services.api_key_of(row) == CANARY
    sealed = bytes(row.sealed_key)
    urls = [url, address(row, "delete"), address(row, "history"), address(Instance), "/admin/"]
    texts = [page(ada.get(each)) for each in urls]
    texts.append(page(submit(ada, url, api_key=CANARY, endpoint="nonsense")))
    texts.append(page(submit(ada, url, api_key=CANARY, erase_key="on")))
    for text in texts:
        for secret in (CANARY, sealed.hex(), repr(sealed), str(memoryview(sealed))[:10]):
            assert secret not in text
    assert CANARY not in "".join(LogEntry.objects.values_list("change_message", flat=True))
    accepted(submit(ada, url, api_key=f"{CANARY}-2"))
    row.refresh_from_db()
    assert services.api_key_of(row) == f"{CANARY}-2"
    accepted(submit(ada, url, erase_key="on"))
    row.refresh_from_db()
    assert not row.has_api_key


def test_a_key_does_not_follow_to_another_server(cast: Cast) -> None:
    ada = sign_in()
    row = make_instance("alice", "keyed", api_key=CANARY)
    url = address(row, "change")
    accepted(submit(ada, url, endpoint="https://api.example.org/v2/embeddings"))
    assert Instance.objects.get(pk=row.pk).has_api_key
    messages = accepted(submit(ada, url, endpoint="https://other.example.org/"))
    assert any("was erased" in each for each in messages)
    assert not Instance.objects.get(pk=row.pk).has_api_key
    accepted(submit(ada, url, endpoint="https://third.example.org/", api_key=CANARY))
    assert services.api_key_of(Instance.objects.get(pk=row.pk)) == CANARY


def test_nobody_filters_by_provider_keys(cast: Cast) -> None:
    assert sign_in().get(address(Instance), {"sealed_key__startswith": "x"}).status_code == 400


def test_the_builtin_instance_cannot_be_changed(cast: Cast) -> None:
    ada, builtin = sign_in(), builtin_instance()
    assert 'name="api_key"' not in page(ada.get(address(builtin, "change")))
    assert ada.post(address(builtin, "change"), {"model": "x"}).status_code == 403
    assert ada.post(address(builtin, "delete"), {"post": "yes"}).status_code == 403
    page(act(ada, Instance, "delete_selected", [builtin]))
    assert act(ada, Instance, "delete_selected", [builtin], post="yes").status_code == 403
    entered = {"subject": builtin.pk, "user": stored("rita").pk, "role": "reader"}
    answer = submit(ada, address(InstanceShare, "add"), **entered)
    assert "belongs to the program" in errors(answer)["__all__"][0]


def test_an_instance_in_use_stays(cast: Cast) -> None:
    ada, free = sign_in(), make_instance("alice", "free")
    answer = ada.post(address(alices(), "delete"), {"post": "yes"})
    assert "in use by 1 projects" in accepted(answer)[0]
    answer = act(ada, Instance, "delete_selected", [free, alices()], post="yes")
    assert "in use by 1 projects" in accepted(answer)[0]
    assert Instance.objects.filter(owner__handle="alice").count() == 2
    page(act(ada, Instance, "delete_selected", [free]))
    accepted(act(ada, Instance, "delete_selected", [free], post="yes"))
    assert Instance.objects.filter(owner__handle="alice").count() == 1


def test_dimensions_stay_while_embeddings_have_them(cast: Cast) -> None:
    ada, url = sign_in(), address(alices(), "change")
    accepted(submit(ada, url, dimensions="4"))
    accepted(submit(ada, url, dimensions="3"))
    store.insert(
        cast.project.pk,
        alices().pk,
        text_ids=["one"],
        vectors=vectors(1, 3),
        texts=["text"],
        metadata=[b"{}"],
    )
    refused = errors(submit(ada, url, dimensions="4", description="lost"))
    assert "cannot change: it is in use" in refused["__all__"][0]
    assert (alices().dimensions, alices().description) == (3, "")


def test_instances_are_shared(cast: Cast) -> None:
    ada, url = sign_in(), address(alices(), "change")
    accepted(submit(ada, url, **{"shares-2-0-user": stored("sam").pk}))
    share = InstanceShare.objects.get()
    assert (share.user.handle, share.role) == ("sam", "reader")
    accepted(submit(ada, url, **{"shares-0-role": "editor"}))
    share.refresh_from_db()
    assert share.role == "editor"
    accepted(submit(ada, address(share, "change"), role="reader", user=stored("rita").pk))
    share.refresh_from_db()
    assert (share.user.handle, share.role) == ("sam", "reader")
    accepted(submit(ada, url, **{"shares-0-DELETE": "on"}))
    assert not InstanceShare.objects.exists()
    accepted(submit(ada, url, **{"shares-2-0-user": stored("sam").pk}))
    accepted(act(ada, InstanceShare, "delete_selected", [InstanceShare.objects.get()], post="y"))
    assert not InstanceShare.objects.exists()


# --- Lists ----------------------------------------------------------------------------------------
def test_lists_take_as_many_queries_for_two_rows_as_for_twenty(cast: Cast) -> None:
    ada = sign_in()
    models: list[type[Model]] = [ApiStandard, Definition, DefinitionShare, Instance, InstanceShare]

    def fill(numbers: range) -> None:
        for number in numbers:
            make_user(f"user{number}")
            services.create_standard(
                actor=BOOTSTRAP_ADMIN, handle=f"std{number}", values={"key_method": "none"}
            )
            definition = make_definition(f"user{number}")
            instance = make_instance(f"user{number}")
            DefinitionShare.objects.create(subject=definition, user=stored("sam"))
            InstanceShare.objects.create(subject=instance, user=stored("sam"))

    fill(range(2))
    few = [queries(ada, address(model)) for model in models]
    fill(range(2, 20))
    assert [queries(ada, address(model)) for model in models] == few


def test_forms_take_as_many_queries_for_two_shares_as_for_twenty(cast: Cast) -> None:
    ada, url = sign_in(), address(alices(), "change")

    def share(numbers: range) -> None:
        for number in numbers:
            make_user(f"user{number}")
            InstanceShare.objects.create(subject=alices(), user=stored(f"user{number}"))

    share(range(2))
    few = queries(ada, url)
    share(range(2, 20))
    assert queries(ada, url) == few
