"""The viewer's pages and a run's data as one HTML file that asks the network for nothing.

Data lie in it as blocks of gzipped JSON in base64, which hold no markup; the page unpacks what it shows. The file's own
policy allows its one script and its one style by their hashes, and nothing else.
"""

import base64
import gzip
import hashlib
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from lrq.ledger import Ledger
from lrq.ledger import items as items_
from lrq.ledger.runs import Run
from lrq.reports.charts import run_charts
from lrq.reports.item import view_item
from lrq.reports.labels import label_agreement
from lrq.reports.listing import item_figures, item_values
from lrq.reports.run import list_runs, summary
from lrq.reports.run_sample import sample_items
from lrq.view.server import STATIC

MOST_ITEMS = 1_000
MOST_DOCUMENTS = 30_000_000  # characters of the file; of later documents it has the passages that evidence names
_AT_ONCE = 500
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w.]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|const|class) (\w+))", re.MULTILINE)


def write_page(ledger: Ledger, run: Run, path: Path, *, most_items: int = MOST_ITEMS) -> dict[str, int]:
    """Write a run's page to `path`; return how many items it holds and how many the run has."""
    with ledger.read() as tx:
        ids, of = sample_items(tx, run, most_items)
    temporary = path.with_name(f"{path.name}.part")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.writelines(_parts(ledger, run, ids, of))
    temporary.replace(path)
    return {"items": len(ids), "of": of}


def _parts(ledger: Ledger, run: Run, ids: list[int], of: int) -> Iterator[str]:
    script, style = bundle(), (STATIC / "style.css").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{html.escape(run.name)} · lrq</title>\n<link rel="icon" href="data:,">\n<style>{style}</style>\n'
        "</head>\n<body>\n<noscript>This page is drawn by a script of its own: allow it.</noscript>\n"
        '<div id="app"></div>\n'
    )
    yield _block("data", _run_data(ledger, run, ids, of))
    written: set[str] = set()
    room = MOST_DOCUMENTS
    for id_ in ids:
        item = view_item(ledger, id_)
        yield _block(f"item-{id_}", item)
        if item["document"] and item["document"] not in written and room > 0:
            written.add(item["document"])
            with ledger.read() as tx:
                block = _block(f"document-{item['document']}", items_.load_context(tx, item["document"]))
            room -= len(block)
            yield block
    yield f'<script type="module">{script}</script>\n</body>\n</html>\n'


def _run_data(ledger: Ledger, run: Run, ids: list[int], of: int) -> dict[str, Any]:
    return {
        "about": {"who": "", "items": len(ids), "of": of},
        "runs": [entry for entry in list_runs(ledger) if entry["run"] == run.name],
        "run": summary(ledger, run),
        "charts": run_charts(ledger, run),
        "agreement": label_agreement(ledger, run) or {"labels": 0},
        "items": list(_index(ledger, run, ids)),
    }


def _index(ledger: Ledger, run: Run, ids: list[int]) -> Iterator[dict[str, Any]]:
    """Return the items as the list shows them, with all values and reasons, by which the page filters."""
    for start in range(0, len(ids), _AT_ONCE):
        page = ids[start : start + _AT_ONCE]
        with ledger.read() as tx:
            figures = item_figures(tx, run, page)
            values = item_values(tx, page)
        for item in figures:
            its = values.get(item["number"], {"values": {}, "reasons": []})
            yield {**item, **its}


def _block(name: str, value: Any) -> str:
    """Return an inert block of data: base64 has no character that could end it."""
    packed = gzip.compress(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS), 6, mtime=0)
    text = base64.b64encode(packed).decode()
    return f'<script type="application/octet-stream" id="{name}">{text}</script>\n'


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def bundle() -> str:
    """Return all modules as one script: each in a scope of its own, in the order of their imports."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in STATIC.glob("*.js")}
    needs = {name: [match[1] for match in _IMPORT.findall(text)] for name, text in texts.items()}
    ordered: list[str] = []

    def add(name: str) -> None:
        if name not in ordered:
            for needed in needs[name]:
                add(needed)
            ordered.append(name)

    add("app.js")
    return "const modules = {};\n" + "".join(_scoped(name, texts[name]) for name in ordered)


def _scoped(name: str, text: str) -> str:
    body = _IMPORT.sub(r'const {\1} = modules["\2"];\n', text)
    names = ", ".join(match[1] for match in _EXPORT.findall(body))
    plain = _EXPORT.sub(r"\1", body)
    return f'modules["{name}"] = (() => {{\n{plain}\nreturn {{ {names} }};\n}})();\n'
