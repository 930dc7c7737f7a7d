"""All settings, grouped. The environment is read through `config.env` only.

Each variable is explained in docs/configuration.md.
"""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import django_stubs_ext
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from config import env
from config.embedded_postgres import EmbeddedPostgres
from config.logs import logging_settings

django_stubs_ext.monkeypatch()

BASE_DIR = env.BASE_DIR
VERSION = "0.1.0"

# --- Where things are kept ------------------------------------------------------------------------
DATA_DIR: Path = env.path("ARMARIUM_DATA_DIR", default=BASE_DIR / "var")

# --- Secrets --------------------------------------------------------------------------------------
SECRET_KEY = env.generated_secret("ARMARIUM_SECRET_KEY", file=DATA_DIR / "secrets" / "secret_key")
# The first key encrypts, the previous ones still decrypt.
ENCRYPTION_KEY = env.generated_secret(
    "ARMARIUM_ENCRYPTION_KEY", "ENCRYPTION_KEY", file=DATA_DIR / "secrets" / "encryption_key"
)
PREVIOUS_ENCRYPTION_KEYS = env.words("ARMARIUM_PREVIOUS_ENCRYPTION_KEYS")
ADMIN_KEY = env.text("ARMARIUM_ADMIN_KEY", "SERVICE_ADMINKEY", "ADMIN_KEY")
MINIMUM_SECRET_LENGTH = 32
for _name, _secret in (
    ("ENCRYPTION_KEY", ENCRYPTION_KEY),
    *(("PREVIOUS_ENCRYPTION_KEYS", _key) for _key in PREVIOUS_ENCRYPTION_KEYS),
):
    if len(_secret) < MINIMUM_SECRET_LENGTH:
        raise ImproperlyConfigured(
            f"ARMARIUM_{_name} needs at least {MINIMUM_SECRET_LENGTH} characters."
        )

# --- Web server -----------------------------------------------------------------------------------
DEBUG = env.flag("ARMARIUM_DEBUG", "SERVICE_DEBUG", default=False)
HOST = env.text("ARMARIUM_HOST", "SERVICE_HOST", default="127.0.0.1")
PORT = env.number("ARMARIUM_PORT", "SERVICE_PORT", default=8880, minimum=1, maximum=65535)
WORKERS = env.number("ARMARIUM_WORKERS", default=2, minimum=1, maximum=256)
THREADS = env.number("ARMARIUM_THREADS", default=4, minimum=1, maximum=256)
ALLOWED_HOSTS = env.words("ARMARIUM_ALLOWED_HOSTS", default="localhost 127.0.0.1 [::1]")
CSRF_TRUSTED_ORIGINS = env.words("ARMARIUM_TRUSTED_ORIGINS")
MAX_BODY_BYTES = env.number("ARMARIUM_MAX_BODY_BYTES", default=50 * 1024**2, minimum=1024)
MAX_BULK_BYTES = env.number("ARMARIUM_MAX_BULK_BYTES", default=1024**3, minimum=1024)
# Writes are refused when less is free where the data is; 0 writes on until the disk is full.
DISK_RESERVE_MB = env.number("ARMARIUM_DISK_RESERVE_MB", default=256)
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
# No address of ours ends in a slash except the admin's, which repairs its own.
APPEND_SLASH = False

# --- Behind TLS (a reverse proxy that ends it) ----------------------------------------------------
BEHIND_TLS = env.flag("ARMARIUM_BEHIND_TLS", default=False)
if BEHIND_TLS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = BEHIND_TLS
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SESSION_ENGINE = "accounts.sessions"
SESSION_COOKIE_SECURE = BEHIND_TLS
CSRF_COOKIE_SECURE = BEHIND_TLS
SECURE_HSTS_SECONDS = 31_536_000 if BEHIND_TLS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = BEHIND_TLS
SECURE_HSTS_PRELOAD = BEHIND_TLS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "form-action": [SELF],
    }
}

# --- Applications ---------------------------------------------------------------------------------
INSTALLED_APPS = [
    "config",
    "console",
    "resources",
    "embeddings",
    "projects",
    "llm_services",
    "accounts",
    "common",
    "procrastinate.contrib.django",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_structlog",
    "django_htmx",
    "axes",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.humanize",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "config.metrics.CountRequests",
    "common.middleware.ContentLength",
    "common.middleware.CrossOrigin",
    "config.request_log.RequestLog",
    "common.middleware.RequestLimits",
    "accounts.guessing.GuessLimit",
    "config.disk.DiskReserve",
    "accounts.authentication.NoteKeyUse",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "common.middleware.ContentSecurityPolicy",
    "common.pages.Sessions",
    "django.middleware.csrf.CsrfViewMiddleware",
    "common.pages.Authentication",
    "common.pages.Messages",
    "common.pages.SignInLimit",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- Database -------------------------------------------------------------------------------------
# Every statement is bounded, so that no request can hold the server: milliseconds.
DATABASE_TIMEOUTS_MS = {
    "statement_timeout": env.number("ARMARIUM_STATEMENT_TIMEOUT_MS", default=30_000),
    "lock_timeout": 5_000,
    "idle_in_transaction_session_timeout": 60_000,
}
_session = {
    **DATABASE_TIMEOUTS_MS,
    # One request is one processor's work; parallel plans and JIT only pay for reports.
    "max_parallel_workers_per_gather": 0,
    "jit": "off",
    # What is prepared (searches) is planned once a connection, not each time: planning takes longer
    # than searching, and where a project's rows are does not depend on the values.
    "plan_cache_mode": "force_generic_plan",
}
_database = env.database()
EMBEDDED_POSTGRES: EmbeddedPostgres | None = None
if _database is None:
    EMBEDDED_POSTGRES = EmbeddedPostgres(DATA_DIR)
    _parameters = EMBEDDED_POSTGRES.connection_parameters()
    _database = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": _parameters.host,
        "PORT": str(_parameters.port),
        "USER": _parameters.user,
        "PASSWORD": _parameters.password,
        "NAME": _parameters.dbname,
    }
_database["CONN_MAX_AGE"] = None
_database["CONN_HEALTH_CHECKS"] = True
_database["OPTIONS"] = {
    "application_name": "armarium",
    "connect_timeout": 5,
    # Only statements that ask for it are prepared. A pooler that hands each transaction to another
    # session needs `?prepare_threshold=` in DATABASE_URL.
    "prepare_threshold": 5,
    "options": " ".join(f"-c {name}={value}" for name, value in _session.items()),
    **_database.get("OPTIONS", {}),
}
# Rows times dimensions up to which a project is searched exactly; about two milliseconds' worth.
INDEX_THRESHOLD = env.number("ARMARIUM_INDEX_THRESHOLD", default=4_000_000, minimum=1_000)
DATABASES: dict[str, dict[str, Any]] = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Models' providers ----------------------------------------------------------------------------
# Servers in private networks, as host:port, that LLM services may have endpoints on.
ALLOWED_PRIVATE_ENDPOINTS = env.words("ARMARIUM_ALLOWED_PRIVATE_ENDPOINTS")
for _server in ALLOWED_PRIVATE_ENDPOINTS:
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s/@:\[\]]+):\d{1,5}", _server):
        raise ImproperlyConfigured(
            "ARMARIUM_ALLOWED_PRIVATE_ENDPOINTS holds servers as host:port, such as"
            f" localhost:11434 or [::1]:8080, not '{_server}'."
        )
# How many texts without vectors a request may hold that waits for them; more become a job.
TEXTS_PER_REQUEST = env.number("ARMARIUM_TEXTS_PER_REQUEST", default=64, minimum=0)
# Vectors of texts are kept, so that no text is embedded twice; 0 keeps none.
EMBEDDING_CACHE_MB = env.number("ARMARIUM_EMBEDDING_CACHE_MB", default=1024)

# --- Background jobs ------------------------------------------------------------------------------
WORKER_CONCURRENCY = env.number("ARMARIUM_WORKER_CONCURRENCY", default=2, minimum=1, maximum=64)
WORKER_HEARTBEAT_S = env.number("ARMARIUM_WORKER_HEARTBEAT_S", default=3, minimum=1, maximum=60)
# A daily job that was missed while the program was off is made up for at the next start.
PROCRASTINATE_PERIODIC_DEFAULTS = {"max_delay": 86_400}

# --- Accounts -------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator",
        "OPTIONS": {"user_attributes": ["handle", "name", "email"]},
    },
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# The first counts failed attempts and lets nobody in; the second looks at passwords.
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
# An address may fail so often with one handle, then not at all for a while; others are let in.
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_USERNAME_FORM_FIELD = "username"
AXES_SENSITIVE_PARAMETERS = ["username", "ip_address", "key", "next"]
AXES_CLIENT_IP_CALLABLE = "config.request_log.client_address"
AXES_LOCKOUT_CALLABLE = "console.errors.locked_out"
# Who came in is in the request log.
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False
AXES_ENABLE_ADMIN = False
# It looks for the middleware by its own name; ours passes the API by.
SILENCED_SYSTEM_CHECKS = ["axes.W002"]
CSRF_FAILURE_VIEW = "console.errors.csrf_failure"
LOGIN_URL = "sign-in"

# --- API ------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.KeyAuthentication"],
    # A route without a word on permissions asks for a key.
    "DEFAULT_PERMISSION_CLASSES": ["accounts.authentication.KeyRequired"],
    "DEFAULT_RENDERER_CLASSES": ["common.wire.JsonRenderer"],
    "DEFAULT_PARSER_CLASSES": ["common.wire.JsonParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "common.wire.AlwaysJson",
    "DEFAULT_SCHEMA_CLASS": "common.schema.Schema",
    "EXCEPTION_HANDLER": "common.problems.answer",
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
    "URL_FORMAT_OVERRIDE": None,
}
# The API refuses to wipe everything unless an administrator of the machine allows it here.
ALLOW_RESET = env.flag("ARMARIUM_ALLOW_RESET", default=False)
_TAGS = {
    "Server": [("Server", "What this is.")],
    "Embeddings API (/v1)": [
        ("Users", "Accounts. Their keys are shown once, when made."),
        ("Projects", "What holds embeddings, and is shared as a whole."),
        ("Embeddings", "Vectors, with their text and metadata."),
        ("Embedding jobs", "Texts that are embedded in the background."),
        ("Similarity search", "By words, by a vector, or by a stored text."),
        ("Search index", "How large projects are searched quickly."),
        ("Re-embedding", "Changing the model of a project."),
        ("Sharing", "Readers, editors, and a new owner for a project."),
        ("LLM services", "The models that make an owner's vectors."),
        ("LLM service definitions", "Templates of LLM services."),
        ("API standards", "Protocols that LLM services speak."),
        ("Administration", "For administrators."),
    ],
    "Projects API": [
        ("Own projects", "The same projects, as the account that owns them groups its work."),
        ("Agents", "What models are told to be. Each is in one project."),
        ("End users", "Who talks to agents; not accounts of this server."),
        ("Files", "Files with their content, each in one project."),
    ],
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Armarium",
    "VERSION": VERSION,
    "DESCRIPTION": (
        "A self-hosted home for embeddings. Owners keep projects; a project holds embeddings "
        "(vector, text, metadata) made by one LLM service instance, is shared with readers and "
        "editors, and is searched by similarity.\n\n"
        "Send `Authorization: Bearer <key>`; public projects can be read and searched without.\n\n"
        "The Projects API (`/projects`, `/agents`, `/users`, `/files`) groups agents, end users "
        "and files by the same projects. It shows what the key's account owns, and has error "
        "bodies of its own."
    ),
    "LICENSE": {"name": "MIT"},
    "TAGS": [
        {"name": name, "description": text} for group in _TAGS.values() for name, text in group
    ],
    # What readers of the document that know groups show above the tags.
    "EXTENSIONS_ROOT": {
        "x-tagGroups": [
            {"name": group, "tags": [name for name, _ in tags]} for group, tags in _TAGS.items()
        ]
    },
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "RoleEnum": "accounts.models.Role",
        "IndexStateEnum": "embeddings.models.IndexState.values",
        "JobStateEnum": "embeddings.models.JobState.values",
    },
    "PREPROCESSING_HOOKS": ["common.schema.without_aliases"],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "common.schema.document_problems",
    ],
}

# --- Language, time, files ------------------------------------------------------------------------
LANGUAGE_CODE = "en"
# Of pages; the API and the administration site speak English.
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.FileSystemFinder",
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
    "common.static_files.BokehFinder",
]
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
# What people upload. Nothing in it is ever served as a file from our own address.
STORAGES = {
    "default": {
        "BACKEND": "resources.storage.DurableFileSystemStorage",
        "OPTIONS": {
            "location": DATA_DIR / "files",
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
    },
    # Files on their way into a project, until their rows are stored.
    "uploads": {
        "BACKEND": "resources.storage.DurableFileSystemStorage",
        "OPTIONS": {
            "location": DATA_DIR / "uploads",
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# --- Logs -----------------------------------------------------------------------------------------
LOG_LEVEL = env.text("ARMARIUM_LOG_LEVEL", default="INFO").upper()
LOG_AS_JSON = env.flag("ARMARIUM_LOG_JSON", default=False)
LOGGING = logging_settings(
    level=LOG_LEVEL,
    as_json=LOG_AS_JSON,
)
