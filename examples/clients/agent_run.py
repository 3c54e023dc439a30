"""An agent that hands over to another: one run id per execution, and the parent's in every child, make a tree of costs.

    planner (run P)
    ├── its own calls
    └── researcher (run R, parent P), working for the MCP server web-search

GATEWAY_URL is the gateway, OPENAI_API_KEY the key as ever.
"""

import os
import uuid

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("GATEWAY_URL", "http://127.0.0.1:10000") + "/v1",
    default_headers={"X-Cost-Department": "sales", "X-Cost-Feature": "lead-research"},
)


class Run:
    """One execution of an agent; `child` starts another under it."""

    def __init__(self, workload: str, parent: "Run | None" = None, **headers: str) -> None:
        self.id = uuid.uuid4().hex
        self.headers = {"X-Cost-Run-ID": self.id, "X-Cost-Workload": workload, **headers}
        if parent is not None:
            self.headers |= {"X-Cost-Parent-Run-ID": parent.id, "X-Cost-Agent-Handoff": "true"}

    def ask(self, question: str) -> str:
        answer = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": question}], extra_headers=self.headers
        )
        return answer.choices[0].message.content or ""

    def child(self, workload: str, **headers: str) -> "Run":
        return Run(workload, self, **headers)


# The planner writes to the CRM, so it has to stop hard when the money is gone; the researcher only reads.
planner = Run("agentic-write")
planner.ask("Which leads are worth a call?")
researcher = planner.child("agentic-read", **{"X-Cost-MCP-Server": "web-search"})
researcher.ask("What does acme sell?")
planner.ask("Write the call sheet.")
print(f"planner {planner.id}, researcher {researcher.id}")
