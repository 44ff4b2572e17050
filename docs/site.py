"""A hook of mkdocs: files that lie outside docs/ become pages, and links between them lead to the pages."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
}
_SOURCE = re.compile(r"""(\b(?:src|srcset))="docs/([^"]+)\"""")  # of a picture on a page from outside docs/
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from files outside docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between files of the repository into links between pages; what is no page is named without a link."""
    path = page.file.src_uri
    source = ROOT / next((name for name, made in PAGES.items() if made == path), f"docs/{path}")
    up = "../" * path.count("/")

    def rewrite(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        file = (source.parent / target).resolve()
        name = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else ""
        if name in PAGES:
            return f"{image}[{text}]({up}{PAGES[name]}{anchor or ''})"
        if name.startswith("docs/") and file.is_file():
            return f"{image}[{text}]({up}{name.removeprefix('docs/')}{anchor or ''})"
        if file.exists():
            return text
        return match[0]  # it leads nowhere, which the build says

    return _SOURCE.sub(rf'\1="{up}\2"', _LINK.sub(rewrite, markdown))
