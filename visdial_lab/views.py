"""Views: plain data in, a piece of HTML out. Escaped, without scripts, the same in a notebook and the report.

Styles stand on the elements themselves, and colours are inherited or see-through: light and dark pages both
work, and nothing depends on what else is on the page.
"""

import base64
import html
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from visdial_lab.metrics import exact_match
from visdial_lab.plots import RUN_COLORS
from visdial_lab.visdial import Dialog, Round, thumbnail_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUNS = {  # every row of the table, in its order, with what it means
    "random": "all candidates in random order",
    "answer prior": "the commonest answers first, whatever is asked",
    "question prior": "the commonest answers to questions that begin alike",
    "before": "the base model, not fine-tuned",
    "blind": "fine-tuned, but shown a gray picture",
    "after": "fine-tuned with QLoRA",
    "oracle": "knows what is in the scene, not which wording this person chose",
}
_METRICS = {"mrr": "MRR", "ndcg": "NDCG", "r@1": "R@1", "r@5": "R@5", "r@10": "R@10", "mean": "mean rank"}

_FONT = "font:14px/1.45 system-ui,sans-serif;color:inherit"
_SMALL = "font-size:12px;opacity:.68"
_LINE = "1px solid rgba(128,128,128,.28)"
_TRACK = "position:relative;height:6px;margin-top:4px;border-radius:3px;background:rgba(128,128,128,.2)"


def metric_table(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a run with its metrics, 95 % intervals in small print, bars for MRR and NDCG.

    runs: {name: {"metrics": {key: value}, "intervals": {key: [low, high]}}}; what is missing is left out.
    """
    names = [name for name in RUNS if name in runs] + [name for name in runs if name not in RUNS]
    keys = [key for key in _METRICS if any(key in runs[name]["metrics"] for name in names)]
    cell = f"padding:8px 6px;border-bottom:{_LINE};text-align:right;vertical-align:top"
    head = "".join(f'<th scope="col" style="{cell};{_SMALL}">{_METRICS[key]}</th>' for key in keys)
    rows = []
    for name in names:
        color = RUN_COLORS.get(name, "#9aa3b2")
        weight = "600" if name == "after" else "400"
        label = (
            f'<span style="display:inline-block;width:10px;height:10px;border-radius:5px;background:{color};'
            f'margin-right:8px"></span><b style="font-weight:600">{html.escape(name)}</b>'
            f'<div style="{_SMALL};font-weight:400;max-width:230px">{html.escape(RUNS.get(name, ""))}</div>'
        )
        cells = "".join(f'<td style="{cell}">{_value_html(runs[name], key, color)}</td>' for key in keys)
        rows.append(
            f'<tr style="font-weight:{weight}"><th scope="row" style="{cell};text-align:left;'
            f'font-weight:400;min-width:118px">{label}</th>{cells}</tr>'
        )
    return (
        f'<div style="overflow-x:auto;{_FONT}" tabindex="0" role="region" aria-label="metrics of every run">'
        f'<table style="border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums">'
        f'<thead><tr><th scope="col" style="{cell};{_SMALL};text-align:left">run</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _value_html(run: Mapping[str, Any], key: str, color: str) -> str:
    """One number, its interval below, and for the two main metrics a bar with the interval as a whisker."""
    value = run["metrics"].get(key)
    if value is None:
        return f'<span style="{_SMALL}">—</span>'
    digits = 1 if key == "mean" else 3
    low, high = run.get("intervals", {}).get(key, (value, value))
    text = f"{value:.{digits}f}"
    if f"{low:.{digits}f}" != f"{high:.{digits}f}":
        interval = f"{low:.{digits}f} to {high:.{digits}f}"
        text += f'<div style="{_SMALL};font-weight:400;white-space:nowrap">{interval}</div>'
    if key in ("mrr", "ndcg"):
        whisker = f"top:2px;height:2px;left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"
        text += (
            f'<div style="{_TRACK};min-width:84px" aria-hidden="true">'
            f'<div style="height:6px;border-radius:3px;width:{100 * value:.1f}%;background:{color}"></div>'
            f'<div style="position:absolute;{whisker};background:currentColor;opacity:.75"></div></div>'
        )
    return text


def dialog_card(dialog: Dialog, columns: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    """A dialog with its picture; for each round what the human and each model said, and where the human
    answer ranked.

    columns: {"before": {round_id: {"answer": text, "rank": from 1}}, "after": …}; either may be missing.
    """
    turns = "".join(_round_html(turn, columns) for turn in dialog.rounds)
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:20px;{_FONT}">'
        f'<div style="flex:0 1 300px">{thumbnail_html(dialog, 300)}'
        f'<div style="{_SMALL};margin-top:4px">image {dialog.image_id}</div></div>'
        f'<div style="flex:1 1 330px;min-width:0"><div style="font-weight:600;margin-bottom:4px">'
        f"{html.escape(dialog.caption)}</div>{turns}</div></div>"
    )


def _round_html(turn: Round, columns: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    human = "not published" if turn.answer is None else html.escape(turn.answer)
    said = "".join(
        f'<span style="flex:1 1 150px;min-width:0;overflow-wrap:anywhere"><span style="{_SMALL}">'
        f"{html.escape(name)}</span> {_answer_html(entries[turn.round_id], turn)}</span>"
        for name, entries in columns.items()
        if turn.round_id in entries
    )
    return (
        f'<div style="padding:6px 0;border-top:{_LINE}"><div style="display:flex;flex-wrap:wrap;gap:0 12px">'
        f'<span style="flex:1 1 190px">{html.escape(turn.question)}?</span>'
        f'<span style="font-weight:600;text-align:right">{human}</span></div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:2px 12px;margin-top:2px">{said}</div></div>'
    )


def _answer_html(entry: Mapping[str, Any], turn: Round) -> str:
    """What a model said, ticked when it is what the human said, and the rank of the human answer."""
    parts = []
    if entry.get("answer") is not None:
        right = turn.answer is not None and exact_match(entry["answer"], turn.answer)
        tick = ' <span style="color:#2e9e6b" title="as the human said">✓</span>' if right else ""
        parts.append(f"{html.escape(entry['answer'])}{tick}")
    if entry.get("rank") is not None:
        parts.append(rank_badge(entry["rank"]))
    return " ".join(parts)


def rank_badge(rank: int) -> str:
    """A rank of 100 as a coloured pill: green for 1, then yellow, orange, red; the number says it too."""
    color = next(
        color
        for limit, color in ((1, "46,158,107"), (5, "150,170,40"), (10, "224,142,69"), (10**9, "208,72,72"))
        if rank <= limit
    )
    return (
        f'<span title="rank of the human answer among the candidates" style="display:inline-block;'
        f"padding:0 7px;border-radius:9px;font-size:12px;font-variant-numeric:tabular-nums;"
        f'background:rgba({color},.24);white-space:nowrap">#{rank}</span>'
    )


def token_strip(pairs: Iterable[tuple[str, bool]]) -> str:
    """Tokens one after the other, those that carry loss on a blue ground. pairs: (token, does it?)."""
    blue = "background:rgba(47,111,222,.26);border-bottom:2px solid #2f6fde"
    tokens = []
    for token, supervised in pairs:
        shown = html.escape(token).replace("\n", "↵").replace(" ", "&nbsp;")
        style = blue if supervised else "border-bottom:2px solid transparent;opacity:.62"
        title = "carries loss" if supervised else "read only"
        tokens.append(
            f'<span title="{title}" style="display:inline-block;padding:0 2px;margin:1px;border-radius:3px;'
            f'{style}">{shown}</span>' + ("<br>" if token.endswith("\n") else "")
        )
    return (
        f'<div style="font:13px/1.6 ui-monospace,monospace;color:inherit;overflow-wrap:anywhere">'
        f"{''.join(tokens)}</div>"
    )


def figure_html(figure: "Figure", alt: str) -> str:
    """A figure as a picture inside the page (SVG, so sharp at any size and the same bytes every time)."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "visdial-lab"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    source = f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return f'<img alt="{html.escape(alt)}" src="{source}" style="max-width:100%;height:auto">'
