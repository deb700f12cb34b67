"""Healthcheck of a service that speaks HTTP: `answers.py URL` ends with 0 if the page is there."""

from __future__ import annotations

import sys
from urllib.request import ProxyHandler, build_opener

TIMEOUT_SECONDS = 5.0

if __name__ == "__main__":
    opener = build_opener(ProxyHandler({}))  # a company's proxy knows nothing of this container
    with opener.open(sys.argv[1], timeout=TIMEOUT_SECONDS) as answer:
        sys.exit(answer.status != 200)
