"""From a call of the client to a span: what is patched, what is read, what is recorded."""
