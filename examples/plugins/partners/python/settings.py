"""The settings of the policy "partners": JSON in, checked values or all mistakes with JSON Pointers out.

It knows nothing of the bindings, so `python3 -m unittest` runs its tests anywhere.
"""

import json

DEFAULT_LIMIT = 100
MAX_LIMIT = 2**32 - 1


class Mistakes(Exception):
    """All mistakes: pairs of JSON Pointer (RFC 6901) and text, those of known keys first."""

    def __init__(self, found: list[tuple[str, str]]):
        super().__init__(found)
        self.found = found


def read(config: str) -> tuple[list[str], int]:
    """The quiet domains as written, and the limit. Raises Mistakes."""
    try:
        settings = json.loads(config)
    except ValueError as error:
        raise Mistakes([("", f"not JSON: {error}")])
    if not isinstance(settings, dict):
        raise Mistakes([("", "must be an object")])
    quiet = settings.get("quiet", [])
    limit = settings.get("limit", DEFAULT_LIMIT)
    mistakes = quiet_mistakes(quiet)
    if not is_positive_integer(limit):
        mistakes.append(("/limit", "must be a positive integer"))
    mistakes += unknown_keys(settings)
    if mistakes:
        raise Mistakes(mistakes)
    return quiet, int(limit)


def quiet_mistakes(domains) -> list[tuple[str, str]]:
    if not isinstance(domains, list):
        return [("/quiet", "must be a list of domains")]
    wrong = [place for place, domain in enumerate(domains) if not isinstance(domain, str)]
    return [(f"/quiet/{place}", "must be a domain") for place in wrong]


def is_positive_integer(value) -> bool:
    """JSON has one kind of numbers: 3.0 is an integer, as in JSON Schema. Python counts True as an int."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 1 <= value <= MAX_LIMIT and value == int(value)


def unknown_keys(settings: dict) -> list[tuple[str, str]]:
    unknown = sorted(settings.keys() - {"quiet", "limit"})
    # RFC 6901 section 3.
    escaped = [key.replace("~", "~0").replace("/", "~1") for key in unknown]
    return [(f"/{key}", "unknown key") for key in escaped]
