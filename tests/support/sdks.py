"""One call by each provider's official SDK, and what the SDK made of the answer.

Every function calls `base` (the gateway, or the replay provider itself) and returns text and tokens as its SDK
understood them. Input and output are added up by the provider's own rules: what the SDK's documentation says is
outside `input_tokens` is added here, so that they can be compared with a record.
"""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import boto3
import botocore.config
import openai
from google import genai
from google.auth.credentials import AnonymousCredentials
from google.genai import types

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
BLOCKS: list[Any] = [{"role": "user", "content": [{"text": "hello"}]}]
HAIKU = "eu.anthropic.claude-haiku-4-5-20251001-v1:0"
VERTEX_CLAUDE = "claude-sonnet-4-5@20250929"
NO_RETRIES = {"max_attempts": 0}
Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Heard:
    """What an SDK understood; a count is None where it reported none."""

    text: str
    input: int | None = None
    output: int | None = None


Call = Callable[[str, Headers], Heard]


@dataclass(frozen=True, slots=True)
class SdkCall:
    """A call, the fixture that answers it, and the text that is in it."""

    name: str
    fixture: str
    text: str
    call: Call


CALLS: list[SdkCall] = []
TIDE = "Low tide at six, flood at noon — café open."
BOOTS = "Low tide is at six, high tide at noon — bring boots 🥾."
COAT = "The quay opens at seven. Bring the blue ticket and a warm coat — café tables stand in the wind."
FERRY = "The ferry leaves at nine."


def answered_by(fixture: str, text: str = "") -> Callable[[Call], Call]:
    """Adds a function to `CALLS`."""

    def add(call: Call) -> Call:
        CALLS.append(SdkCall(call.__name__, fixture, text, call))
        return call

    return add


# OpenAI


@contextmanager
def openai_client(base: str, headers: Headers) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{base}/v1", api_key="sk-test", max_retries=0, default_headers=headers) as client:
        yield client


def speech() -> tuple[str, bytes]:
    """A tenth of a second of silence as an upload."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    return "speech.wav", file.getvalue()


@answered_by(
    "openai-chat-json-cached-reasoning.json",
    "Three of the 48 invoices don’t match their purchase order: №1127, №1163 and №1170.",
)
def openai_chat(base: str, headers: Headers) -> Heard:
    with openai_client(base, headers) as client:
        reply = client.chat.completions.create(model="gpt-5", messages=HELLO)
    return Heard(reply.choices[0].message.content, reply.usage.prompt_tokens, reply.usage.completion_tokens)


@answered_by("openai-chat-sse-usage-reasoning.sse", "Yes, 7,919 is prime.")
def openai_chat_stream(base: str, headers: Headers) -> Heard:
    with openai_client(base, headers) as client:
        usage: Any = {"include_usage": True}
        stream = client.chat.completions.create(model="gpt-5", messages=HELLO, stream=True, stream_options=usage)
        chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    return Heard(text, chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens)


@answered_by("openai-responses-json.json", COAT)
def openai_responses(base: str, headers: Headers) -> Heard:
    with openai_client(base, headers) as client:
        reply = client.responses.create(model="gpt-5", input="hello")
    return Heard(reply.output_text, reply.usage.input_tokens, reply.usage.output_tokens)


@answered_by("openai-responses-sse.sse", COAT)
def openai_responses_stream(base: str, headers: Headers) -> Heard:
    with openai_client(base, headers) as client, client.responses.stream(model="gpt-5", input="hello") as stream:
        reply = stream.get_final_response()
    return Heard(reply.output_text, reply.usage.input_tokens, reply.usage.output_tokens)


@answered_by("openai-responses-compact.json")
def openai_responses_compact(base: str, headers: Headers) -> Heard:
    with openai_client(base, headers) as client:
        usage = client.responses.compact(model="gpt-5", input="hello").usage
    return Heard("", usage.input_tokens, usage.output_tokens)


@answered_by("openai-completions-json.json", " and the harbour slept on.")
def openai_completions(base: str, headers: Headers) -> Heard:
    with openai_client(base, headers) as client:
        reply = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="hello")
    return Heard(reply.choices[0].text, reply.usage.prompt_tokens, reply.usage.completion_tokens)


@answered_by("openai-completions-sse.sse", " and the harbour slept on.")
def openai_completions_stream(base: str, headers: Headers) -> Heard:
    with openai_client(base, headers) as client:
        usage: Any = {"include_usage": True}
        chunks = list(client.completions.create(model="babbage-002", prompt="hello", stream=True, stream_options=usage))
    text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    return Heard(text, chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens)


@answered_by("openai-embeddings.json", "384")
def openai_embeddings(base: str, headers: Headers) -> Heard:
    with openai_client(base, headers) as client:
        reply = client.embeddings.create(model="text-embedding-3-small", input="hello")
    return Heard(str(len(reply.data[0].embedding)), reply.usage.prompt_tokens)


@answered_by("openai-images-generate.json", "iVBORw0KGgo")
def openai_images(base: str, headers: Headers) -> Heard:
    with openai_client(base, headers) as client:
        reply = client.images.generate(model="gpt-image-1", prompt="hello")
    return Heard(reply.data[0].b64_json[:11], reply.usage.input_tokens, reply.usage.output_tokens)


@answered_by("openai-transcription-duration.json", FERRY)
def openai_transcription_seconds(base: str, headers: Headers) -> Heard:
    with openai_client(base, headers) as client:
        return Heard(client.audio.transcriptions.create(model="whisper-1", file=speech()).text)


@answered_by("openai-transcription-tokens.json", "The ferry leaves at nine, and the tide with it.")
def openai_transcription_tokens(base: str, headers: Headers) -> Heard:
    with openai_client(base, headers) as client:
        reply: Any = client.audio.transcriptions.create(model="gpt-4o-transcribe", file=speech())
    return Heard(reply.text, reply.usage.input_tokens, reply.usage.output_tokens)


@answered_by("openai-transcription-sse-crlf.sse", FERRY)
def openai_transcription_stream(base: str, headers: Headers) -> Heard:
    with openai_client(base, headers) as client:
        stream = client.audio.transcriptions.create(model="gpt-4o-mini-transcribe", file=speech(), stream=True)
        events: list[Any] = list(stream)
    text = "".join(event.delta for event in events[:-1])
    return Heard(text, events[-1].usage.input_tokens, events[-1].usage.output_tokens)


@answered_by("openai-speech.mp3", "ID3")
def openai_speech(base: str, headers: Headers) -> Heard:
    with openai_client(base, headers) as client:
        said = "Größe, café — hello, harbour 🌊"
        reply = client.audio.speech.create(model="tts-1", voice="alloy", input=said)
    return Heard(reply.content[:3].decode())


@answered_by("openai-moderations.json", "False")
def openai_moderations(base: str, headers: Headers) -> Heard:
    with openai_client(base, headers) as client:
        return Heard(str(client.moderations.create(model="omni-moderation-latest", input="hello").results[0].flagged))


@answered_by("azure-deployment-chat.json", "The tide turns at noon.")
def azure_chat(base: str, headers: Headers) -> Heard:
    options: Any = {"api_key": "test", "api_version": "2024-10-21", "max_retries": 0, "default_headers": headers}
    with openai.AzureOpenAI(azure_endpoint=base, **options) as client:
        reply = client.chat.completions.create(model="support-prod", messages=HELLO)
    return Heard(reply.choices[0].message.content, reply.usage.prompt_tokens, reply.usage.completion_tokens)


# Anthropic


def anthropic_client(base: str, headers: Headers) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=base, api_key="sk-test", max_retries=0, default_headers=headers)


def heard_message(reply: Any) -> Heard:
    usage = reply.usage
    written, read = usage.cache_creation_input_tokens or 0, usage.cache_read_input_tokens or 0
    text = "".join(block.text for block in reply.content if block.type == "text")
    return Heard(text, usage.input_tokens + written + read, usage.output_tokens)


@answered_by("anthropic-messages-json-cache.json", BOOTS)
def anthropic_messages(base: str, headers: Headers) -> Heard:
    with anthropic_client(base, headers) as client:
        return heard_message(client.messages.create(model="claude-sonnet-4-6", max_tokens=1024, messages=HELLO))


@answered_by("anthropic-messages-sse-cache.sse", BOOTS)
def anthropic_messages_stream(base: str, headers: Headers) -> Heard:
    with anthropic_client(base, headers) as client:
        with client.messages.stream(model="claude-sonnet-4-6", max_tokens=1024, messages=HELLO) as stream:
            return heard_message(stream.get_final_message())


@answered_by("anthropic-count-tokens.json", "2095")
def anthropic_count_tokens(base: str, headers: Headers) -> Heard:
    with anthropic_client(base, headers) as client:
        return Heard(str(client.messages.count_tokens(model="claude-sonnet-4-6", messages=HELLO).input_tokens))


def anthropic_vertex_client(base: str, headers: Headers) -> anthropic.AnthropicVertex:
    return anthropic.AnthropicVertex(
        base_url=f"{base}/v1", region="europe-west4", project_id="acme", access_token="test", max_retries=0,
        default_headers=headers,
    )


@answered_by("vertex-anthropic-rawpredict.json", BOOTS)
def vertex_messages(base: str, headers: Headers) -> Heard:
    with anthropic_vertex_client(base, headers) as client:
        return heard_message(client.messages.create(model=VERTEX_CLAUDE, max_tokens=1024, messages=HELLO))


@answered_by("vertex-anthropic-streamrawpredict.sse", BOOTS)
def vertex_messages_stream(base: str, headers: Headers) -> Heard:
    with anthropic_vertex_client(base, headers) as client:
        with client.messages.stream(model=VERTEX_CLAUDE, max_tokens=1024, messages=HELLO) as stream:
            return heard_message(stream.get_final_message())


# Google


def gemini_client(base: str, headers: Headers) -> genai.Client:
    return genai.Client(api_key="test", http_options=types.HttpOptions(base_url=base, headers=headers))


def vertex_client(base: str, headers: Headers) -> genai.Client:
    credentials = AnonymousCredentials()
    credentials.token = "test"
    return genai.Client(
        vertexai=True, project="acme", location="europe-west4", credentials=credentials,
        http_options=types.HttpOptions(base_url=base, headers=headers),
    )


def heard_candidates(text: str, usage: Any) -> Heard:
    prompt = usage.prompt_token_count + (usage.tool_use_prompt_token_count or 0)
    return Heard(text, prompt, usage.candidates_token_count + (usage.thoughts_token_count or 0))


def heard_stream(client: genai.Client) -> Heard:
    chunks = list(client.models.generate_content_stream(model="gemini-2.5-flash", contents="hello"))
    counted = [c.usage_metadata for c in chunks if c.usage_metadata and c.usage_metadata.prompt_token_count]
    text = "".join(part.text for c in chunks if c.candidates for part in c.candidates[0].content.parts)
    return heard_candidates(text, counted[-1])


@answered_by("gemini-generate.json", "Ebbe um sechs, Flut um zwölf.")
def gemini_generate(base: str, headers: Headers) -> Heard:
    with gemini_client(base, headers) as client:
        reply = client.models.generate_content(model="gemini-2.5-pro", contents="hello")
    return heard_candidates(reply.text, reply.usage_metadata)


@answered_by("gemini-stream-sse-crlf.sse", "Low tide at six, flood at noon — café open.")
def gemini_generate_stream(base: str, headers: Headers) -> Heard:
    with gemini_client(base, headers) as client:
        return heard_stream(client)


@answered_by("vertex-stream-sse.sse", "Low tide at noon.")
def vertex_generate_stream(base: str, headers: Headers) -> Heard:
    with vertex_client(base, headers) as client:
        return heard_stream(client)


@answered_by("gemini-count-tokens.json", "31")
def gemini_count_tokens(base: str, headers: Headers) -> Heard:
    with gemini_client(base, headers) as client:
        return Heard(str(client.models.count_tokens(model="gemini-2.5-flash", contents="hello").total_tokens))


@answered_by("gemini-batch-embed.json", "2")
def gemini_embed(base: str, headers: Headers) -> Heard:
    with gemini_client(base, headers) as client:
        reply = client.models.embed_content(model="gemini-embedding-2", contents=["hello", "harbour"])
    return Heard(str(len(reply.embeddings)))


# Bedrock


def bedrock_client(base: str, headers: Headers, retries: dict[str, Any] | None = NO_RETRIES) -> Any:
    """`retries` of `None` are the SDK's own."""
    client = boto3.client(
        "bedrock-runtime", region_name="eu-central-1", endpoint_url=base, aws_access_key_id="test",
        aws_secret_access_key="test", config=botocore.config.Config(retries=retries),
    )

    # After signing: the signature must not cover headers that the gateway removes.
    def add(request: Any, **_rest: Any) -> None:
        for name, value in headers.items():
            request.headers[name] = value

    client.meta.events.register("before-send.bedrock-runtime", add)
    return client


def heard_converse(text: str, usage: dict[str, int]) -> Heard:
    cached = usage.get("cacheReadInputTokens", 0) + usage.get("cacheWriteInputTokens", 0)
    assert usage["totalTokens"] == usage["inputTokens"] + cached + usage["outputTokens"]
    return Heard(text, usage["inputTokens"] + cached, usage["outputTokens"])


def claude_body() -> str:
    return json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 1024, "messages": HELLO})


@answered_by("bedrock-converse.json", TIDE)
def bedrock_converse(base: str, headers: Headers) -> Heard:
    reply = bedrock_client(base, headers).converse(modelId=HAIKU, messages=BLOCKS)
    return heard_converse(reply["output"]["message"]["content"][0]["text"], reply["usage"])


@answered_by("bedrock-converse-stream.bin", TIDE)
def bedrock_converse_stream(base: str, headers: Headers) -> Heard:
    events = list(bedrock_client(base, headers).converse_stream(modelId=HAIKU, messages=BLOCKS)["stream"])
    text = "".join(e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e)
    return heard_converse(text, events[-1]["metadata"]["usage"])


@answered_by("bedrock-invoke-anthropic.json", TIDE)
def bedrock_invoke(base: str, headers: Headers) -> Heard:
    reply = bedrock_client(base, headers).invoke_model(modelId=HAIKU, body=claude_body())
    return heard_message(anthropic.types.Message.model_validate_json(reply["body"].read()))


@answered_by("bedrock-invoke-mistral.json", " Noon, at the quay.")
def bedrock_invoke_by_headers(base: str, headers: Headers) -> Heard:
    model = "mistral.mistral-large-2402-v1:0"
    reply = bedrock_client(base, headers).invoke_model(modelId=model, body=json.dumps({"prompt": "hello"}))
    counts = {k.rsplit("bedrock-")[-1]: v for k, v in reply["ResponseMetadata"]["HTTPHeaders"].items()}
    text = json.loads(reply["body"].read())["outputs"][0]["text"]
    return Heard(text, int(counts["input-token-count"]), int(counts["output-token-count"]))


@answered_by("bedrock-invoke-stream-anthropic.bin", TIDE)
def bedrock_invoke_stream(base: str, headers: Headers) -> Heard:
    reply = bedrock_client(base, headers).invoke_model_with_response_stream(modelId=HAIKU, body=claude_body())
    chunks = [json.loads(event["chunk"]["bytes"]) for event in reply["body"]]
    text = "".join(c["delta"].get("text", "") for c in chunks if c["type"] == "content_block_delta")
    metrics = chunks[-1]["amazon-bedrock-invocationMetrics"]
    read = metrics["inputTokenCount"] + metrics["cacheReadInputTokenCount"] + metrics["cacheWriteInputTokenCount"]
    return Heard(text, read, metrics["outputTokenCount"])


@answered_by("bedrock-count-tokens.json", "42")
def bedrock_count_tokens(base: str, headers: Headers) -> Heard:
    reply = bedrock_client(base, headers).count_tokens(modelId=HAIKU, input={"converse": {"messages": BLOCKS}})
    return Heard(str(reply["inputTokens"]))
