"""Anthropic's SDK for Python, streamed: who pays is said once on the client, what for on each call.

GATEWAY_URL is the gateway, ANTHROPIC_API_KEY the key as ever.
"""

import os

from anthropic import Anthropic

client = Anthropic(
    base_url=os.environ.get("GATEWAY_URL", "http://127.0.0.1:10000"),
    default_headers={"X-Cost-Department": "product", "X-Cost-Feature": "code-review"},
)

with client.messages.stream(
    model="claude-sonnet-4-6",
    max_tokens=1024,
    messages=[{"role": "user", "content": "Review this diff: ..."}],
    extra_headers={"X-Cost-User": "u-0815", "X-Cost-Project": "apollo"},
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print()
