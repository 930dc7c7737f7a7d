"""Which encryption keys this database needs, and how it gets a new one."""

from dataclasses import dataclass, field

from django.db import transaction

from llm_services import crypto
from llm_services.models import EncryptionCheck, Instance

# Rows that one transaction seals anew: an instance is locked for a moment only.
_AT_ONCE = 50


class WrongKeyRing(Exception):
    """The configured encryption keys are not those of this database; the text says what to do."""


@dataclass
class Rotated:
    """What became of the stored provider keys.

    sealed_anew, newest_already: how many. unreadable: the instances whose keys no configured
    encryption key opens.
    """

    sealed_anew: int = 0
    newest_already: int = 0
    unreadable: list[str] = field(default_factory=list)


def check() -> None:
    """Raise WrongKeyRing unless the configured encryption keys are those of this database.

    A database that has none yet takes the configured one. Nothing else is written.
    """
    with transaction.atomic():
        found = EncryptionCheck.objects.first()
        if found is None and not _unopened():
            sealed = crypto.seal_check()
            # Of several processes that start at once, one writes it.
            EncryptionCheck.objects.bulk_create(
                [EncryptionCheck(sealed=sealed)], ignore_conflicts=True
            )
            found = EncryptionCheck.objects.get()
    if found is None or not crypto.opens_check(bytes(found.sealed)):
        count = len(_unopened())
        keys = "1 provider key" if count == 1 else f"{count} provider keys"
        raise WrongKeyRing(
            "The encryption key is not the one that this database was used with"
            f"{'' if found is None else f' (its id is {found})'}; {keys} cannot be read. Put the"
            " former one back: into ARMARIUM_ENCRYPTION_KEY, the file secrets/encryption_key, or"
            " ARMARIUM_PREVIOUS_ENCRYPTION_KEYS beside a new one. If it is lost for good, run"
            " manage.py rotateencryptionkey --erase-unreadable, and have the provider keys entered"
            " again."
        )


def rotate(*, erase_unreadable: bool = False) -> Rotated:
    """Seal every stored provider key under the newest encryption key.

    Some at a time, while the server goes on: run again, it goes on where it was. Afterwards the
    previous encryption keys are not needed any more.

    erase_unreadable: erase keys that no configured encryption key opens, and forget the former
    encryption key. Raises WrongKeyRing where there are such otherwise, after all others are done.
    """
    done = Rotated()
    last = 0
    while (next := _rotate_some(done, last, erase_unreadable)) is not None:
        last = next
    if not erase_unreadable:
        check()
        if done.unreadable:
            raise WrongKeyRing(
                "All other provider keys are sealed under the newest encryption key. No configured"
                f" one opens those of {', '.join(done.unreadable)}: add the former one to"
                " ARMARIUM_PREVIOUS_ENCRYPTION_KEYS, or erase them with --erase-unreadable."
            )
    EncryptionCheck.objects.update_or_create(defaults={"sealed": crypto.seal_check()})
    return done


@transaction.atomic
def _rotate_some(done: Rotated, last: int, erase_unreadable: bool) -> int | None:
    """Do those after one, and add up what became of them; return the last, None after the end."""
    rows = (
        Instance.objects.select_related("owner")
        .filter(pk__gt=last)
        .exclude(sealed_key=b"")
        .order_by("pk")
        .select_for_update(of=("self",))[:_AT_ONCE]
    )
    reached = None
    for instance in rows:
        reached = instance.pk
        sealed = bytes(instance.sealed_key)
        try:
            secret = crypto.open_sealed(sealed, instance_id=instance.pk)
        except crypto.CannotOpen:
            done.unreadable.append(str(instance))
            if erase_unreadable:
                Instance.objects.filter(pk=instance.pk).update(sealed_key=b"")
            continue
        if crypto.is_newest(sealed):
            done.newest_already += 1
            continue
        sealed = crypto.seal(secret, instance_id=instance.pk)
        Instance.objects.filter(pk=instance.pk).update(sealed_key=sealed)
        done.sealed_anew += 1
    return reached


def _unopened() -> list[Instance]:
    return [each for each in Instance.objects.exclude(sealed_key=b"") if not _opens(each)]


def _opens(instance: Instance) -> bool:
    try:
        crypto.open_sealed(bytes(instance.sealed_key), instance_id=instance.pk)
    except crypto.CannotOpen:
        return False
    return True
