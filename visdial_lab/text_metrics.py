"""Generated answers against human ones: exact match, token F1, ROUGE-L, BLEU, BERTScore, relevance; and what
kind of question or answer a text is."""

import collections
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from visdial_lab.errors import UserError, shown
from visdial_lab.submission import matched
from visdial_lab.visdial import Dialog, Round

_YES = r"(yes|yeah|yep|yup|yea|sure|definitely|certainly)\b"
_NO = r"(no|nope|nah|not (really|that|at all|in))\b"
_NUMBER = (
    r"(there (are|is) |i (can )?see |about |around |maybe |at least |just |only )*"
    r"(\d+|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|several)\b"
)
_COLOR = (
    r"\b(red|orange|yellow|green|blue|purple|pink|brown|black|white|gr[ae]y|tan|beige|gold(en)?|silver|blonde?|"
    r"maroon|teal|navy|turquoise|violet|cream)\b"
)
_OPENINGS = {  # type of question → what it begins with
    "count": r"how (many|much)\b",
    "color": r"what(?:'s| is| are)? (?:the )?colou?rs?\b",
    "yes/no": r"(is|are|was|were|does|do|did|can|could|has|have|had|will|would|any|anyone|anything|isn't)\b",
    "where": r"(where|what side|which side)\b",
    "who": r"(who|whose)\b",
    "what": r"(what|which)\b",
    "how, why": r"(how|why)\b",
}


def normalise(text: str) -> list[str]:
    """Words of an answer, made comparable: lower case, no punctuation, no articles ("A dog." → [dog])."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower().replace("'", ""))
    return [word for word in words if word not in ("a", "an", "the")]


def exact_match(answer: str, human: str) -> float:
    """1 when both answers have the same words after `normalise`, else 0."""
    return float(normalise(answer) == normalise(human))


def token_f1(answer: str, human: str) -> float:
    """Overlap of the two answers' words: harmonic mean of precision and recall (as in SQuAD), 0 to 1."""
    got, wanted = normalise(answer), normalise(human)
    if not got or not wanted:
        return float(got == wanted)
    shared = sum((collections.Counter(got) & collections.Counter(wanted)).values())
    return 2 * shared / (len(got) + len(wanted))


def answer_relevance(answer: str, turn: Round) -> float:
    """Relevance of the option that says the same as a generated answer: 0 when none does, NaN when the round
    is not annotated. A right answer in words that no option has counts 0 too: read it as a lower bound."""
    if turn.relevance is None:
        return float("nan")
    said = normalise(answer)
    same = (r for option, r in zip(turn.options, turn.relevance, strict=True) if normalise(option) == said)
    return max(same, default=0.0)


Pair = tuple[tuple[int, int], str, Round]  # (image_id, round_id), the generated answer, its round


def answer_pairs(predictions: list, dialogs: Sequence[Dialog]) -> list[Pair]:
    """Every generated "answer" with its round. Raises UserError: an entry does not fit, or none has one."""
    found = []
    for place, entry, turn in matched(predictions, dialogs):
        if type(entry.get("answer", "")) is not str:
            raise UserError(f"{place}.answer: expected text, got {shown(entry['answer'])}")
        if "answer" in entry and turn.answer is not None:
            found.append(((entry["image_id"], entry["round_id"]), entry["answer"], turn))
    if not found:
        raise UserError("predictions: no generated answer to a round that has a human one")
    return found


def text_values(pairs: Sequence[Pair]) -> dict[str, np.ndarray]:
    """The metrics that are means over answers, name → [answers]; "rouge_l" is rouge-score's F-measure."""
    from rouge_score.rouge_scorer import RougeScorer

    rouge = RougeScorer(["rougeL"])
    columns = {
        "exact_match": [exact_match(answer, turn.answer) for _, answer, turn in pairs],
        "token_f1": [token_f1(answer, turn.answer) for _, answer, turn in pairs],
        "rouge_l": [rouge.score(turn.answer, answer)["rougeL"].fmeasure for _, answer, turn in pairs],
        "answer_relevance": [answer_relevance(answer, turn) for _, answer, turn in pairs],
    }
    return {name: np.array(column) for name, column in columns.items()}


def corpus_bleu(pairs: Sequence[Pair]) -> float:
    """BLEU of all answers together, by sacrebleu, as a fraction; n-grams no longer than the answers."""
    from sacrebleu.metrics import BLEU

    answers, humans = [answer for _, answer, _ in pairs], [turn.answer for _, _, turn in pairs]
    return BLEU(lowercase=True, effective_order=True).corpus_score(answers, [humans]).score / 100


def bert_score(pairs: Sequence[Pair], model: str) -> float:
    """Mean BERTScore F1 (Zhang et al. 2020). Raises UserError when the package bert-score is missing."""
    try:
        import bert_score as package
    except ImportError:
        raise UserError(
            "BERTScore needs a package of its own: pip install 'visdial-lab[bertscore]'"
        ) from None
    from transformers import AutoConfig

    known = model in package.utils.model2layers  # for these the package knows the best layer; else the last
    layers = None if known else AutoConfig.from_pretrained(model).num_hidden_layers
    answers, humans = [answer for _, answer, _ in pairs], [turn.answer for _, _, turn in pairs]
    return float(package.score(answers, humans, model_type=model, num_layers=layers)[2].mean())


def text_metrics(
    predictions: list, dialogs: Sequence[Dialog], bert_model: str | None = None
) -> dict[str, float]:
    """All metrics of generated answers, for lists that need not cover every round or hold any ranks.

    → {"exact_match", "token_f1", "rouge_l", "bleu"} as fractions, "answer_relevance" where a round with an
    answer is annotated, "bert_score" when a `bert_model` is named (a folder or a hub name).
    Raises UserError when an entry does not fit the dialogs, or bert-score is wanted and not installed.
    """
    pairs = answer_pairs(predictions, dialogs)
    columns = text_values(pairs)
    means = {name: float(np.nanmean(own)) for name, own in columns.items() if not np.isnan(own).all()}
    means["bleu"] = corpus_bleu(pairs)
    if bert_model is not None:
        means["bert_score"] = bert_score(pairs, bert_model)
    return means


def polarity(answer: str) -> str | None:
    """ "yes" or "no" when the answer begins with it or a synonym, else None."""
    return "yes" if re.match(_YES, answer) else "no" if re.match(_NO, answer) else None


def answer_type(answer: str) -> str:
    """The kind of a human answer: "yes/no", "number", "color" or "other", by its words."""
    if polarity(answer):
        return "yes/no"
    return "number" if re.match(_NUMBER, answer) else "color" if re.search(_COLOR, answer) else "other"


def question_type(question: str) -> str:
    """The kind of a question by its first words: "yes/no", "count", "color", "where", … or "other"."""
    return next((kind for kind, opening in _OPENINGS.items() if re.match(opening, question)), "other")
