"""Accounts, their API keys, and the shapes that everything owned and shared has in common."""

from typing import Any, ClassVar, Self
from uuid import uuid4

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.contrib.sessions.base_session import AbstractBaseSession
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone

from common.handles import CHARACTERS, MAXIMUM_LENGTH, MINIMUM_LENGTH, RULE, SYSTEM
from common.models import uuid7


class Role(models.TextChoices):
    """What a share grants."""

    READER = "reader", "Reader: may read and search"
    EDITOR = "editor", "Editor: may read, search, add, change and delete embeddings"


class UserManager(BaseUserManager["User"]):
    """Finds accounts by handle; makes them for Django's own commands."""

    def create_user(self, handle: str, password: str | None = None, **fields: Any) -> "User":
        """Create an account that can sign in with a password when one is given."""
        user = self.model(handle=handle, **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, handle: str, password: str | None = None, **fields: Any) -> "User":
        """Create an administrator."""
        return self.create_user(handle, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    """An account: whoever owns projects and signs in. Its handle is its login name."""

    handle = models.CharField(
        max_length=MAXIMUM_LENGTH,
        unique=True,
        validators=[RegexValidator(rf"\A{CHARACTERS}{{{MINIMUM_LENGTH},}}\Z", f"Use {RULE}.")],
        help_text=f"The login name and the first part of every address: {RULE}.",
    )
    name = models.CharField(max_length=50, blank=True, default="")
    # NULL rather than "": unique, and most accounts have none.
    email = models.CharField(max_length=100, unique=True, null=True, blank=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(
        default=False, help_text="May sign in to this administration site."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "handle"
    EMAIL_FIELD = "email"

    class Meta:
        ordering = ["handle"]
        constraints = [
            models.UniqueConstraint(Lower("handle"), name="user_handle_ignoring_case"),
            models.CheckConstraint(
                condition=models.Q(handle__regex=rf"^{CHARACTERS}{{{MINIMUM_LENGTH},}}$"),
                name="user_handle_characters",
            ),
        ]

    def __str__(self) -> str:
        return self.handle

    def get_full_name(self) -> str:
        """Return the name, or the handle of somebody without one."""
        return self.name or self.handle

    def get_short_name(self) -> str:
        """Return the handle."""
        return self.handle

    @property
    def is_system(self) -> bool:
        """Whether this is the account that owns what the program brings along."""
        return self.handle == SYSTEM


class ApiKey(models.Model):
    """A key that acts for an account, possibly with less than the account's own rights."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=255, blank=True, default="")
    public_id = models.CharField(max_length=32, unique=True, editable=False)
    digest = models.BinaryField(max_length=32, editable=False)
    role_cap = models.CharField(
        max_length=10,
        choices=Role.choices,
        blank=True,
        default="",
        help_text="Never more than this, whatever the account may do. Empty: no cap.",
    )
    project = models.ForeignKey(
        "projects.Project",
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="api_keys",
        help_text="Only this project. Empty: everything the account reaches.",
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "API key"
        verbose_name_plural = "API keys"
        ordering = ["user", "-created_at"]

    def __str__(self) -> str:
        return f"{self.user_id}:{self.public_id}" + (f" ({self.name})" if self.name else "")

    @property
    def works(self) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (
            self.expires_at is None or self.expires_at > timezone.now()
        )


class Session(AbstractBaseSession):
    """A session in a browser, and what its account is told of it.

    public_id: names it in pages; the session's own key would let in whoever reads it.
    user: the account that signed in; None for a session in which nobody has.
    key: the API key that opened it; None where the password did.
    agent: what the browser says it is.
    """

    # Not unique: a session that gets another key is there twice for a moment.
    public_id = models.UUIDField(default=uuid4, db_index=True, editable=False)
    user = models.ForeignKey(
        User, on_delete=models.CASCADE, null=True, editable=False, related_name="sessions"
    )
    key = models.ForeignKey(
        ApiKey, on_delete=models.CASCADE, null=True, editable=False, related_name="+"
    )
    agent = models.CharField(max_length=200, blank=True, default="", editable=False)
    started_at = models.DateTimeField(default=timezone.now, editable=False)
    last_used_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return str(self.public_id)


class FailedAttempts(models.Model):
    """How often a key that is none was sent from an address, or in place of a certain key.

    subject: `address:` and a network, or `key:` and a key's public id.
    since: when counting began.
    """

    subject = models.CharField(max_length=100, primary_key=True)
    since = models.DateTimeField(db_index=True)
    number = models.PositiveIntegerField()

    class Meta:
        verbose_name_plural = "failed attempts"

    def __str__(self) -> str:
        return f"{self.subject}: {self.number}"


class Owned(models.Model):
    """Something that belongs to exactly one account and may be shared with others."""

    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="%(class)ss")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True

    @classmethod
    def readable_by_anyone(cls) -> models.Q:
        """Return which rows may be read without a key: none, unless the model says otherwise."""
        return models.Q(pk__in=[])

    @classmethod
    def readable_with_any_key(cls) -> models.Q:
        """Return which rows every account may read: none, unless the model says otherwise."""
        return models.Q(pk__in=[])


class Share(models.Model):
    """A grant of a role on an owned thing; concrete shares name the thing ``subject``."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="%(class)ss")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.READER)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.user_id} as {self.role}"

    @classmethod
    def of(cls, subject: models.Model) -> models.QuerySet[Self]:
        """Return the grants on one thing, with the accounts, in the order of their handles."""
        return (
            cls._default_manager.filter(subject=subject)
            .select_related("user")
            .order_by("user__handle")
        )


class Via(models.TextChoices):
    """How whoever changed something had proven who they are."""

    KEY = "key", "API key"
    SESSION = "session", "Session in a browser"
    ADMIN_KEY = "admin_key", "The configured admin key"
    COMMAND = "command", "Command on the server"
    JOB = "job", "Background job"


class AuditEntry(models.Model):
    """That somebody changed who may do what. Written by `audit`, in the transaction of the change.

    Names and numbers instead of references: an entry outlives what it tells of. The database
    refuses to change or delete one (migration 0004).

    actor, actor_id, key_id: who, and the public part of their key; "" and None where no account
    asked.
    as_admin: whether it was done by the rights of administrators, to what is another account's.
    verb: one of `audit.Verb`.
    kind, subject, subject_id: what it was done to, such as "project", "alice/letters", "17".
    owner: the handle of the account that this belongs to.
    project_id: the project whose owners may read the entry.
    details: what else there is to know, such as a role; never a secret.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    at = models.DateTimeField(auto_now_add=True)
    request_id = models.CharField(max_length=40, blank=True, default="")
    via = models.CharField(max_length=10, choices=Via.choices)
    actor = models.CharField(max_length=MAXIMUM_LENGTH, blank=True, default="")
    actor_id = models.BigIntegerField(null=True)
    key_id = models.CharField("key", max_length=32, blank=True, default="")
    as_admin = models.BooleanField("as administrator", default=False)
    verb = models.CharField(max_length=20)
    kind = models.CharField(max_length=30)
    subject = models.CharField(max_length=300)
    subject_id = models.CharField(max_length=40, blank=True, default="")
    owner = models.CharField(max_length=MAXIMUM_LENGTH, blank=True, default="")
    project_id = models.BigIntegerField(null=True)
    details = models.JSONField(default=dict)

    class Meta:
        verbose_name = "audit log entry"
        verbose_name_plural = "audit log"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["project_id", "-id"], name="audit_of_project"),
            models.Index(fields=["actor", "-id"], name="audit_by_actor"),
            models.Index(fields=["at"], name="audit_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.verb} {self.kind} {self.subject}"
