"""How pages write numbers and times."""

from datetime import datetime

from django import template
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.utils import formats
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.filter
def similarity(value: float) -> str:
    """Return a cosine with three digits: in columns, they stand below each other."""
    return formats.number_format(value, decimal_pos=3)


@register.filter
def ago(moment: datetime) -> SafeString:
    """Return how long ago something was, with the exact time beside it."""
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>',
        moment.isoformat(),
        formats.date_format(moment, "DATETIME_FORMAT"),
        naturaltime(moment),
    )
