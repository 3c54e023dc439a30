"""OpenAI's SDK for Python: who pays is said once on the client, what for on each call.

GATEWAY_URL is the gateway, OPENAI_API_KEY the key as ever.
"""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("GATEWAY_URL", "http://127.0.0.1:10000") + "/v1",
    default_headers={"X-Cost-Department": "support", "X-Cost-Feature": "ticket-summary", "X-Cost-Environment": "production"},
)

answer = client.chat.completions.with_raw_response.create(
    model="gpt-4o",
    messages=[{"role": "user", "content": "Summarise ticket 4711 in one sentence."}],
    extra_headers={"X-Cost-User": "u-2077", "X-Cost-Tag-Customer": "acme"},
)
print(answer.parse().choices[0].message.content)
# Keep the id beside your own data: it finds the call's record.
print("record:", answer.headers.get("x-tollgate-id"))
