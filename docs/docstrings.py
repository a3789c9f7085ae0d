"""Docstrings as the site shows them: prose as prose, lists of fields as they are written."""

import re

from griffe import Extension

# A name or several before a colon, or a line that is set in.
FIELD = re.compile(r'^([*\w.]+(, [*\w.]+)*:\s|\s+\S)', re.MULTILINE)


def shown(text: str) -> str:
    """The paragraphs, of which those with fields or columns keep their layout."""
    return '\n\n'.join(
        f'```text\n{part}\n```' if FIELD.search(part) else part
        for part in re.split(r'\n\s*\n', text)
    )


class Layout(Extension):
    """Changes each docstring once it is loaded."""

    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = shown(obj.docstring.value)
