"""API keys and bearer tokens never leave the process: they are replaced in every text we record."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from openai_lifecycle.texts import encodable

REDACTED: Final = "[REDACTED]"
#: How many characters behind a cut are searched, unless the client's own key is longer; see :func:`margin`.
_MARGIN: Final = 512

# Keys of OpenAI (``sk-…``, also as its 401 message masks them: ``sk-abc***xyz``; ``sess-…``; ``ek_…`` of Realtime;
# ``whsec_…`` of webhooks) and of compatible providers, values after an authorization scheme or a key header, and
# credentials before the host of a URL. Group 1, a key after its prefix, may be ordinary words; group 2, a label, is
# kept (:func:`_replacement`).
_SECRET = re.compile(
    r"""
      \b(?: sk | csk | rk | pk | sess | gsk | xai | pplx )-([\w*.-]{8,})
    | \b(?: ek_ | gsk_ | AIza | ghp_ | github_pat_ | hf_ | nvapi- )[\w-]{16,}
    | \b whsec_[\w+/-]{16,}=*
    | \b(?: AKIA | ASIA )[A-Z0-9]{16}\b
    # A JSON web token, such as Azure AD's, perhaps cut. Of a long run of "-eyJ" only the last counts: all that follows
    # would be searched for each of them.
    | \beyJ(?! [\w-]{0,2048}?-eyJ[\w-]{8} )[\w-]{8,2048}\.[\w-]{8,}(?: \.[\w-]* | \Z)
    | (bearer[ \t]+ | api[_-]?key\\*["']?[ \t]*[:=][ \t]*\\*["']?)[\w.~+/*-]{8,}=*
    | (?<= :// )[^/@\s"':]{0,256}:[^/@\s"']{1,256}(?= @ )
    | (?<= :// )(?= \D{0,19}\d )[^/@\s"':]{20,256}(?= @ )
    """,
    re.VERBOSE | re.IGNORECASE,
)
#: What keys have and words such as ``rk-cabinet-hinges`` do not.
_RANDOM: Final = re.compile(r"[\d*]|\w{16}")
# The pattern has no literal prefix, so it costs some 20 ns a character; a substring search costs almost nothing.
#: Character that many texts lack → hints of a credential that contain it, in lower case; those under "" are always
#: searched.
_HINTS: Final = {
    "-": ("sk-", "rk-", "pk-", "sess-", "xai-", "pplx-", "api-"),  # "gsk-" has "sk-" in it, "nvapi-" "api-"
    "_": ("ek_", "whsec_", "gsk_", "ghp_", "github_pat_", "hf_", "api_key"),
    "": ("aiza", "akia", "asia", "eyj", "bearer", "apikey", "@"),
}


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` with everything that looks like a credential replaced by ``[REDACTED]``.

    Every exporter can encode the result. ``secrets`` are values known to be secret, such as the client's own
    key; they are replaced wherever they occur.
    """
    for secret in secrets:
        if len(secret) >= 8 and secret in text:  # a shorter "key" is a placeholder
            text = text.replace(secret, REDACTED)
    if _may_hold_a_credential(text):
        text = _SECRET.sub(_replacement, text)
    return encodable(text)


def _may_hold_a_credential(text: str) -> bool:
    text = text.lower()
    for mark, hints in _HINTS.items():
        if mark in text:
            for hint in hints:  # a loop, because any() of a generator takes twice as long
                if hint in text:
                    return True
    return False


def redact_start(text: str, length: int, more: int, secrets: tuple[str, ...]) -> str:
    """Return the redacted start of ``text``, of which the caller keeps at most ``length`` characters.

    The next ``more`` characters, the :func:`margin` of ``secrets``, are searched too, so that a credential across the
    cut is found. If the text goes on behind them, the last ``more`` characters of the result are left out. They may
    hold half a credential, and replacements, which are shorter than what they replace, may have moved it to the left.
    """
    shown = redact(text[: length + more], secrets)
    return shown if len(text) <= length + more else shown[:-more]


def margin(secrets: tuple[str, ...]) -> int:
    """Return how many characters behind a cut must be searched, so that no credential is cut in two and missed."""
    return max([_MARGIN, *map(len, secrets)])


def _replacement(match: re.Match[str]) -> str:
    words, label = match.groups(default="")
    return match[0] if words and not _RANDOM.search(words) else label + REDACTED


_cached = lru_cache(maxsize=256)(redact)
#: Characters of a text that may be cached: a longer one does not recur, and would be kept.
_LONGEST_RECURRING: Final = 1024


def redact_recurring(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Return ``text`` redacted; cached, for texts that recur with every call, such as a model's name."""
    return (redact if len(text) > _LONGEST_RECURRING else _cached)(text, secrets)


def redact_attributes(attributes: dict[str, Any], secrets: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return ``attributes`` with every text :func:`redact`-ed, also those in tuples; the same dict if none changes."""
    if _are_fine(attributes.values(), secrets):
        return attributes
    return {name: _redacted(value, secrets) for name, value in attributes.items()}


_NUMBERS: Final = frozenset({bool, int, float})


def _are_fine(values: Iterable[Any], secrets: tuple[str, ...]) -> bool:
    """Whether :func:`redact` would change no text in ``values``, which is the rule: they are searched together."""
    texts: list[str] = []
    for value in values:
        kind = type(value)  # not isinstance(), which takes twice as long where it is False
        if kind is str:
            texts.append(value)
        elif kind is tuple and {*map(type, value)} <= {str}:
            texts += value
        elif kind not in _NUMBERS:
            return False
    together = "\n".join(texts)
    for secret in secrets:
        if secret in together:
            return False
    return encodable(together) == together and not _may_hold_a_credential(together)


def _redacted(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, tuple):
        return tuple(_redacted(one, secrets) for one in value)
    return redact(value, secrets) if isinstance(value, str) else value


# Everything up to the last @ may be a password: SQLAlchemy accepts a slash in it, urlsplit does not.
_URL: Final = re.compile(r"([\w+.-]*:/*)?(.*@)?([^?#]*)", re.DOTALL)


def address(url: str) -> str:
    """Return what is safe to show of a destination's ``url``: scheme, host and path; no path for a webhook.

    Paths of webhooks are secrets, Slack's for example. When a ``?`` precedes an ``@``, the end of the
    password is ambiguous, and only the scheme is kept.
    """
    scheme, user, rest = _URL.findall(url)[0]
    if "?" in user:
        rest = ""
    elif scheme.startswith("webhook+"):
        rest = rest.partition("/")[0]
    return redact(scheme + rest)
