"""What the administration site does not show."""

from django.contrib import admin
from procrastinate.contrib.django.admin import ProcrastinateJobAdmin
from procrastinate.contrib.django.models import ProcrastinateJob

# Its pages have styles in the text, which our Content-Security-Policy forbids; `listjobs` and
# `retryjob` show jobs with the reasons of their failures.
if isinstance(admin.site.get_model_admin(ProcrastinateJob), ProcrastinateJobAdmin):
    admin.site.unregister(ProcrastinateJob)
