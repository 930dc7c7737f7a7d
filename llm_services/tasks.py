"""Background jobs about LLM services."""

from common import jobs
from llm_services import embedding


@jobs.periodic("llm_services.sweep_embedded_texts", cron="23 * * * *")
def sweep_embedded_texts() -> None:
    """Keep the vectors of embedded texts within the space that the settings allow them."""
    embedding.sweep_cache()
