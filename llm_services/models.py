"""LLM services: API standards, definitions (templates), and instances with an encrypted key."""

import hashlib
from typing import Any

import orjson
from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models.functions import Lower

from accounts.models import Owned, Share
from common.handles import SYSTEM
from llm_services import crypto

# pgvector's own limit for the type `vector`.
MAXIMUM_DIMENSIONS = 16_000
BUILTIN_HANDLE = "builtin"
# What a service's fingerprint follows from.
_IDENTITY = frozenset({"api_standard", "endpoint", "model", "dimensions"})


class KeyMethod(models.TextChoices):
    """How a provider wants to receive the API key."""

    AUTH_BEARER = "auth_bearer", "Authorization: Bearer …"
    AUTH_APIKEY = "auth_apikey", "Authorization: ApiKey …"
    QUERY_PARAM = "query_param", "A query parameter"
    BODY_FORM = "body_form", "A field of the request body"
    CUSTOM_HEADER = "custom_header", "A header of its own"
    NONE = "none", "No key"


class ApiStandard(models.Model):
    """A protocol that providers speak, and where it puts the key."""

    handle = models.CharField(max_length=20, unique=True)
    description = models.TextField(blank=True, default="")
    key_method = models.CharField(max_length=20, choices=KeyMethod.choices)
    key_field = models.CharField(max_length=20, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "API standard"
        ordering = ["handle"]
        constraints = [
            models.UniqueConstraint(Lower("handle"), name="standard_handle_ignoring_case"),
        ]

    def __str__(self) -> str:
        return self.handle


class EmbeddingModel(models.Model):
    """A model that instances have used: where vectors come from, whatever becomes of the instance.

    Vectors of one model can be compared, those of different ones cannot. Rows are never changed.
    """

    # See Service.fingerprint.
    fingerprint = models.BinaryField(max_length=32, unique=True)
    api_standard = models.CharField(max_length=20)
    endpoint = models.CharField(max_length=2000)
    model = models.CharField(max_length=255)
    dimensions = models.PositiveIntegerField()
    first_used_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "embedding model"
        ordering = ["model", "pk"]

    def __str__(self) -> str:
        return f"{self.model} ({self.dimensions} dimensions)"


class Service(Owned):
    """What definitions and instances have in common: where a model is and what it returns."""

    handle = models.CharField(max_length=20)
    endpoint = models.CharField(max_length=2000)
    description = models.TextField(blank=True, default="")
    api_standard = models.ForeignKey(ApiStandard, on_delete=models.PROTECT, related_name="+")
    model = models.CharField(max_length=255)
    dimensions = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    context_limit = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.owner.handle}/{self.handle}"

    def fingerprint(self) -> bytes:
        """Return 32 bytes that say which model this is: services that have the same share vectors.

        It follows from protocol, endpoint, model and dimensions; not from who owns the service.
        """
        model = [self.api_standard.handle, self.endpoint, self.model, self.dimensions]
        return hashlib.sha256(orjson.dumps(model)).digest()


class Definition(Service):
    """A template of a service, without secrets; instances copy its values."""

    is_public = models.BooleanField(default=False)

    class Meta:
        verbose_name = "LLM service definition"
        ordering = ["owner__handle", "handle"]
        constraints = [
            models.UniqueConstraint("owner", Lower("handle"), name="definition_handle_per_owner"),
            models.CheckConstraint(
                condition=models.Q(dimensions__range=(1, MAXIMUM_DIMENSIONS)),
                name="definition_dimensions",
            ),
        ]

    @classmethod
    def readable_with_any_key(cls) -> models.Q:
        """Return the public definitions and the program's own."""
        return models.Q(is_public=True) | models.Q(owner__handle=SYSTEM)


class Instance(Service):
    """A service somebody can use: a definition's values or their own, plus the provider's key."""

    definition = models.ForeignKey(
        Definition, on_delete=models.SET_NULL, null=True, blank=True, related_name="instances"
    )
    # Which model this is, as `save` finds out.
    embedding_model = models.ForeignKey(
        EmbeddingModel, on_delete=models.PROTECT, editable=False, related_name="instances"
    )
    # Only `crypto` makes and reads it; empty means that there is no key.
    sealed_key = models.BinaryField(default=b"", blank=True, editable=False)

    class Meta:
        verbose_name = "LLM service instance"
        ordering = ["owner__handle", "handle"]
        constraints = [
            models.UniqueConstraint("owner", Lower("handle"), name="instance_handle_per_owner"),
            models.CheckConstraint(
                condition=models.Q(dimensions__range=(1, MAXIMUM_DIMENSIONS)),
                name="instance_dimensions",
            ),
        ]

    def save(self, *args: Any, **options: Any) -> None:
        """Store it, with the model that its fields describe."""
        fields = options.get("update_fields")
        if fields is None or not _IDENTITY.isdisjoint(fields):
            self.embedding_model, _ = EmbeddingModel.objects.get_or_create(
                fingerprint=self.fingerprint(),
                defaults={
                    "api_standard": self.api_standard.handle,
                    "endpoint": self.endpoint,
                    "model": self.model,
                    "dimensions": self.dimensions,
                },
            )
            if fields is not None:
                options["update_fields"] = {*fields, "embedding_model"}
        super().save(*args, **options)

    @classmethod
    def readable_with_any_key(cls) -> models.Q:
        """Return the built-in instance, which everybody may use."""
        return models.Q(owner__handle=SYSTEM, handle=BUILTIN_HANDLE)

    @property
    def has_api_key(self) -> bool:
        """Whether a provider key is stored."""
        return bool(self.sealed_key)

    @property
    def is_builtin(self) -> bool:
        """Whether this is the instance that the program brings along."""
        return self.handle == BUILTIN_HANDLE and self.owner.is_system


class DefinitionShare(Share):
    """Lets another account read a definition and make instances from it."""

    subject = models.ForeignKey(Definition, on_delete=models.CASCADE, related_name="shares")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["subject", "user"], name="definition_shared_once"),
        ]


class InstanceShare(Share):
    """Lets another account read an instance's configuration and use it for projects."""

    subject = models.ForeignKey(Instance, on_delete=models.CASCADE, related_name="shares")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["subject", "user"], name="instance_shared_once"),
        ]


class EmbeddedText(models.Model):
    """The vector of a text, kept so that the text is not embedded twice.

    It belongs to the account that owns the LLM service, and goes with it: nobody learns from how
    fast an answer comes what others have embedded. The text itself is not kept.
    """

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    # Of the service, see Service.fingerprint.
    fingerprint = models.BinaryField(max_length=32)
    purpose = models.CharField(max_length=10)
    # SHA-256 of the text in UTF-8.
    text_digest = models.BinaryField(max_length=32)
    # float32, little-endian.
    vector = models.BinaryField()
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "fingerprint", "purpose", "text_digest"], name="text_embedded_once"
            ),
        ]

    def __str__(self) -> str:
        return bytes(self.text_digest).hex()


class EncryptionCheck(models.Model):
    """What tells whether the configured encryption keys are those of this database; one row."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    sealed = models.BinaryField(editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(id=1), name="one_encryption_check")
        ]

    def __str__(self) -> str:
        return crypto.key_id_of(bytes(self.sealed)).hex()
