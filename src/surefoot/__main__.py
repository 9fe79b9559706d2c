"""The program by the name of the package: `python -m surefoot`, as torchrun starts it."""

from surefoot.cli.main import main

if __name__ == "__main__":
    main()
