"""Projects as one file: to keep, to move to another server, to hand on.

An archive is a ZIP file:

    manifest.json        the project, its settings, grants and model; checksums; its fingerprint
    embeddings.parquet   as `exportembeddings` writes it
    agents.jsonl         one object a line
    users.jsonl
    files.jsonl          each with the entry that holds its bytes
    files/000001 …       those bytes

No secret is in it: neither keys of providers nor API keys. Archives come from strangers: names of
entries are only looked up, sizes and ratios are bounded before anything is unpacked, and Parquet is
decoded in a process of its own.
"""

from resources.archives._exporting import Exported, export_archive
from resources.archives._importing import Imported, import_archive
from resources.archives._reading import BadArchive

__all__ = ["BadArchive", "Exported", "Imported", "export_archive", "import_archive"]
