#!/usr/bin/env bash
# curl: the headers as they are. GATEWAY_URL is the gateway, OPENAI_API_KEY the key as ever.
set -euo pipefail

curl --fail-with-body --silent --show-error "${GATEWAY_URL:-http://127.0.0.1:10000}/v1/chat/completions" \
  -H 'content-type: application/json' \
  -H "authorization: Bearer $OPENAI_API_KEY" \
  -H 'X-Cost-Department: finance' \
  -H 'X-Cost-Feature: invoice-check' \
  -H 'X-Cost-GL-Account: 6420' \
  -d '{"model": "gpt-4o", "messages": [{"role": "user", "content": "Is invoice 42 plausible?"}]}'
