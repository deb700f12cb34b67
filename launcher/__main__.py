"""`python -m launcher` is `bevnext-sam2`."""

from launcher.main import main

if __name__ == "__main__":  # processes that a command starts import this file, too
    main()
