"""What came out of `generate api`: numbers for plots, and the page beside the records. How the page looks is
in templates/generation.html."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from visdial_lab import plots
from visdial_lab.api_data import manifest_path, rejected_path
from visdial_lab.chat import message_text, split_reminder
from visdial_lab.errors import UserError
from visdial_lab.files import read_json, read_jsonl, resolve, write_text
from visdial_lab.text_metrics import answer_type, question_type
from visdial_lab.views import render
from visdial_lab.visdial import Dialog

_SHOWN = 12  # samples on the page


def read_statistics(output: str | Path) -> dict[str, Any]:
    """Everything that `generate api` left beside its records, counted.

    → {"manifest", "rows", "rejected", "reasons": {reason: count, the commonest first}, "agreement":
    {"exact_match", "token_f1"} as means, "by": {"question" | "human answer" | "round": {label: {"asked",
    "records", "exact_match", "token_f1"}}}, "texts": {"reminder" | "answer" | "human answer": [str]}}.
    "rows" are the records as {"record", "question", "reminder", "answer", "human", "exact"}.
    Raises UserError when the manifest or the records are missing.
    """
    output = Path(output)
    manifest = read_json(manifest_path(output), "manifest")
    rows = [_row(record) for record in read_jsonl(output, "records file")]
    rejected = read_jsonl(rejected_path(output), "rejected samples")
    texts: dict[str, list[str]] = {"reminder": [row["reminder"] for row in rows if row["reminder"]]}
    texts |= {"answer": [row["answer"] for row in rows], "human answer": [row["human"] for row in rows]}
    return {
        "manifest": manifest,
        "rows": rows,
        "rejected": rejected,
        "reasons": dict(Counter(reason_kind(one["reason"]) for one in rejected).most_common()),
        "agreement": _agreement(rows),
        "by": {
            "question": _parts(rows, rejected, lambda one: question_type(one["question"])),
            "human answer": _parts(rows, [], lambda row: answer_type(row["human"])),
            "round": _parts(rows, rejected, lambda one: one["round_id"]),
        },
        "texts": {name: own for name, own in texts.items() if own},
    }


def reason_kind(reason: str) -> str:
    """A reason without its particulars: "the answer is too long: 31 words" → "the answer is too long"."""
    return re.split(r"[:;]|, found", reason)[0]


def write_page(output: str | Path) -> Path:
    """Write the statistics of OUT.jsonl as OUT.html, with some samples and pictures; return its path."""
    output = Path(output)
    found = read_statistics(output)
    rows, rejected = found["rows"], found["rejected"]
    figures = {}
    if found["texts"]:
        figures["lengths"] = plots.word_counts(found["texts"])
    if found["reasons"]:
        figures["reasons"] = plots.counts(found["reasons"])
    some = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, _SHOWN, dtype=int))] if rows else []
    page = found | {
        "title": f"Answers by {found['manifest']['recipe']['model']}",
        "figures": figures,
        "tries": Counter(row["record"]["attempts"] for row in rows),
        "samples": [(row, _picture(row["record"])) for row in some],
        "aside": [(one, one["replies"][-1] if one["replies"] else None) for one in rejected[:_SHOWN]],
    }
    path = output.with_suffix(".html")
    write_text(path, render("generation.html", **page))
    return path


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    try:
        asked, said = map(message_text, record["messages"][-2:])
        reminder, answer = split_reminder(said)
        exact = record["agreement"]["exact_match"] == 1
        about = {"record": record, "round_id": record["round_id"], "question": asked.splitlines()[-1]}
        return about | {
            "reminder": reminder,
            "answer": answer,
            "human": record["human_answer"],
            "exact": exact,
        }
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"record {record.get('id')}: not as `generate api` writes it ({error!r})") from None


def _agreement(rows: list[dict]) -> dict[str, float]:
    """Mean agreement with the human answers; empty without rows."""
    kinds = ("exact_match", "token_f1") if rows else ()
    return {kind: float(np.mean([row["record"]["agreement"][kind] for row in rows])) for kind in kinds}


def _parts(rows: list[dict], rejected: list[dict], label: Any) -> dict[Any, dict[str, Any]]:
    """Samples by a label: how many were asked, how many became records, how these agree."""
    asked = Counter(map(label, [*rows, *rejected]))
    own = defaultdict(list)
    for row in rows:
        own[label(row)].append(row)
    order = (
        sorted(asked) if all(isinstance(key, int) for key in asked) else [k for k, _ in asked.most_common()]
    )
    return {key: {"asked": asked[key], "records": len(own[key])} | _agreement(own[key]) for key in order}


def _picture(record: Mapping[str, Any]) -> Dialog:
    """The record's picture with its caption, as the views take it."""
    caption = message_text(record["messages"][0]).splitlines()[0]
    path = None if record["image"] is None else resolve(record["image"])
    return Dialog(record["image_id"], caption, (), path, record["source"])
