"""The commands about models as files."""

from pathlib import Path
from typing import Annotated

from typer import Option

from visdial_lab.progress import say

ModelOption = Annotated[str, Option(help="Folder of a base model or an adapter, or a hub name.")]
AnswerStyleOption = Annotated[
    str | None, Option(help="plain, or reminder: recall, then answer. Default: as the model was trained.")
]


def export(
    model_path: Annotated[Path, Option(help="Folder of an adapter.")],
    output_dir: Annotated[Path, Option(help="Model folder to write.")],
    merged: Annotated[
        bool, Option("--merged", help="One model, the adapter in its weights; there is no other form.")
    ] = True,
) -> None:
    """Merge an adapter into its base model: safetensors, processor, model card, Modelfile for Ollama."""
    from visdial_lab.export import export as write

    missing = write(model_path, output_dir)
    print(f"merged model in {output_dir}")
    for reason in missing:
        say(f"note: not for Ollama: {reason}")
