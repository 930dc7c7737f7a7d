"""How pages write numbers and times."""

from datetime import datetime

from django import template
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.utils import formats
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import ngettext

from console import words

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


@register.filter
def duration(seconds: float) -> str:
    """Return about how long something takes, in the largest unit that fits."""
    if seconds < 90:
        number = max(1, round(seconds))
        return ngettext("%(number)d second", "%(number)d seconds", number) % {"number": number}
    if seconds < 5400:
        number = round(seconds / 60)
        return ngettext("%(number)d minute", "%(number)d minutes", number) % {"number": number}
    number = round(seconds / 3600)
    return ngettext("%(number)d hour", "%(number)d hours", number) % {"number": number}


@register.filter
def word(term: str) -> str:
    """Return how people call a state, an action or a kind of thing."""
    return words.word(term)


@register.filter
def translated(sentence: str) -> str:
    """Return a sentence of domain code in the language of the page, where it has a translation."""
    return words.translated(sentence)


@register.filter
def is_list(value: object) -> bool:
    """Tell whether something is several things."""
    return isinstance(value, list)
