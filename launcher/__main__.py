"""`python -m launcher` is `bevnext-sam2`."""

from launcher.main import main

main()
