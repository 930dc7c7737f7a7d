"""What the API's description shows: one of each kind, as it is sent and as it comes back."""

from resources.models import DEFAULT_SYSTEM_TEMPLATE

_TIMES = {
    "created_at": "2026-11-25T12:00:00.000000Z",
    "updated_at": "2026-11-25T12:00:00.000000Z",
}

NEW_AGENT = {
    "name": "Support Agent",
    "canonical_name": "support_agent",
    "about": "Helps with invoices",
    "model": "gpt-4o",
    "instructions": ["Be brief.", "Answer in the language of the question."],
    "metadata": {"team": "billing"},
    "default_settings": {"temperature": 0.3},
    "project": "customer_support",
}
AGENT = {
    "id": "0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b11",
    **NEW_AGENT,
    "default_system_template": DEFAULT_SYSTEM_TEMPLATE,
    **_TIMES,
}
NEW_END_USER = {
    "name": "Ann Smith",
    "about": "Asks about invoices",
    "metadata": {"plan": "premium"},
    "project": "customer_support",
}
END_USER = {"id": "0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b12", **NEW_END_USER, **_TIMES}
NEW_FILE = {
    "name": "terms.txt",
    "content": "SGVsbG8h",
    "description": "Terms of service",
    "mime_type": "text/plain",
    "project": "customer_support",
}
FILE = {
    "id": "0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b13",
    **NEW_FILE,
    "size": 6,
    "hash": "334d016f755cd6dc58c53a86e183882f8ec14f52fb05345887c8a5edd42c87b7",
    **_TIMES,
}
