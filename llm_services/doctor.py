"""Examines the key ring: whether every stored provider key can still be read."""

from collections.abc import Iterator

from common.doctor import Finding, Severity, check
from llm_services import crypto
from llm_services.models import Instance

_NAMED = 5


@check("keys", "Encryption keys")
def keys(thorough: bool) -> Iterator[Finding]:
    """Open every provider key that is stored."""
    unreadable, old = [], 0
    for instance in Instance.objects.exclude(sealed_key=b"").select_related("owner").iterator():
        sealed = bytes(instance.sealed_key)
        try:
            crypto.open_sealed(sealed, instance_id=instance.pk)
        except crypto.CannotOpen:
            unreadable.append(str(instance))
        else:
            old += not crypto.is_sealed_by_newest(sealed)
    if unreadable:
        named = ", ".join(unreadable[:_NAMED]) + (", …" if len(unreadable) > _NAMED else "")
        yield Finding(
            Severity.ERROR,
            f"The provider keys of {len(unreadable)} LLM services cannot be read: {named}.",
            "Add the encryption key that they were stored with to "
            "ARMARIUM_PREVIOUS_ENCRYPTION_KEYS, or give the provider keys again.",
        )
    if old:
        yield Finding(
            Severity.WARNING,
            f"{old} provider keys are still encrypted by a previous encryption key.",
            "Keep it in ARMARIUM_PREVIOUS_ENCRYPTION_KEYS until they are stored anew.",
        )
