"""OpenTelemetry instrumentation of the OpenAI client."""
