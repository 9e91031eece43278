"""The same as `visdial-lab download`, for those who look here: `python data/download_data.py --split val`."""

import sys

from visdial_lab.cli import main

main(["download", *sys.argv[1:]])
