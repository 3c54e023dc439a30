-- Tables for the records of Tollgate: clickhouse-client --multiquery < schema.sql
--
-- The gateways insert into `all_records`; read from `records`, which has exactly one row for each call, and from
-- `budget_records`. A record may arrive twice (its batch was stored and the answer lost), and two things see to it:
-- the server drops a block whose bytes it has seen (the deduplication window, which a repeated batch falls into), and
-- ReplacingMergeTree keeps one row of each id, whatever batch it came in. The views ask for that with FINAL, so that it
-- holds before a merge has happened too.
--
-- What a record leaves out is NULL where it is a number, '' where it is a text, and empty where it is a map or a list.
-- Amounts are decimals to the last digit: sum cost_picousd or cost_usd, never their toFloat64.

CREATE DATABASE IF NOT EXISTS tollgate;

CREATE TABLE IF NOT EXISTS tollgate.all_records
(
    schema_version UInt16,
    type LowCardinality(String),
    id String,
    instance LowCardinality(String),
    seq Nullable(UInt64),
    ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    duration_ms Nullable(UInt64),
    ttft_ms Nullable(UInt64),
    request_id String,
    trace_id String,
    span_id String,
    gateway LowCardinality(String),
    route LowCardinality(String),
    cluster LowCardinality(String),

    -- Who it is charged to
    workload LowCardinality(String),
    feature LowCardinality(String),
    department LowCardinality(String),
    team LowCardinality(String),
    user String,
    session String,
    run_id String,
    parent_run_id String,
    mcp_server LowCardinality(String),
    agent_handoff LowCardinality(String),
    project LowCardinality(String),
    outcome LowCardinality(String),
    gl_account LowCardinality(String),
    cost_centre LowCardinality(String),
    business_unit LowCardinality(String),
    environment LowCardinality(String),
    tags Map(LowCardinality(String), String),
    attribution_source Map(LowCardinality(String), LowCardinality(String)),
    unattributed Array(LowCardinality(String)),
    api_key LowCardinality(String),

    -- What was asked and answered
    provider LowCardinality(String),
    api LowCardinality(String),
    operation LowCardinality(String),
    request_model LowCardinality(String),
    response_model LowCardinality(String),
    priced_model LowCardinality(String),
    priced_by LowCardinality(String),
    response_id String,
    service_tier LowCardinality(String),
    speed LowCardinality(String),
    inference_geo LowCardinality(String),
    region LowCardinality(String),
    stream Nullable(Bool),
    status Nullable(UInt16),
    finish_reason LowCardinality(String),
    end_reason LowCardinality(String),
    attempts Nullable(UInt32),
    client_retry Nullable(UInt32),
    error LowCardinality(String),
    decision LowCardinality(String),
    would_decide LowCardinality(String),
    budget LowCardinality(String),
    downgraded_from LowCardinality(String),
    avoided_cost_usd Nullable(Decimal(38, 12)),
    estimated_cost_usd Nullable(Decimal(38, 12)),

    -- What was used
    input_tokens Nullable(UInt64),
    cached_input_tokens Nullable(UInt64),
    cache_creation_input_tokens Nullable(UInt64),
    cache_creation_1h_input_tokens Nullable(UInt64),
    input_audio_tokens Nullable(UInt64),
    cached_input_audio_tokens Nullable(UInt64),
    input_image_tokens Nullable(UInt64),
    input_video_tokens Nullable(UInt64),
    output_tokens Nullable(UInt64),
    reasoning_tokens Nullable(UInt64),
    output_audio_tokens Nullable(UInt64),
    output_image_tokens Nullable(UInt64),
    output_video_tokens Nullable(UInt64),
    total_tokens Nullable(UInt64),
    units Map(LowCardinality(String), Decimal(38, 12)),
    usage_source LowCardinality(String),

    -- What it cost
    cost_picousd Nullable(Decimal(38, 0)),
    cost_usd Nullable(Decimal(38, 12)),
    charges Array(Tuple(
        model LowCardinality(String),
        class LowCardinality(String),
        quantity Decimal(38, 12),
        unit LowCardinality(String),
        rate_usd Decimal(38, 18),
        per UInt32,
        multiplier Nullable(Decimal(38, 18)),
        cost_picousd Decimal(38, 0)
    )),
    provider_cost_usd Nullable(Decimal(38, 18)),
    price_status LowCardinality(String),
    price_version LowCardinality(String),

    request_hash String,
    prefix_hash String,
    max_output_tokens Nullable(UInt64),
    message_count Nullable(UInt64),
    tool_count Nullable(UInt64),
    notes Array(LowCardinality(String)),

    -- What records about budgets have besides
    scope Map(LowCardinality(String), String),
    threshold_percent Nullable(UInt32),
    spent_usd Nullable(Decimal(38, 12)),
    reserved_usd Nullable(Decimal(38, 12)),
    limit_usd Nullable(Decimal(38, 12)),
    remaining_usd Nullable(Decimal(38, 12)),
    spent_tokens Nullable(UInt64),
    reserved_tokens Nullable(UInt64),
    limit_tokens Nullable(UInt64),
    spent_calls Nullable(UInt64),
    reserved_calls Nullable(UInt64),
    limit_calls Nullable(UInt64),
    granted_usd Nullable(Decimal(38, 12)),
    granted_tokens Nullable(UInt64),
    granted_calls Nullable(UInt64),
    granted_until Nullable(DateTime('UTC')),
    window_start Nullable(DateTime('UTC')),
    resets_at Nullable(DateTime('UTC')),
    action LowCardinality(String),
    reason String,

    -- Of rows with the same id the one with the highest counts: what the access log said of a call before its end, if that
    -- is inserted too, gives way to what it came to.
    is_final UInt8 MATERIALIZED end_reason != 'provisional'
)
ENGINE = ReplacingMergeTree(is_final)
PARTITION BY toYYYYMM(ts)
-- As reports ask. All of it is the same each time a record is sent.
ORDER BY (type, department, feature, ts, id)
-- Batches of which a repeat is recognised by its bytes: some hours of a dozen gateways. A Replicated table has a window
-- of its own, replicated_deduplication_window.
SETTINGS non_replicated_deduplication_window = 10000;

CREATE VIEW IF NOT EXISTS tollgate.records AS
SELECT * FROM tollgate.all_records FINAL WHERE type = 'usage';

CREATE VIEW IF NOT EXISTS tollgate.budget_records AS
SELECT
    schema_version, type, id, instance, seq, ts, gateway, budget, scope, threshold_percent, spent_usd, reserved_usd, limit_usd,
    remaining_usd, spent_tokens, reserved_tokens, limit_tokens, spent_calls, reserved_calls, limit_calls, granted_usd,
    granted_tokens, granted_calls, granted_until, window_start, resets_at, action, reason
FROM tollgate.all_records FINAL
WHERE type != 'usage';
