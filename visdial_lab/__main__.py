"""`python -m visdial_lab` is the same command as `visdial-lab`."""

from visdial_lab.cli import main

if __name__ == "__main__":
    main()
