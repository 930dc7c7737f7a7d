"""The worker of `config.worker` with the tasks of tests; `tests.jobs` starts it.

Arguments: the name of the test's database, seconds between heartbeats, jobs at once, and, if it is
not to be as in real life, seconds between two looks for jobs that nobody tells of.
"""

import os
import sys

import django


def main() -> None:
    """Run it as `config.processes` does."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.conf import settings

    name, heartbeat_s, concurrency, *looks_every_s = sys.argv[1:]
    settings.DATABASES["default"]["NAME"] = name
    settings.WORKER_HEARTBEAT_S = int(heartbeat_s)
    django.setup()
    from procrastinate.contrib.django import app

    import tests.job_tasks  # noqa: F401
    from config import parent, worker

    # Those of the product would come in between.
    app.periodic_registry.periodic_tasks.clear()
    if looks_every_s:
        worker._POLL_S = float(looks_every_s[0])
    parent.die_with(os.getppid())
    worker.run(concurrency=int(concurrency))


if __name__ == "__main__":
    main()
