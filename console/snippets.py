"""What to paste into a shell or a script to do what a page shows: with real names, so it works."""

import shlex
from dataclasses import dataclass
from urllib.parse import quote

from projects.models import Project


@dataclass(frozen=True)
class Snippet:
    """A piece of code.

    name: for its heading. identifier: of the element that holds it.
    """

    identifier: str
    name: str
    code: str


def search_snippets(server: str, project: Project, text_id: str) -> list[Snippet]:
    """Return how to search for what is like a stored text.

    server: the address of this server, without a slash at its end.
    """
    path = "/".join(
        quote(part, safe="") for part in (project.owner.handle, project.handle, text_id)
    )
    address = f"{server}/v1/similars/{path}"
    key = "" if project.public_read else ' \\\n  -H "Authorization: Bearer $ARMARIUM_KEY"'
    curl = f"curl {shlex.quote(f'{address}?count=5')}{key}"
    headers = "" if project.public_read else _PYTHON_HEADERS
    needs = "" if project.public_read else "import os\n\n"
    python = (
        f"{needs}import requests\n\n"
        f'address = "{address}"\n'
        f'found = requests.get(address, params={{"count": 5}}{headers})\n'
        "found.raise_for_status()\n"
        'for hit in found.json()["results"]:\n'
        '    print(hit["id"], hit["similarity"])\n'
    )
    return [Snippet("curl", "curl", curl), Snippet("python", "Python", python)]


def upload_snippets(server: str, project: Project) -> list[Snippet]:
    """Return how to store a first text, with numbers in place of a model's vector."""
    address = f"{server}/v1/embeddings/{project.owner.handle}/{project.handle}"
    instance = project.instance
    dimensions = instance.dimensions
    python = (
        "import os\n\nimport requests\n\n"
        "# A model makes this; any numbers will do to try it out.\n"
        f"vector = [0.1] * {dimensions}\n"
        f'address = "{address}"\n'
        f'text = {{"text_id": "first", "instance_handle": "{instance}", "vector": vector,\n'
        f'        "vector_dim": {dimensions}, "text": "A first text.", '
        '"metadata": {"author": "Ann"}}\n'
        f'stored = requests.post(address, json={{"embeddings": [text]}}{_PYTHON_HEADERS})\n'
        "print(stored.json())\n"
    )
    vector = f"$(yes 0.1 | head -n {dimensions} | paste -sd, -)"
    curl = (
        f"curl {shlex.quote(address)} \\\n"
        '  -H "Authorization: Bearer $ARMARIUM_KEY" -H "Content-Type: application/json" \\\n'
        f'  -d \'{{"embeddings": [{{"text_id": "first", "instance_handle": "{instance}",\n'
        f'    "vector_dim": {dimensions}, "vector": [\'"{vector}"\'],\n'
        '    "text": "A first text.", "metadata": {"author": "Ann"}}]}\''
    )
    return [Snippet("curl", "curl", curl), Snippet("python", "Python", python)]


_PYTHON_HEADERS = ',\n    headers={"Authorization": f"Bearer {os.environ[\'ARMARIUM_KEY\']}"},\n'
