"""What mkdocs.yml needs beside the pages: those of the root, and links between both.

RESULTS.md, CONTRIBUTING.md and CHANGELOG.md lie in the root, where people and tools look for
them.  The site shows them as pages of its own, and their links lead as they do in the repository.
"""

import pathlib
import posixpath
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent
SHOWN = ('RESULTS.md', 'CONTRIBUTING.md', 'CHANGELOG.md')
LINK = re.compile(r'\]\(([^):#\s]+)(#[^)\s]*)?\)')


def on_files(files, config):
    """The pages of the docs folder, and those of the root."""
    for name in SHOWN:
        files.append(File.generated(config, name, content=(ROOT / name).read_text()))
    return files


def on_page_markdown(markdown, page, **_):
    """The text with its links as the site has them: the folder docs is the site's root."""
    source = page.file.src_uri
    folder = posixpath.dirname(source if source in SHOWN else f'docs/{source}')
    here = posixpath.dirname(source)

    def lead(match):
        path = posixpath.normpath(posixpath.join(folder, match[1]))
        inside = path.removeprefix('docs/')
        if path == inside and path not in SHOWN:
            return match[0]  # to no page of the site, as mkdocs will say
        return f']({posixpath.relpath(inside, here or ".")}{match[2] or ""})'

    return LINK.sub(lead, markdown)
