"""`visdial-lab generate …`: training records and the evaluation set. The other commands are in cli.py."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from visdial_lab.errors import UserError, counted

if TYPE_CHECKING:
    from visdial_lab.config import Config

generate = typer.Typer(help="Make training records or the evaluation set.", no_args_is_help=True)

ConfigOption = Annotated[str, Option(help="A profile's name, or the path of a YAML file.")]
StyleOption = Annotated[
    str | None, Option(help="plain, or reminder: recall the dialog, then answer. Default: the config's.")
]
OutputOption = Annotated[Path, Option(help="The .jsonl file to write.")]
SplitOption = Annotated[str | None, Option(help="Split to read; default: the config's.")]
RoundsOption = Annotated[
    str | None,
    Option(help="all, the first so many, or one learnt answer a record: last, random."),
]


def load_config_with(name: str, options: dict[str, Any]) -> "Config":
    """The profile, with those options laid over it that were given."""
    from visdial_lab.config import load_config

    return load_config(name, {key: value for key, value in options.items() if value is not None})


@generate.command()
def base(
    output_path: OutputOption,
    config: ConfigOption = "scenes",
    split: SplitOption = None,
    sample_count: Annotated[int | None, Option(help="So many records; default: the config's.")] = None,
    rounds: RoundsOption = None,
    seed: Annotated[int | None, Option(help="Of the sample; default: the config's.")] = None,
    stratify: Annotated[
        str | None, Option(help="question-type: as many questions of each type (with --rounds random).")
    ] = None,
    style: StyleOption = None,
) -> None:
    """Turn human dialogs into training records (TRL's conversational format), one a line."""
    from visdial_lab.generation import write_records
    from visdial_lab.visdial import load_dialogs

    options = {
        "generation.sample_count": sample_count,
        "generation.rounds": int(rounds) if rounds is not None and rounds.isdecimal() else rounds,
        "generation.seed": seed,
        "generation.style": style,
    }
    given = load_config_with(config, options)
    how = given.generation.model_dump() | {"stratify": stratify}
    written = write_records(output_path, load_dialogs(given, split), **how)
    print(f"{counted(written, 'record')} in {output_path}")


@generate.command()
def api(
    output_path: OutputOption,
    model: Annotated[str, Option(help="As the server calls it, e.g. gemma3:27b.")],
    base_url: Annotated[
        str, Option(help="An OpenAI-compatible server: Ollama (the default), vLLM, `transformers serve` …")
    ] = "http://localhost:11434/v1",
    config: ConfigOption = "scenes",
    split: SplitOption = None,
    image_dir: Annotated[Path | None, Option(help="Folder of the images; default: beside.")] = None,
    style: Annotated[str, Option(help="reminder: <reminder>…</reminder> answer, or plain.")] = "reminder",
    rounds: Annotated[str, Option(help="Of each dialog: one at random, the last, or all.")] = "random",
    max_samples: Annotated[int | None, Option(min=1, help="So many in all; a later run may add.")] = None,
    seed: Annotated[int, Option(help="Of the order of the dialogs and of the server.")] = 0,
    concurrency: Annotated[int, Option(min=1, help="Requests under way at once.")] = 8,
    temperature: Annotated[float, Option(min=0, help="0 = always the likeliest token.")] = 0.0,
    max_tokens: Annotated[int, Option(min=1, help="Longest reply.")] = 200,
    tries: Annotated[int, Option(min=1, help="Replies to ask for until one can be used.")] = 3,
    retries: Annotated[int, Option(min=0, help="After 429, 5xx, cut connections, timeouts.")] = 6,
    timeout: Annotated[float, Option(min=1, help="Seconds a request may take.")] = 120.0,
    template: Annotated[Path | None, Option(help="A file with instructions of your own.")] = None,
    token_budget: Annotated[int | None, Option(min=1, help="Tokens, for the whole output.")] = None,
    time_budget: Annotated[float | None, Option(min=0, help="Minutes, for this run.")] = None,
    prices: Annotated[
        tuple[float, float] | None,
        Option(metavar="IN OUT", help="Dollars for a million prompt and completion tokens."),
    ] = None,
    skip_bad: Annotated[bool, Option("--skip-bad", help="Set aside dialogs without picture.")] = False,
    retry_rejected: Annotated[bool, Option("--retry-rejected", help="Ask again what was set aside.")] = False,
) -> None:
    """Let a big model write training records; given again, it goes on where it was stopped.

    A key, where the server wants one, comes from OPENAI_API_KEY in the environment. What cannot be used is
    in OUT.rejected.jsonl with the reason; OUT.html shows what came out.
    """
    from visdial_lab.api_client import Server
    from visdial_lab.api_data import Recipe, generate
    from visdial_lab.api_page import write_page
    from visdial_lab.config import load_config
    from visdial_lab.progress import progress, say
    from visdial_lab.visdial import load_dialogs

    recipe = Recipe(model, style, rounds, seed, temperature, max_tokens, tries, template and str(template))
    with progress("asking") as update:
        manifest = generate(
            load_dialogs(load_config(config), split, image_root=image_dir),
            output_path,
            recipe,
            Server(base_url, retries, timeout),
            max_samples,
            concurrency,
            token_budget,
            None if time_budget is None else 60 * time_budget,
            prices,
            skip_bad,
            retry_rejected,
            update,
        )
    page = write_page(output_path)
    written = counted(manifest["records"], "record")
    print(f"{written} in {output_path}, {manifest['rejected']} set aside; page: {page}")
    if manifest["state"] != "complete":
        say(f"{manifest['state']}; the same command goes on")


@generate.command("eval")
def evaluation(
    output_path: Annotated[Path | None, Option(help="The .json file to write.")] = None,
    config: ConfigOption = "scenes",
    split: Annotated[str | None, Option(help="Split to read; default: the config's for evaluation.")] = None,
    dialogs: Annotated[Path | None, Option(help="A dialogs file instead.")] = None,
    dense_file: Annotated[Path | None, Option(help="Its dense annotations.")] = None,
    check: Annotated[Path | None, Option(help="An evaluation set: is it as it was written?")] = None,
) -> None:
    """Write the fixed evaluation set with its content hash: equal hashes, equal evaluation."""
    from visdial_lab.config import load_config
    from visdial_lab.generation import read_evaluation_set, write_evaluation_set
    from visdial_lab.visdial import VisDial, load_dialogs

    if (output_path is None) == (check is None):
        raise UserError("give --output-path to write an evaluation set, or --check to verify one")
    if check is not None:
        found, path = read_evaluation_set(check), check
    else:
        if dialogs is not None:
            chosen = VisDial.load(dialogs, split, dense_file)
        else:
            given = load_config(config)
            chosen = load_dialogs(given, split or given.data.val_split, dense=dense_file)
        found, path = write_evaluation_set(output_path, chosen), output_path
    graded = sum(item["relevance"] is not None for item in found["items"])
    print(f"{counted(len(found['items']), 'question')}, {graded} with relevance, in {path}")
    print(f"content sha256 {found['content_sha256']}")
