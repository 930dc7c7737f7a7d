"""Backups of the whole server: database, uploaded files, settings."""

from config.backup._fingerprint import server_fingerprint
from config.backup._making import Made, make_backup
from config.backup._manifest import BackupError, Damaged, Kind, Manifest, as_mapping
from config.backup._restoring import Restored, restore_backup, verify_backup

__all__ = [
    "BackupError",
    "Damaged",
    "Kind",
    "Made",
    "Manifest",
    "Restored",
    "as_mapping",
    "make_backup",
    "restore_backup",
    "server_fingerprint",
    "verify_backup",
]
