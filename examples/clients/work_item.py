"""A coding session: every call belongs to the ticket and the pull request that it was made for.

The session comes from where the work is: `JIRA-2341` out of the branch's name, or the pull request's number in CI.
GATEWAY_URL is the gateway, ANTHROPIC_API_KEY the key as ever.
"""

import os
import re

from anthropic import Anthropic

branch = os.environ.get("BRANCH", "feature/JIRA-2341-faster-search")
ticket = re.search(r"[A-Z][A-Z0-9]+-\d+", branch)
pull_request = os.environ.get("PULL_REQUEST", "892")

headers = {
    "X-Cost-Department": "engineering",
    "X-Cost-Feature": "coding-assistant",
    "X-Cost-Session": ticket[0] if ticket else f"pr-{pull_request}",
    "X-Cost-Tag-Pull-Request": f"pr-{pull_request}",
}
client = Anthropic(base_url=os.environ.get("GATEWAY_URL", "http://127.0.0.1:10000"), default_headers=headers)

question = [{"role": "user", "content": "Why does this test fail?"}]
print(client.messages.create(model="claude-sonnet-4-6", max_tokens=1024, messages=question).content[0].text)
# The call that closes the work says so: cost per outcome is the session's cost divided by these.
client.messages.create(
    model="claude-sonnet-4-6", max_tokens=1024, messages=[{"role": "user", "content": "Write the commit message."}],
    extra_headers={"X-Cost-Outcome": "pull-request-merged"},
)
