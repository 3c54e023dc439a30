"""LangChain: headers for all calls of a model, and more of them where a chain or an agent binds it.

GATEWAY_URL is the gateway, OPENAI_API_KEY the key as ever.
"""

import os

from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    model="gpt-4o",
    base_url=os.environ.get("GATEWAY_URL", "http://127.0.0.1:10000") + "/v1",
    default_headers={"X-Cost-Department": "sales", "X-Cost-Feature": "lead-research"},
)

# A new run for each execution: a budget on run_id stops one that has run away and no other.
run = model.bind(extra_headers={"X-Cost-Run-ID": os.urandom(8).hex(), "X-Cost-Workload": "agentic-read"})
print(run.invoke("Who are the customers of acme?").content)
