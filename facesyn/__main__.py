"The command `facesyn`, which `python -m facesyn` is too."

import sys


def main() -> None:
    "Runs the command line; Ctrl-C is one line also while it is still being imported"
    try:
        from facesyn.cli import app

        app(prog_name="facesyn")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
