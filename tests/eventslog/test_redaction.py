"""Credentials in any text are replaced; ordinary text stays."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest

from openai_lifecycle.redaction import margin, redact, redact_attributes, redact_start

KEY = "abcDEF1234567890abcDEF12"


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: sk-{KEY}. You can find",
        f"sk-proj-{KEY}-_x",
        "Incorrect API key provided: sk-abc***********wxyz.",
        f"sess-{KEY}",
        "sk-proj-abcDEFghiJKLmnopqrWXYZ",
        "Bearer abcdefghijklmnopqrWXYZ",
        f"rk-{KEY}",
        f"pk-{KEY}",
        f"gsk_{KEY}",
        f"gsk-{KEY}",
        f"xai-{KEY}",
        f"pplx-{KEY}",
        f"sk-ant-api03-{KEY}",
        f"AIza{KEY}",
        f"ghp_{KEY}",
        f"hf_{KEY}",
        f"ek_{KEY}",
        f"whsec_{KEY}",
        f"whsec_+/{KEY}/+{KEY}=",
        f"github_pat_{KEY}",
        f"csk-{KEY}",
        f"nvapi-{KEY}",
        "AKIAIOSFODNN7EXAMPLE",
        "ASIAIOSFODNN7EXAMPLE",
        f"Authorization: Bearer {KEY}",
        f"authorization: bearer {KEY}.{KEY}.x==",
        f"{{'api-key': '{KEY}'}}",
        f'{{"api_key": "{KEY}"}}',
        f"x-api-key: {KEY}",
        f"https://example.com/?api_key={KEY}&x=1",
        f"OpenAI(api_key='{KEY}')",
        f"api_key = '{KEY}'",
        f"apikey={KEY}",
        f'{{apiKey: "{KEY}"}}',
        f"export EXAMPLE_APIKEY={KEY}",
        f"api_key=abcd1234.{KEY}",
        f"api-key: abc.{KEY}",
        f"Authorization: Bearer  {KEY}",
        f'{{"arguments": "{{\\"api_key\\": \\"{KEY}\\"}}"}}',
        f"session-eyJ{KEY}.eyJ{KEY}.{KEY}",
        f"eyJ{KEY}-eyJ0.eyJ{KEY}.{KEY}",
        f"postgresql://user:{KEY}@host/db",
        f"https://{KEY}@git.example.com/x",
    ],
)
def test_credentials_are_replaced(text: str) -> None:
    """No part of a credential that is long enough to be of use stays, and the text around it does."""
    redacted = redact(text)
    assert "[REDACTED]" in redacted
    assert KEY not in redacted
    assert "wxyz" not in redacted.lower()
    assert "IOSFODNN7" not in redacted
    assert redacted.split("[REDACTED]")[0] == text[: len(redacted.split("[REDACTED]")[0])]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The task-based approach: ask-me-anything about risk-management.",
        "Write to jane.doe@example.com or see https://example.com/a@b?x=y.",
        "The API key is missing. Use Bearer auth.",
        "sk-short, rk-1, pk-2, hf_model, 12:30@noon",
        "A pk-lookup-table and rk-cabinet-hinges; ssh://git@example.com/x.git",
        "In week_20250127_and_the_next, seek_everything_else_there.",
        "See task-20250127-08 at https://the.people.who.write.docs@example.com/x.",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    """What is no credential is not touched."""
    assert redact(text) == text


@pytest.mark.parametrize("change", [str.lower, str.upper, str.title, str.swapcase])
@pytest.mark.parametrize(
    "text",
    [
        "api-key: {}",
        "X-Api-Key={}",
        "api_key = {}",
        "apiKey: {}",
        "bearer {}",
        "bearer\t{}",
        "gsk-{}",
        "aiza{}",
    ],
)
def test_case_hides_no_credential(text: str, change: Callable[[str], str]) -> None:
    """A label or prefix is recognised however it is spelt."""
    written = change(text.format("z9q7x5w3v1u8t6s4"))
    assert "q7x5" not in redact(written).lower(), written


def test_no_text_takes_long() -> None:
    """Text made of what nearly is a credential is looked through once: millions of characters, not their square."""
    text = "sk-" * 300_000 + "://a:" * 100_000 + "-eyJ" * 300_000 + "." + "a" * 3_000_000 + "!"
    assert redact(text) == text


@pytest.mark.parametrize("before", ["", f"sk-{KEY} " * 30], ids=["alone", "after others"])
@pytest.mark.parametrize("secret", [f"sk-{KEY * 4}", "my-own-token-42" * 90, f"eyJ{KEY}.{KEY * 90}.{KEY}"])
@pytest.mark.parametrize("cut", [5, 400, 511, 515, 560, 1300])
def test_no_half_of_a_credential_at_a_cut(before: str, secret: str, cut: int) -> None:
    """Wherever a text is cut, in a credential longer than the margin too, only its first characters may show."""
    text = f"{before}{'x' * 2000} {secret} and so on{'.' * 2000}"
    limit = text.index(secret) + cut - 512
    known = ("my-own-token-42" * 90,)
    kept = redact_start(text, limit, margin(known), known)[:limit]
    assert kept
    assert secret[:12] not in kept


def test_known_secrets_are_replaced_wherever_they_stand() -> None:
    """The client's own key goes, whatever its form; a placeholder of a few characters is none."""
    assert (
        redact("the key my-own-token-42 was refused", ["my-own-token-42"]) == "the key [REDACTED] was refused"
    )
    assert redact("an x is an x", ["x"]) == "an x is an x"


def test_credentials_in_attributes_are_replaced() -> None:
    """A credential in any text of an attribute, or of a tuple of texts, goes; other values stay as they are."""
    found = redact_attributes(
        {"a": f"sk-{KEY}", "b": 1, "c": ("x", "my-own-token-42"), "d": True}, ("my-own-token-42",)
    )
    assert found == {"a": "[REDACTED]", "b": 1, "c": ("x", "[REDACTED]"), "d": True}


def test_a_long_text_is_not_kept() -> None:
    """A long attribute, such as a user's id of a megabyte, is gone with the call."""

    class Text(str):
        """A text that can be weakly referenced."""

        __slots__ = ("__weakref__",)

    long = Text("user " * 1000)
    gone = weakref.ref(long)
    assert redact_attributes({"user": long}) == {"user": "user " * 1000}
    del long
    assert gone() is None
