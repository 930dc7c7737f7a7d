"""Makes vectors from texts: one file for every protocol that a model's provider may speak.

`provider_for` is the way in. The protocol is the one that the instance's API standard is named
after; a standard that an administrator has added speaks OpenAI's protocol, as nearly every server
does, with the key where the standard says.
"""

from collections.abc import Callable

from llm_services.models import Service
from llm_services.providers._base import (
    Embedded,
    Misconfigured,
    Provider,
    Purpose,
    TextRefused,
)
from llm_services.providers.builtin import BuiltinProvider
from llm_services.providers.cohere import CohereProvider
from llm_services.providers.gemini import GeminiProvider
from llm_services.providers.ollama import OllamaProvider
from llm_services.providers.openai import OpenAiProvider
from llm_services.providers.voyage import VoyageProvider

__all__ = ["Embedded", "Misconfigured", "Provider", "Purpose", "TextRefused", "provider_for"]

_OVER_HTTP: dict[str, Callable[[Service, str], Provider]] = {
    "cohere": CohereProvider,
    "gemini": GeminiProvider,
    "ollama": OllamaProvider,
    "openai": OpenAiProvider,
    "voyage": VoyageProvider,
}


def provider_for(service: Service, api_key: str) -> Provider:
    """Return what embeds texts with a service's model.

    api_key: the provider's key in plain text, "" for none.
    """
    protocol = service.api_standard.handle
    if protocol == "builtin":
        return BuiltinProvider(service)
    return _OVER_HTTP.get(protocol, OpenAiProvider)(service, api_key)
