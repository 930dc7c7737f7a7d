"""What the embedded PostgreSQL is told about the machine, once, when its cluster is made."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_MB = 1024**2
_GB = 1024**3

_CONFIGURATION = """\
# Armarium's PostgreSQL settings, chosen when this folder was made on a machine with {memory}MB of
# memory. Written once and never again: change what you like and restart (`manage.py up`).
# Every setting is explained at https://www.postgresql.org/docs/current/runtime-config.html

# An acknowledged write survives a crash. Armarium refuses to start with any of these off.
fsync = on
full_page_writes = on
synchronous_commit = on

# Memory: a fifth for PostgreSQL's own cache; the rest of the machine caches files for it.
shared_buffers = {shared_buffers}MB
effective_cache_size = {effective_cache_size}MB
# Per sort or hash of one query.
work_mem = {work_mem}MB
# One index build. An HNSW graph that does not fit is built many times slower.
maintenance_work_mem = {maintenance_work_mem}MB
autovacuum_work_mem = {autovacuum_work_mem}MB
# Where parallel index builds keep the graph: posix is /dev/shm, which containers make small.
dynamic_shared_memory_type = {dynamic_shared_memory_type}

max_connections = 100

# Write-ahead log: bulk uploads should not force a checkpoint every few seconds.
max_wal_size = {max_wal_size}MB
min_wal_size = {min_wal_size}MB
# Vectors hardly compress, and this build has no lz4: pglz would cost time and win nothing.
wal_compression = off

# Solid-state disks read anywhere at nearly the same cost.
random_page_cost = 1.1
# Compiling a plan costs more than a nearest-neighbour search takes.
jit = off
timezone = 'UTC'

# Logs: a ring of one file per weekday. They hold no statements, parameters or row contents.
# Failed statements may quote values: only the client is told ("log" lies above "error").
logging_collector = on
log_filename = 'postgres-%a.log'
log_rotation_age = 1d
log_rotation_size = 0
log_truncate_on_rotation = on
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
log_min_messages = log
log_min_error_statement = panic
log_error_verbosity = terse
log_statement = none
log_min_duration_statement = -1
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
"""


def configuration(cluster_parent: Path) -> str:
    """Return the settings for this machine, as the text of a configuration file.

    cluster_parent: an existing folder on the disk that will hold the cluster.
    """
    memory = usable_memory()
    maintenance = _between(64 * _MB, memory // 16, 2 * _GB)
    free_disk = shutil.disk_usage(cluster_parent).free
    max_wal = _between(1 * _GB, free_disk // 10, 4 * _GB)
    return _CONFIGURATION.format(
        memory=memory // _MB,
        shared_buffers=_between(128 * _MB, memory // 5, 4 * _GB) // _MB,
        effective_cache_size=max(256 * _MB, memory * 3 // 5) // _MB,
        work_mem=_between(8 * _MB, memory // 400, 64 * _MB) // _MB,
        maintenance_work_mem=maintenance // _MB,
        autovacuum_work_mem=_between(64 * _MB, memory // 64, 512 * _MB) // _MB,
        dynamic_shared_memory_type="posix" if _shared_memory_holds(maintenance) else "sysv",
        max_wal_size=max_wal // _MB,
        min_wal_size=max_wal // 8 // _MB,
    )


def usable_memory() -> int:
    """Return the bytes of memory this process may use: the machine's, or less in a container."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_control_group_limits()])


def _between(lowest: int, wanted: int, highest: int) -> int:
    return max(lowest, min(wanted, highest))


def _shared_memory_holds(size: int) -> bool:
    try:
        return shutil.disk_usage("/dev/shm").total > 2 * size  # noqa: S108
    except OSError:
        return False


def _control_group_limits() -> Iterator[int]:
    """Yield the limits of our control group and its parents, of version 1 and 2."""
    try:
        memberships = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return
    for membership in memberships:
        _, controllers, group = membership.split(":", 2)
        if controllers == "":
            mount, name = Path("/sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        folder = mount / group.lstrip("/")
        for place in (folder, *folder.parents):
            if place.is_relative_to(mount):
                try:
                    limit = (place / name).read_text(encoding="ascii").strip()
                except (OSError, ValueError):
                    continue
                # "max" is no limit; version 1 writes an absurdly large number instead.
                if limit.isdigit() and int(limit) > 0:
                    yield int(limit)
