"""Execute notebooks from top to bottom, without Jupyter.

    python examples/notebooks/run.py [NOTEBOOK ...] [--save] [--quick]

Code cells run in one process, with what they print and draw as their outputs. --save writes the
outputs into the notebooks. --quick sets, after the cell tagged "parameters", the small values that
the notebook's metadata name ("quick"), to see that everything runs. Without names: all notebooks
beside this script.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import pathlib
import time

os.environ.setdefault("TQDM_DISABLE", "1")

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt


def execute(notebook, quick=False):
    """Run the code cells of a notebook (a dictionary), and put their outputs in it.

    Raises:
        RuntimeError: from the exception of a cell, naming the cell.
    """
    with plt.rc_context():  # a notebook may set the style of its pictures
        return _execute(notebook, quick)


def _execute(notebook, quick):
    names, number = {"__name__": "__main__"}, 0
    plt.close("all")  # figures that others left open are not the notebook's
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        number += 1
        source, printed = "".join(cell["source"]), io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(source, f"cell {number}", "exec"), names)
        except Exception as error:
            raise RuntimeError(f"Cell {number} failed ({error!r}):\n{source}") from error
        if quick and "parameters" in cell["metadata"].get("tags", []):
            names |= notebook["metadata"]["quick"]
        cell["execution_count"], cell["outputs"] = number, []
        if printed.getvalue():
            text = printed.getvalue().splitlines(keepends=True)
            cell["outputs"].append({"output_type": "stream", "name": "stdout", "text": text})
        for figure in map(plt.figure, plt.get_fignums()):
            image = io.BytesIO()
            figure.savefig(image, format="png", dpi=80)
            png = base64.b64encode(image.getvalue()).decode()
            cell["outputs"].append(
                {"output_type": "display_data", "metadata": {}, "data": {"image/png": png}}
            )
        plt.close("all")
    return notebook


def main():
    here = pathlib.Path(__file__).parent
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", default=sorted(here.glob("*.ipynb")))
    parser.add_argument("--save", action="store_true", help="write the outputs into the notebooks")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    args = parser.parse_args()
    if args.save and args.quick:
        raise SystemExit("--quick makes outputs that nobody should see: save without it.")
    for path in map(pathlib.Path, args.notebooks):
        start = time.perf_counter()
        notebook = execute(json.loads(path.read_text(encoding="utf-8")), args.quick)
        if args.save:
            text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
            path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
