"""Computes the cost of calls in US dollars, from the prices of genai-prices by provider, model, kind of token and date.

A price is made linear once (:class:`Rate`) and then applied to millions of calls. Unknown is unknown, never 0.
``events.log`` knows text tokens only, so audio and images are counted at their model's text price.
"""

from __future__ import annotations

import json
import warnings
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from genai_prices import Usage, calc_price
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from openai_lifecycle.records import parse_time

_MILLION: Final = Decimal(1_000_000)
_KEYS: Final = ("input", "cached", "output")
#: ``gen_ai.provider.name`` → the id in genai-prices, where its own lookup fails.
_PROVIDERS: Final[Mapping[str, str]] = {
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "aws.bedrock": "aws",
    "gcp.vertex_ai": "google",
    "gcp.gemini": "google",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "x_ai": "x-ai",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
}
#: What stands before a model's name on the endpoint that speaks OpenAI's API, but not in genai-prices.
_PREFIXES: Final[Mapping[str, str]] = {"gcp.vertex_ai": "google/", "gcp.gemini": "models/"}


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity: it is a key in the hot path
class Rate:
    """Dollars for one token of each kind, and for a call besides its tokens.

    Cached tokens are input tokens that the provider had in its cache, reasoning tokens output tokens that it hides.
    """

    input: Decimal
    cached: Decimal
    output: Decimal
    reasoning: Decimal
    call: Decimal = Decimal(0)

    def cost(
        self,
        input_tokens: int,
        cached_tokens: int,
        output_tokens: int,
        reasoning_tokens: int = 0,
        calls: int = 1,
    ) -> Decimal:
        """Return the price of these; input includes the cached tokens, and output the reasoning tokens."""
        return (
            self.input * (input_tokens - cached_tokens)
            + self.cached * cached_tokens
            + self.output * (output_tokens - reasoning_tokens)
            + self.reasoning * reasoning_tokens
            + self.call * calls
        )


#: Providers whose output tokens lack those of reasoning, which only the total has, or, with Perplexity, not even that.
#: What others have in the total alone may be something else: with Mistral it is audio, which is priced by the minute.
_BESIDE: Final = frozenset({"gcp.gemini", "gcp.vertex_ai", "perplexity", "x_ai"})


def paid_output(
    provider: str, input_tokens: int, output_tokens: int, reasoning_tokens: int, total_tokens: int
) -> int:
    """Return how many output tokens are paid for, those of reasoning included: never less than ``reasoning_tokens``."""
    beside = max(0, total_tokens - input_tokens - output_tokens) if provider in _BESIDE else 0
    return output_tokens + (max(beside, reasoning_tokens) if reasoning_tokens > output_tokens else beside)


class Prices:
    """Rates by provider, model and date; ``overrides`` (see :func:`load`) come first."""

    def __init__(self, overrides: Mapping[str, Rate] | None = None) -> None:
        self._overrides = overrides or {}
        self._found: dict[tuple[str, tuple[str, ...]], tuple[Rate | ModelInfo, ...]] = {}
        self._rates: dict[tuple[int, int], Rate | None] = {}

    def rate(self, provider: str, models: tuple[str, ...], timestamp: str, input_tokens: int) -> Rate | None:
        """Return the rate of a call made at ``timestamp`` (RFC 3339) with ``input_tokens`` input tokens.

        It is that of the first of ``models`` with a price; an override of any of them comes first. Some prices depend
        on the date, some on the hour, some on how much was sent.
        """
        key = (provider, models)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._find(provider, models)
        for price in found:
            rate = self._rate(price, timestamp, input_tokens) if isinstance(price, ModelInfo) else price
            if rate is not None:
                return rate
        return None

    def _find(self, provider: str, models: tuple[str, ...]) -> tuple[Rate | ModelInfo, ...]:
        own = [
            self._overrides[name]
            for model in models
            for name in (f"{provider}/{model}", model)
            if name in self._overrides
        ]
        listed = (_listed(provider, model) for model in models if model)
        return tuple(own) or tuple(price for price in listed if price is not None)

    def _rate(self, model: ModelInfo, timestamp: str, input_tokens: int) -> Rate | None:
        when = parse_time(timestamp)
        if when is None:
            return None
        price = model.get_prices(when)
        tiers = _tiers(price)
        tier = bisect_left(tiers, input_tokens)
        key = (id(price), tier)  # prices live as long as genai-prices' data
        if key not in self._rates:
            self._rates[key] = _linear(price, tiers[tier - 1] + 1 if tier else 1)
        return self._rates[key]


def _listed(provider: str, model: str) -> Rate | ModelInfo | None:
    """Return what genai-prices has for a model: its rate if it is always the same."""
    try:
        found = calc_price(
            Usage(input_tokens=0, output_tokens=0),
            model.removeprefix(_PREFIXES.get(provider, "")),
            provider_id=_PROVIDERS.get(provider, provider),
        ).model
    except (LookupError, ValueError):
        return None
    if isinstance(found.prices, ModelPrice) and not _tiers(found.prices):
        return _linear(found.prices, 1)
    return found


def _tiers(price: ModelPrice) -> list[int]:
    """Return the input token counts above which the price of all tokens changes."""
    tiered = [value for value in vars(price).values() if isinstance(value, TieredPrices)]
    return sorted({tier.start for value in tiered for tier in value.tiers})


def _linear(price: ModelPrice, scale: int) -> Rate | None:
    """Return the price of one token of each kind, queried with ``scale`` input tokens to choose the tier."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            base = price.calc_price(Usage(input_tokens=scale, output_tokens=0))
            cached = price.calc_price(Usage(input_tokens=scale, cache_read_tokens=scale, output_tokens=0))
            output = price.calc_price(Usage(input_tokens=scale, output_tokens=1))
            reasoning = price.calc_price(
                Usage(input_tokens=scale, output_tokens=1, output_reasoning_tokens=1)
            )
    except (ValueError, ArithmeticError):
        return None
    if not any(getattr(price, f"{kind}_mtok", None) is not None for kind in ("input", "output")):
        return None  # priced by the image or the second: the log does not say how many
    return Rate(
        base["input_price"] / scale,
        cached["input_price"] / scale,
        output["output_price"],
        reasoning["output_price"],
        base["total_price"] - base["input_price"],  # what a provider asks for the request
    )


def load(path: str) -> dict[str, Rate]:
    """Return the prices in a file: ``{"MODEL" or "PROVIDER/MODEL": {"input": 0.4, "cached": 0.1, "output": 1.6}}``.

    Prices are US dollars per million tokens. Without ``cached``, cached tokens cost the same as input.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has another form; the message names the key and what is allowed.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), parse_float=Decimal, parse_int=Decimal)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError("it must be one JSON object of model names")
    return {model: _override(model, prices) for model, prices in content.items()}


def _override(model: str, prices: Any) -> Rate:
    allowed = (
        f'{model!r} must be {{"input": …}} and may have "cached" and "output", in dollars per million tokens'
    )
    is_table = isinstance(prices, dict) and {"input"} <= prices.keys() <= set(_KEYS)
    if not is_table or any(isinstance(value, bool) for value in prices.values()):
        raise ValueError(allowed)
    try:
        values = {key: Decimal(value) / _MILLION for key, value in prices.items()}
    except (TypeError, ArithmeticError, ValueError):
        raise ValueError(allowed) from None
    if not all(value.is_finite() and 0 <= value < _MILLION for value in values.values()):
        raise ValueError(f"{allowed}, 0 or more and less than a million for one token")
    output = values.get("output", Decimal(0))
    return Rate(values["input"], values.get("cached", values["input"]), output, output)
