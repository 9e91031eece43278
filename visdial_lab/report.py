"""report.html: what a run did, on one page that needs nothing else. Every number is read from the run."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visdial_lab import __version__, plots
from visdial_lab.config import Config, config_to_yaml, load_config
from visdial_lab.errors import UserError
from visdial_lab.files import portable, read_json, resolve, sha256, write_text
from visdial_lab.views import dialog_card, figure_html, metric_table
from visdial_lab.visdial import Dialog, VisDial, thumbnail_html

_NAMES = {"mrr": "MRR", "ndcg": "NDCG"}
_PICTURES = 6  # shown of the training data


def write_report(run: Path) -> Path:
    """Write run/report.html from metrics.json, history.json, the adapter's notes, predictions and answers.

    Raises UserError when one of these is missing or does not hold what the notebooks put there.
    """
    config = load_config(run / "config.yaml")
    metrics = read_json(run / "metrics.json", "metrics file")
    try:
        runs = metrics["runs"]
        before, after = runs["before"]["metrics"], runs["after"]["metrics"]
        reached = before["mrr"], after["mrr"]
    except (KeyError, TypeError):
        raise UserError(
            f"{run / 'metrics.json'}: no results of before and after; run notebook 05 again"
        ) from None
    notes = read_json(run / "adapter" / "lab.json", "adapter's notes")
    history = read_json(run / "history.json", "training history")
    train, val = (
        VisDial.load(config.data.root, split)[:count]
        for split, count in (
            (config.data.train_split, config.data.num_train_dialogs),
            (config.data.val_split, config.data.num_val_dialogs),
        )
    )
    ranks = {name: _ranks(run, name, val) for name in ("before", "after")}
    title = _headline(notes, *reached)
    sections = (
        _header(title, config, runs),
        _data(config, train, val),
        _training(notes, history),
        _results(config, runs, metrics, ranks),
        _gallery(run, config, val, ranks),
        _footer(run, config, notes, metrics),
    )
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    page = _PAGE.format(title=html.escape(title), style=style, body="\n".join(sections))
    write_text(run / "report.html", page)
    return run / "report.html"


def _headline(notes: Mapping[str, Any], before: float, after: float) -> str:
    """ "In 3 minutes on a CPU, MRR rose from 0.31 to 0.64"; it says "fell" when it did."""
    verb = "rose" if after > before else "fell" if after < before else "stayed"
    change = f"{verb} from {before:.2f} to {after:.2f}" if after != before else f"stayed at {after:.2f}"
    machine = {"cpu": "on a CPU", "cuda": "on a GPU"}.get(notes.get("device", ""), "of training")
    return f"In {_duration(notes['seconds'])} {machine}, MRR {change}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _gap_closed(runs: Mapping[str, Any], key: str) -> float | None:
    """How much of the way from the base model to the oracle was gone: 1 = all of it."""
    values = [runs.get(name, {}).get("metrics", {}).get(key) for name in ("before", "after", "oracle")]
    if None in values or values[2] <= values[0]:
        return None
    before, after, oracle = values
    return (after - before) / (oracle - before)


def _header(title: str, config: Config, runs: Mapping[str, Any]) -> str:
    tiles = []
    for key, name in _NAMES.items():
        before, after = (runs[run]["metrics"].get(key) for run in ("before", "after"))
        if before is not None and after is not None:
            closed = _gap_closed(runs, key)
            rest = "" if closed is None else f"{max(0.0, closed):.0%} of the gap to the oracle closed"
            tiles.append((f"{name} before → after", f"{before:.3f} → <b>{after:.3f}</b>", rest))
    if "blind" in runs:
        lost = runs["after"]["metrics"]["mrr"] - runs["blind"]["metrics"]["mrr"]
        tiles.append(("what the picture is worth", f"<b>{lost:+.3f}</b> MRR", "against a gray picture"))
    shown = "".join(
        f'<div class="tile"><div class="small">{name}</div><div class="big">{value}</div>'
        f'<div class="small">{rest}</div></div>'
        for name, value, rest in tiles
    )
    return (
        f'<header><p class="small">VisDial Lab · profile {html.escape(config.name)}</p>'
        f"<h1>{html.escape(title)}</h1>"
        f"<p>A Gemma-3 that can describe pictures ({html.escape(config.model.name)}) was fine-tuned with "
        "QLoRA to hold a conversation about them. Then it had to sort 100 candidate answers a question; "
        "MRR is the mean of 1 / rank of the human one, NDCG credits every right wording.</p>"
        f'<div class="tiles">{shown}</div></header>'
    )


def _data(config: Config, train: VisDial, val: VisDial) -> str:
    counts = "".join(
        f"<tr><th scope='row'>{html.escape(part.split)}</th><td>{len(part):,}</td>"
        f"<td>{sum(len(d.rounds) for d in part):,}</td>"
        f"<td>{len({t.question for d in part for t in d.rounds}):,}</td>"
        f"<td>{len({t.answer for d in part for t in d.rounds}):,}</td></tr>"
        for part in (train, val)
    )
    card_path = resolve(config.data.root) / "card.json"
    card = read_json(card_path, "dataset card") if card_path.is_file() else {}
    if kinds := card.get("question_kinds"):
        ordered = dict(sorted(kinds.items(), key=lambda item: -item[1]))
        figure, alt = plots.counts(ordered, "kinds of questions"), "Bars: share of each kind of question"
    else:
        figure, alt = plots.question_kinds(train), "Bars: the commonest first two words of questions"
    follow = card.get("follow_ups")
    note = f"<p>{follow:.0%} of the questions need the rounds before them.</p>" if follow else ""
    pictures = "".join(
        f"<figure>{thumbnail_html(d, 320)}<figcaption>{html.escape(d.caption)}</figcaption></figure>"
        for d in train[:_PICTURES]
    )
    return (
        '<section aria-labelledby="data"><h2 id="data">The data at a glance</h2><div class="two"><div>'
        '<table class="plain"><thead><tr><th scope="col">split</th><th scope="col">dialogs</th>'
        '<th scope="col">rounds</th><th scope="col">questions</th><th scope="col">answers</th></tr></thead>'
        f"<tbody>{counts}</tbody></table>"
        f'<p class="small">questions and answers: different ones</p>{note}</div>'
        f"{_plot(figure, alt)}</div>"
        f'<div class="pictures">{pictures}</div></section>'
    )


def _plot(figure: Any, alt: str, width: float = 4.7) -> str:
    """A figure drawn narrow (in inches), so that its letters can be read on a phone too."""
    figure.set_size_inches(width, figure.get_size_inches()[1])
    return f'<div class="plot">{figure_html(figure, alt)}</div>'


def _training(notes: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> str:
    losses = [row["loss"] for row in history if "loss" in row]
    if not losses:
        raise UserError("history.json holds no loss; run notebook 03 again")
    settings = notes["config"]
    facts = {
        "training dialogs": f"{notes['records']['count']:,}",
        "steps": f"{notes['steps']:,}",
        "dialogs a step": settings["training"]["per_device_train_batch_size"]
        * settings["training"]["gradient_accumulation_steps"],
        "base weights": "4 bits (NF4), frozen" if settings["model"]["load_in_4bit"] else "frozen",
        "LoRA rank": settings["peft"]["r"],
        "peak learning rate": f"{settings['training']['learning_rate']:g}",
        "time": _duration(notes["seconds"]),
        "loss": f"{losses[0]:.2f} → {losses[-1]:.2f} nats a token",
    }
    rows = "".join(f"<dt>{name}</dt><dd>{html.escape(str(value))}</dd>" for name, value in facts.items())
    alt = f"Loss curve: from {losses[0]:.2f} to {losses[-1]:.2f} in {notes['steps']} steps"
    return (
        '<section aria-labelledby="training"><h2 id="training">Fine-tuning</h2><div class="two">'
        f"<dl>{rows}</dl>"
        f"{_plot(plots.loss_curve(history), alt)}</div></section>"
    )


def _results(
    config: Config, runs: Mapping[str, Any], metrics: Mapping[str, Any], ranks: Mapping[str, Mapping]
) -> str:
    gaps = ""
    for key, name in _NAMES.items():
        closed = _gap_closed(runs, key)
        if closed is not None:
            before, after, oracle = (runs[r]["metrics"][key] for r in ("before", "after", "oracle"))
            gaps += (
                f'<div class="gap"><div><b>{name}</b>: {max(0.0, closed):.0%} of the gap closed</div>'
                f'<div class="track" role="img" aria-label="{closed:.0%} of the way from before to oracle">'
                f'<div style="width:{100 * min(1.0, max(0.0, closed)):.1f}%"></div></div>'
                f'<div class="ends small"><span>before {before:.3f}</span><span>after {after:.3f}</span>'
                f"<span>oracle {oracle:.3f}</span></div></div>"
            )
    apart = [name for key, name in _NAMES.items() if _apart(runs, key)]
    certain = f"The intervals of before and after do not overlap for {' and '.join(apart)}. " if apart else ""
    figure = plots.rank_histogram({name: list(by_round.values()) for name, by_round in ranks.items()})
    firsts = {name: sum(rank == 1 for rank in r.values()) / len(r) for name, r in ranks.items()}
    alt = f"Ranks: first place in {firsts['before']:.0%} of rounds before, {firsts['after']:.0%} after"
    return (
        '<section aria-labelledby="results"><h2 id="results">What it learnt</h2>'
        f"<p>{metrics['n_rounds']:,} rounds ranked, {metrics['n_dense']:,} of them with graded relevance. "
        f"{certain}Small print: {config.evaluation.confidence:.0%} intervals, resampling whole dialogs.</p>"
        f'{metric_table(runs)}<div class="two gaps">{gaps}</div>'
        f"<h3>Where the human answer ranked</h3>{_plot(figure, alt, 5.8)}</section>"
    )


def _apart(runs: Mapping[str, Any], key: str) -> bool:
    """Whether the whole interval of "after" lies above that of "before"."""
    before, after = (runs[name].get("intervals", {}).get(key) for name in ("before", "after"))
    return before is not None and after is not None and after[0] > before[1]


def _ranks(run: Path, name: str, val: VisDial) -> dict[tuple[int, int], int]:
    """{(image_id, round_id): rank that this run gave the human answer}."""
    path = run / f"predictions_{name}.json"
    entries = read_json(path, "predictions file")
    human = {(d.image_id, t.round_id): t.gt_index for d in val for t in d.rounds if t.gt_index is not None}
    try:
        given = {(entry["image_id"], entry["round_id"]): entry["ranks"] for entry in entries}
        return {key: given[key][place] for key, place in human.items()}
    except (KeyError, TypeError, IndexError):
        raise UserError(f"{path} does not fit the val dialogs; run notebook 04 again") from None


def _gallery(run: Path, config: Config, val: VisDial, ranks: Mapping[str, Mapping]) -> str:
    answers = {}
    for name in ranks:
        path = run / f"answers_{name}.json"
        rows = read_json(path, "answers file") if path.is_file() else []
        answers[name] = {(row["image_id"], row["round_id"]): row["answer"] for row in rows}
    cards = "".join(_card(dialog, answers, ranks) for dialog in val[: config.evaluation.examples])
    return (
        '<section aria-labelledby="dialogs"><h2 id="dialogs">Dialogs</h2><p>The human answer stands in bold. '
        "Below it, what the model said before and after fine-tuning (✓ = as the human), and "
        "#, the rank it gave the human answer among the 100.</p>"
        f"{cards}</section>"
    )


def _card(dialog: Dialog, answers: Mapping[str, Mapping], ranks: Mapping[str, Mapping]) -> str:
    columns = {
        name: {
            turn.round_id: {
                "answer": answers[name].get((dialog.image_id, turn.round_id)),
                "rank": ranks[name].get((dialog.image_id, turn.round_id)),
            }
            for turn in dialog.rounds
        }
        for name in ranks
    }
    first = [sum(entry["rank"] == 1 for entry in columns[name].values()) for name in ("before", "after")]
    summary = f"human answer ranked first in {first[0]} → {first[1]} of {len(dialog.rounds)} rounds"
    return (
        f'<details class="dialog" open><summary class="small">{summary}</summary>'
        f"{dialog_card(dialog, columns)}</details>"
    )


def _footer(run: Path, config: Config, notes: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    versions = {"visdial-lab": __version__} | notes["versions"]
    files = {
        name: sha256(run / name)
        for name in ("records.jsonl", "adapter", "predictions_before.json", "predictions_after.json")
        if (run / name).exists()
    } | {f"base model {notes['base_model']}": notes["base_model_sha256"] or "from the hub"}
    listed = "".join(
        f"<dt>{html.escape(name)}</dt><dd><code>{html.escape(value[:16])}</code></dd>"
        for name, value in files.items()
    )
    installed = " · ".join(f"{name} {version}" for name, version in versions.items())
    command = f"visdial-lab pipeline --config {portable(run / 'config.yaml')} --output runs/again"
    return (
        "<footer><h2>How to reproduce this</h2>"
        f"<p>The same configuration on the same machine gives the same metrics (seed "
        f"{config.training.seed}):</p><pre>{html.escape(command)}</pre>"
        f"<details><summary>Configuration</summary><pre>{html.escape(config_to_yaml(config))}</pre></details>"
        f"<details><summary>Versions and fingerprints</summary><p>{html.escape(installed)}</p>"
        f"<p class='small'>sha256, first 16 digits</p><dl>{listed}</dl></details></footer>"
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
