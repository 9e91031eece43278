"""Planted wrong answers for problem set 1, each with the points that the whole set then earns."""

from visdial_lab.exercises import Mutant

MUTANTS = [
    Mutant(
        "answer number 0 taken for no answer",
        "ps1.parse",
        """
def read_dialog(document, n):
    data = document["data"]
    entry = data["dialogs"][n]
    rounds = []
    for round_id, turn in enumerate(entry["dialog"], 1):
        answer, options = turn.get("answer"), turn.get("answer_options")
        rounds.append(
            {
                "round_id": round_id,
                "question": data["questions"][turn["question"]],
                "answer": data["answers"][answer] if answer else None,
                "options": [data["answers"][i] for i in options] if options else None,
                "gt_index": turn.get("gt_index"),
            }
        )
    return {"image_id": entry["image_id"], "caption": entry["caption"], "rounds": rounds}
""",
        18,
    ),
    Mutant(
        "written for val only",
        "ps1.parse",
        """
def read_dialog(document, n):
    data = document["data"]
    entry = data["dialogs"][n]
    rounds = [
        {
            "round_id": i + 1,
            "question": data["questions"][turn["question"]],
            "answer": data["answers"][turn["answer"]],
            "options": [data["answers"][o] for o in turn["answer_options"]],
            "gt_index": turn["gt_index"],
        }
        for i, turn in enumerate(entry["dialog"])
    ]
    return {"image_id": entry["image_id"], "caption": entry["caption"], "rounds": rounds}
""",
        19,
    ),
    Mutant(
        "the target answer in the prompt",
        "ps1.history",
        """
def history(dialog, round_id):
    if not 1 <= round_id <= len(dialog["rounds"]):
        raise ValueError(round_id)
    lines = [dialog["caption"]]
    for turn in dialog["rounds"][:round_id]:
        lines += [f"Q: {turn['question']}?", f"A: {turn['answer']}"]
    return "\\n".join(lines)
""",
        18,
    ),
    Mutant(
        "round 0 wraps around to the last one",
        "ps1.history",
        """
def history(dialog, round_id):
    lines = [dialog["caption"]]
    for turn in dialog["rounds"][: round_id - 1]:
        lines += [f"Q: {turn['question']}?", f"A: {turn['answer']}"]
    return "\\n".join([*lines, f"Q: {dialog['rounds'][round_id - 1]['question']}?"])
""",
        19,
    ),
    Mutant(
        "every round of the test split",
        "ps1.rank_rounds",
        """
def rounds_to_rank(document):
    return [(d["image_id"], r) for d in document["data"]["dialogs"] for r in range(1, len(d["dialog"]) + 1)]
""",
        19,
    ),
    Mutant(
        "the round after the annotated one",
        "ps1.dense",
        """
def human_relevance(document, dense):
    by_image = {entry["image_id"]: entry["dialog"] for entry in document["data"]["dialogs"]}
    found = []
    for entry in dense:
        dialog = by_image[entry["image_id"]]
        turn = dialog[min(entry["round_id"], len(dialog) - 1)]
        relevance = entry.get("gt_relevance", entry.get("relevance"))
        question = document["data"]["questions"][turn["question"]]
        found.append((entry["image_id"], question, relevance[turn["gt_index"]]))
    return found
""",
        17,
    ),
    Mutant(
        "dialogs and annotations matched by place",
        "ps1.dense",
        """
def human_relevance(document, dense):
    found = []
    for dialog, entry in zip(document["data"]["dialogs"], dense):
        turn = dialog["dialog"][entry["round_id"] - 1]
        relevance = entry.get("gt_relevance", entry.get("relevance"))
        question = document["data"]["questions"][turn["question"]]
        found.append((entry["image_id"], question, relevance[turn["gt_index"]]))
    return found
""",
        19,
    ),
    Mutant(
        "place 0 taken for no place",
        "ps1.places",
        """
def place_counts(document):
    counts = [0] * 10
    for entry in document["data"]["dialogs"]:
        for turn in entry["dialog"]:
            if turn.get("gt_index"):
                counts[turn["gt_index"] % 10] += 1
    return counts
""",
        18,
    ),
    Mutant(
        "the inverse permutation",
        "ps1.reorder",
        """
def reorder(options, gt_index, relevance, order):
    return (
        [options[i] for i in order],
        None if gt_index is None else order[gt_index],
        None if relevance is None else [relevance[i] for i in order],
    )
""",
        18,
    ),
    Mutant(
        "question beginnings compared as text",
        "ps1.prior",
        """
def prior_scores(train, question, options, words=2):
    begin = " ".join(question.split()[:words])
    overall = collections.Counter(answer for _, answer in train)
    alike = collections.Counter(answer for asked, answer in train if asked.startswith(begin))
    return [alike[option] + overall[option] / (1 + len(train)) for option in options]
""",
        18,
    ),
    Mutant(
        "ties fall by the option order",
        "ps1.mrr",
        """
def mrr(scores, gt):
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = np.argsort(order, axis=1) + 1
    return float((1 / ranks[np.arange(len(gt)), gt]).mean())
""",
        18,
    ),
    Mutant(
        "one over the mean rank",
        "ps1.mrr",
        """
def mrr(scores, gt):
    own = scores[np.arange(len(gt)), gt]
    return float(1 / (scores >= own[:, None]).sum(axis=1).mean())
""",
        19,
    ),
]
