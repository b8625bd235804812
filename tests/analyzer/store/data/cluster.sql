CREATE TABLE IF NOT EXISTS meta ON CLUSTER 'prod' (
  name String, value String, at DateTime64(9, 'UTC') DEFAULT now64(9, 'UTC')
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/all/{database}/meta', '{shard}-{replica}') ORDER BY (name, at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS spans_local ON CLUSTER 'prod' (
  ts DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
  duration_ns Int64 CODEC(T64, ZSTD(1)),
  trace_id FixedString(16) CODEC(ZSTD(1)),
  span_id FixedString(8) CODEC(NONE),
  parent_id FixedString(8) CODEC(ZSTD(1)),
  name LowCardinality(String) CODEC(ZSTD(1)),
  kind UInt8 CODEC(ZSTD(1)),
  status UInt8 CODEC(ZSTD(1)),
  status_message String CODEC(ZSTD(1)),
  service LowCardinality(String) CODEC(ZSTD(1)),
  environment LowCardinality(String) CODEC(ZSTD(1)),
  scope LowCardinality(String) CODEC(ZSTD(1)),
  operation LowCardinality(String) CODEC(ZSTD(1)),
  provider LowCardinality(String) CODEC(ZSTD(1)),
  request_model LowCardinality(String) CODEC(ZSTD(1)),
  response_model LowCardinality(String) CODEC(ZSTD(1)),
  agent LowCardinality(String) CODEC(ZSTD(1)),
  tool LowCardinality(String) CODEC(ZSTD(1)),
  workflow LowCardinality(String) CODEC(ZSTD(1)),
  feature LowCardinality(String) CODEC(ZSTD(1)),
  session_id String CODEC(ZSTD(1)),
  user_id String CODEC(ZSTD(1)),
  error_type LowCardinality(String) CODEC(ZSTD(1)),
  finish_reason LowCardinality(String) CODEC(ZSTD(1)),
  prompt_name LowCardinality(String) CODEC(ZSTD(1)),
  prompt_version LowCardinality(String) CODEC(ZSTD(1)),
  response_id String CODEC(ZSTD(1)),
  input_tokens Nullable(Int64) CODEC(T64, ZSTD(1)),
  output_tokens Nullable(Int64) CODEC(T64, ZSTD(1)),
  cache_read_tokens Nullable(Int64) CODEC(T64, ZSTD(1)),
  cache_write_tokens Nullable(Int64) CODEC(T64, ZSTD(1)),
  reasoning_tokens Nullable(Int64) CODEC(T64, ZSTD(1)),
  ttft_ns Nullable(Int64) CODEC(T64, ZSTD(1)),
  cost_usd Nullable(Float64) CODEC(ZSTD(1)),
  input_text String CODEC(ZSTD(3)) SETTINGS (min_compress_block_size = 1048576),
  output_text String CODEC(ZSTD(3)) SETTINGS (min_compress_block_size = 1048576),
  system_text String CODEC(ZSTD(3)) SETTINGS (min_compress_block_size = 1048576),
  context_text String CODEC(ZSTD(3)) SETTINGS (min_compress_block_size = 1048576),
  input_messages String CODEC(ZSTD(3)) SETTINGS (min_compress_block_size = 1048576),
  output_messages String CODEC(ZSTD(3)) SETTINGS (min_compress_block_size = 1048576),
  attributes_s Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  attributes_n Map(LowCardinality(String), Float64) CODEC(ZSTD(1)),
  weight Float64 CODEC(ZSTD(1)),
  seg UInt64 CODEC(Delta, ZSTD(1)),
  stored_at DateTime('UTC') DEFAULT now('UTC') CODEC(Delta, ZSTD(1)),
  INDEX ix_seg seg TYPE minmax GRANULARITY 1,
  INDEX ix_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX ix_session session_id TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX ix_ts ts TYPE minmax GRANULARITY 1,
  PROJECTION session_hours (
    SELECT intDiv(toUnixTimestamp64Nano(ts), 3600000000000), session_id, user_id, service, environment, feature,
      min(ts), max(ts),
      sumIf(weight, operation IN ('chat', 'generate_content', 'text_completion')),
      sumIf(weight, operation IN ('chat', 'generate_content', 'text_completion') AND status = 2),
      countIf(operation IN ('chat', 'embeddings', 'generate_content', 'text_completion')),
      sumIf(weight * cost_usd, operation IN ('chat', 'embeddings', 'generate_content', 'text_completion')),
      sumIf(weight, operation IN ('chat', 'embeddings', 'generate_content', 'text_completion') AND isNull(cost_usd) AND NOT (status = 2 AND isNull(input_tokens) AND isNull(output_tokens))),
      sumIf(weight * input_tokens, operation IN ('chat', 'embeddings', 'generate_content', 'text_completion')),
      sumIf(weight * output_tokens, operation IN ('chat', 'embeddings', 'generate_content', 'text_completion'))
    GROUP BY intDiv(toUnixTimestamp64Nano(ts), 3600000000000), session_id, user_id, service, environment, feature)
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/spans', '{replica}') PARTITION BY toDate(stored_at) ORDER BY (service, ts)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 1000, default_compression_codec = 'ZSTD(1)', min_bytes_for_wide_part = 134217728, merge_selector_base = 10, ttl_only_drop_parts = 1, index_granularity = 2048, lightweight_mutation_projection_mode = 'rebuild';

CREATE TABLE IF NOT EXISTS spans ON CLUSTER 'prod' AS spans_local
ENGINE = Distributed('prod', 'llmobs', 'spans_local', cityHash64(trace_id));

CREATE TABLE IF NOT EXISTS scores_local ON CLUSTER 'prod' (
  seg UInt64 CODEC(ZSTD(1)),
  ts DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
  trace_id FixedString(16) CODEC(ZSTD(1)),
  span_id FixedString(8) CODEC(NONE),
  service LowCardinality(String) CODEC(ZSTD(1)),
  environment LowCardinality(String) CODEC(ZSTD(1)),
  feature LowCardinality(String) CODEC(ZSTD(1)),
  session_id String CODEC(ZSTD(1)),
  name LowCardinality(String) CODEC(ZSTD(1)),
  target LowCardinality(String) CODEC(ZSTD(1)),
  version LowCardinality(String) CODEC(ZSTD(1)),
  value Float64 CODEC(ZSTD(1)),
  label LowCardinality(String) CODEC(ZSTD(1)),
  explanation String CODEC(ZSTD(1)),
  stored_at DateTime('UTC') DEFAULT now('UTC') CODEC(Delta, ZSTD(1)),
  INDEX ix_seg seg TYPE minmax GRANULARITY 1,
  INDEX ix_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX ix_session session_id TYPE bloom_filter(0.001) GRANULARITY 1,
  PROJECTION score_minutes (
    SELECT intDiv(toUnixTimestamp64Nano(ts), 60000000000), name, target, version, service, environment, feature,
      max(ts), count(), countIf(isNaN(value)), sumIf(value, NOT isNaN(value)),
      countIf(label = 'fail')
    GROUP BY intDiv(toUnixTimestamp64Nano(ts), 60000000000), name, target, version, service, environment, feature)
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/scores', '{replica}') PARTITION BY toDate(stored_at) ORDER BY (name, ts)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 1000, default_compression_codec = 'ZSTD(1)', min_bytes_for_wide_part = 134217728, merge_selector_base = 10, ttl_only_drop_parts = 1, index_granularity = 2048, lightweight_mutation_projection_mode = 'rebuild';

CREATE TABLE IF NOT EXISTS scores ON CLUSTER 'prod' AS scores_local
ENGINE = Distributed('prod', 'llmobs', 'scores_local', cityHash64(trace_id));

CREATE TABLE IF NOT EXISTS events_local ON CLUSTER 'prod' (
  ts DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
  trace_id FixedString(16) CODEC(ZSTD(1)),
  span_id FixedString(8) CODEC(NONE),
  service LowCardinality(String) CODEC(ZSTD(1)),
  environment LowCardinality(String) CODEC(ZSTD(1)),
  event_name LowCardinality(String) CODEC(ZSTD(1)),
  severity UInt8 CODEC(ZSTD(1)),
  body String CODEC(ZSTD(3)) SETTINGS (min_compress_block_size = 1048576),
  attributes_s Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  attributes_n Map(LowCardinality(String), Float64) CODEC(ZSTD(1)),
  seg UInt64 CODEC(Delta, ZSTD(1)),
  stored_at DateTime('UTC') DEFAULT now('UTC') CODEC(Delta, ZSTD(1)),
  INDEX ix_seg seg TYPE minmax GRANULARITY 1,
  INDEX ix_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/events', '{replica}') PARTITION BY toDate(stored_at) ORDER BY (service, ts)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 1000, default_compression_codec = 'ZSTD(1)', min_bytes_for_wide_part = 134217728, merge_selector_base = 10, ttl_only_drop_parts = 1, index_granularity = 2048, lightweight_mutation_projection_mode = 'rebuild';

CREATE TABLE IF NOT EXISTS events ON CLUSTER 'prod' AS events_local
ENGINE = Distributed('prod', 'llmobs', 'events_local', cityHash64(trace_id));

CREATE TABLE IF NOT EXISTS metric_points_local ON CLUSTER 'prod' (
  ts DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
  service LowCardinality(String) CODEC(ZSTD(1)),
  environment LowCardinality(String) CODEC(ZSTD(1)),
  name LowCardinality(String) CODEC(ZSTD(1)),
  unit LowCardinality(String) CODEC(ZSTD(1)),
  kind LowCardinality(String) CODEC(ZSTD(1)),
  value Nullable(Float64) CODEC(ZSTD(1)),
  count Nullable(Int64) CODEC(T64, ZSTD(1)),
  sum Nullable(Float64) CODEC(ZSTD(1)),
  bounds Array(Float64) CODEC(ZSTD(1)),
  bucket_counts Array(Int64) CODEC(ZSTD(1)),
  attributes_s Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  attributes_n Map(LowCardinality(String), Float64) CODEC(ZSTD(1)),
  seg UInt64 CODEC(Delta, ZSTD(1)),
  stored_at DateTime('UTC') DEFAULT now('UTC') CODEC(Delta, ZSTD(1)),
  INDEX ix_seg seg TYPE minmax GRANULARITY 1
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/metric_points', '{replica}') PARTITION BY toDate(stored_at) ORDER BY (name, service, ts)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 1000, default_compression_codec = 'ZSTD(1)', min_bytes_for_wide_part = 134217728, merge_selector_base = 10, ttl_only_drop_parts = 1, index_granularity = 2048, lightweight_mutation_projection_mode = 'rebuild';

CREATE TABLE IF NOT EXISTS metric_points ON CLUSTER 'prod' AS metric_points_local
ENGINE = Distributed('prod', 'llmobs', 'metric_points_local', cityHash64(service, name));

CREATE TABLE IF NOT EXISTS segments ON CLUSTER 'prod' (
  seg UInt64 CODEC(Delta, ZSTD(1)),
  until UInt64 CODEC(Delta, ZSTD(1)),
  n_spans UInt64 CODEC(T64, ZSTD(1)),
  n_events UInt64 CODEC(T64, ZSTD(1)),
  n_metrics UInt64 CODEC(T64, ZSTD(1)),
  n_bytes UInt64 CODEC(T64, ZSTD(1)),
  stored_at DateTime('UTC') DEFAULT now('UTC') CODEC(Delta, ZSTD(1))
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/all/{database}/segments', '{shard}-{replica}') PARTITION BY toYYYYMM(stored_at) ORDER BY seg
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 1000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS scored ON CLUSTER 'prod' (
  seg UInt64 CODEC(Delta, ZSTD(1)),
  n_spans UInt64 CODEC(T64, ZSTD(1)),
  n_bytes UInt64 CODEC(T64, ZSTD(1)),
  stored_at DateTime('UTC') DEFAULT now('UTC') CODEC(Delta, ZSTD(1))
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/all/{database}/scored', '{shard}-{replica}') PARTITION BY toYYYYMM(stored_at) ORDER BY seg
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 1000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS stale_minutes ON CLUSTER 'prod' (
  minute Int64, source UInt16
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/all/{database}/stale_minutes', '{shard}-{replica}') ORDER BY (source, minute)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS erasures ON CLUSTER 'prod' (
  kind LowCardinality(String),
  id FixedString(16),
  until DateTime64(9, 'UTC'),
  noted_at DateTime('UTC') DEFAULT now('UTC')
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/all/{database}/erasures', '{shard}-{replica}') ORDER BY (kind, id) TTL noted_at + toIntervalDay(30) DELETE WHERE kind = 'trace'
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS minutes_local ON CLUSTER 'prod' (
  minute DateTime64(0, 'UTC') CODEC(Delta, ZSTD(1)),
  service LowCardinality(String),
  environment LowCardinality(String),
  feature LowCardinality(String),
  operation LowCardinality(String),
  provider LowCardinality(String),
  request_model LowCardinality(String),
  failure LowCardinality(String),
  month Date,
  source UInt16,
  n_spans SimpleAggregateFunction(sum, Float64),
  n_unpriced SimpleAggregateFunction(sum, Float64),
  n_input SimpleAggregateFunction(sum, Nullable(Float64)),
  n_output SimpleAggregateFunction(sum, Nullable(Float64)),
  n_cache_read SimpleAggregateFunction(sum, Nullable(Float64)),
  n_cache_write SimpleAggregateFunction(sum, Nullable(Float64)),
  n_reasoning SimpleAggregateFunction(sum, Nullable(Float64)),
  cost SimpleAggregateFunction(sum, Nullable(Float64)),
  duration AggregateFunction(quantilesTDigestWeighted(0.5, 0.95, 0.99), Int64, UInt64),
  ttft AggregateFunction(quantilesTDigestWeighted(0.5, 0.95, 0.99), Int64, UInt64)
) ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/minutes', '{replica}') PARTITION BY month ORDER BY (minute, service, environment, feature, operation, provider, request_model, failure, month, source)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, non_replicated_deduplication_window = 1000, default_compression_codec = 'ZSTD(1)', ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS minutes ON CLUSTER 'prod' AS minutes_local
ENGINE = Distributed('prod', 'llmobs', 'minutes_local', cityHash64(service, minute));

CREATE MATERIALIZED VIEW IF NOT EXISTS minutes_of_spans ON CLUSTER 'prod' TO minutes_local AS SELECT
  toDateTime64(intDiv(toUnixTimestamp64Nano(ts), 60000000000) * 60, 0, 'UTC') AS minute,
  service, environment, feature, operation, provider, if(spans.request_model = '', spans.response_model, spans.request_model) AS request_model,
  if(status = 2, if(error_type = '', '_OTHER', error_type), '') AS failure,
  toStartOfMonth(stored_at) AS month,
  toUInt16(bitShiftRight(seg, 48)) AS source,
  sum(weight) AS n_spans,
  sumIf(weight, operation IN ('chat', 'embeddings', 'generate_content', 'text_completion') AND isNull(cost_usd) AND NOT (status = 2 AND isNull(input_tokens) AND isNull(output_tokens))) AS n_unpriced,
  sum(weight * input_tokens) AS n_input,
  sum(weight * output_tokens) AS n_output,
  sum(weight * cache_read_tokens) AS n_cache_read,
  sum(weight * cache_write_tokens) AS n_cache_write,
  sum(weight * reasoning_tokens) AS n_reasoning,
  sum(weight * cost_usd) AS cost,
  quantilesTDigestWeightedState(0.5, 0.95, 0.99)(duration_ns, toUInt64(round(weight))) AS duration,
  quantilesTDigestWeightedState(0.5, 0.95, 0.99)(ifNull(ttft_ns, 0),
    if(isNull(ttft_ns), 0, toUInt64(round(weight)))) AS ttft
FROM spans_local AS spans GROUP BY minute, service, environment, feature, operation, provider, if(spans.request_model = '', spans.response_model, spans.request_model), if(status = 2, if(error_type = '', '_OTHER', error_type), ''), month, source;

CREATE OR REPLACE VIEW otel_traces ON CLUSTER 'prod' AS SELECT
  ts AS Timestamp,
  lower(hex(trace_id)) AS TraceId,
  lower(hex(span_id)) AS SpanId,
  if(parent_id = toFixedString('', 8), '', lower(hex(parent_id))) AS ParentSpanId,
  '' AS TraceState,
  name AS SpanName,
  transform(kind, [1, 2, 3, 4, 5], ['Internal', 'Server', 'Client', 'Producer', 'Consumer'],
    'Unspecified') AS SpanKind,
  service AS ServiceName,
  map('service.name', service, 'deployment.environment.name', environment) AS ResourceAttributes,
  scope AS ScopeName,
  '' AS ScopeVersion,
  mapFilter((k, v) -> v != '', mapConcat(
    mapApply((k, v) -> (toString(k), v), attributes_s),
    mapApply((k, v) -> (toString(k), toString(v)), attributes_n),
    map(
      'gen_ai.operation.name', toString(operation),
      'gen_ai.provider.name', toString(provider),
      'gen_ai.request.model', toString(request_model),
      'gen_ai.response.model', toString(response_model),
      'gen_ai.agent.name', toString(agent),
      'gen_ai.tool.name', toString(tool),
      'gen_ai.conversation.id', session_id,
      'user.id', user_id,
      'error.type', toString(error_type),
      'gen_ai.usage.input_tokens', ifNull(toString(input_tokens), ''),
      'gen_ai.usage.output_tokens', ifNull(toString(output_tokens), ''),
      'llmobs.feature', toString(feature),
      'llmobs.cost_usd', ifNull(toString(cost_usd), ''),
      'gen_ai.input.messages', if(input_messages != '' OR input_text = '', input_messages,
        concat('[', if(system_text = '', '', concat(concat('{"role":"system","parts":[{"type":"text","content":', toJSONString(system_text), '}]}'), ', ')),
          concat('{"role":"user","parts":[{"type":"text","content":', toJSONString(input_text), '}]}'), ']')),
      'gen_ai.output.messages', if(output_messages != '' OR output_text = '', output_messages,
        concat('[', concat('{"role":"assistant","parts":[{"type":"text","content":', toJSONString(output_text), '}]}'), ']'))
    ))) AS SpanAttributes,
  duration_ns AS Duration,
  transform(status, [1, 2], ['Ok', 'Error'], 'Unset') AS StatusCode,
  status_message AS StatusMessage
FROM spans;

ALTER TABLE spans_local ON CLUSTER 'prod' MODIFY COLUMN input_text TTL stored_at + toIntervalDay(30), MODIFY COLUMN output_text TTL stored_at + toIntervalDay(30), MODIFY COLUMN system_text TTL stored_at + toIntervalDay(30), MODIFY COLUMN context_text TTL stored_at + toIntervalDay(30), MODIFY COLUMN input_messages TTL stored_at + toIntervalDay(30), MODIFY COLUMN output_messages TTL stored_at + toIntervalDay(30), MODIFY TTL stored_at + toIntervalDay(90);

ALTER TABLE events_local ON CLUSTER 'prod' MODIFY COLUMN body TTL stored_at + toIntervalDay(30), MODIFY TTL stored_at + toIntervalDay(90);

ALTER TABLE scores_local ON CLUSTER 'prod' MODIFY TTL stored_at + toIntervalDay(90);

ALTER TABLE metric_points_local ON CLUSTER 'prod' MODIFY TTL stored_at + toIntervalDay(90);

ALTER TABLE segments ON CLUSTER 'prod' MODIFY TTL stored_at + toIntervalDay(90);

ALTER TABLE scored ON CLUSTER 'prod' MODIFY TTL stored_at + toIntervalDay(90);

ALTER TABLE minutes_local ON CLUSTER 'prod' MODIFY TTL month + toIntervalDay(431);
