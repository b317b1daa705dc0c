"""From a client call to a span: patches the client, reads requests and responses, records spans."""
