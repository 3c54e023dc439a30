"""What the end-to-end tests and the demo share: a replay provider, a record sink, and an Envoy between them."""
