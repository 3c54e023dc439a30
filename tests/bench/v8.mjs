// The release module in V8 without Envoy: node v8.mjs MODULE CONFIG LONG.json DENSE.json STREAM.sse TABLE.json BUDGETS.json
// Host calls cost next to nothing here, so this is the module's own part; one line of JSON with the figures.
import { readFileSync } from "node:fs";

const [modulePath, configPath, longPath, densePath, streamPath, tablePath, budgetsPath] = process.argv.slice(2);
const text = new TextEncoder();
const start = performance.now();
const module = new WebAssembly.Module(readFileSync(modulePath));
const compileMs = performance.now() - start;

let wasm, buffer, headers;
const view = () => new DataView(wasm.memory.buffer);
const give = (bytes, data, size) => { // hands a copy to the module, which frees it
  const at = wasm.malloc(bytes.length);
  new Uint8Array(wasm.memory.buffer).set(bytes, at);
  view().setUint32(data, at, true);
  view().setUint32(size, bytes.length, true);
  return 0;
};
const pairs = (entries) => {
  const flat = entries.map(([name, value]) => [text.encode(name), text.encode(value)]);
  const bytes = [];
  const number = (n) => bytes.push(n & 255, (n >> 8) & 255, (n >> 16) & 255, n >>> 24);
  number(flat.length);
  for (const [name, value] of flat) { number(name.length); number(value.length); }
  for (const [name, value] of flat) bytes.push(...name, 0, ...value, 0);
  return Uint8Array.from(bytes);
};
let now = 1_700_000_000_000_000_000n;
let version = 0;
// The shared store, by a hash of the key: there are but a few. Loops, as anything shorter leaves garbage by the call.
const store = new Map();
const stored = (at, size) => {
  const memory = new Uint8Array(wasm.memory.buffer);
  let key = size;
  for (let i = at; i < at + size; i++) key = (Math.imul(key, 31) + memory[i]) | 0;
  if (!store.has(key)) store.set(key, { bytes: new Uint8Array(65536), size: 0, version: -1 >>> 0 });
  return store.get(key);
};
const host = {
  proxy_get_buffer_bytes: (_kind, _start, max, data, size) => give(buffer.subarray(0, max), data, size),
  proxy_get_header_map_pairs: (_map, data, size) => give(headers, data, size),
  proxy_get_current_time_nanoseconds: (at) => { view().setBigUint64(at, (now += 1_000_000n), true); return 0; },
  proxy_get_property: () => 1,
  proxy_get_shared_data: (key, keySize, data, size, cas) => {
    const entry = stored(key, keySize);
    if (entry.size === 0) return 1;
    const at = wasm.malloc(entry.size);
    const memory = new Uint8Array(wasm.memory.buffer);
    for (let i = 0; i < entry.size; i++) memory[at + i] = entry.bytes[i];
    const numbers = view();
    numbers.setUint32(data, at, true);
    numbers.setUint32(size, entry.size, true);
    numbers.setUint32(cas, entry.version, true);
    return 0;
  },
  proxy_set_shared_data: (key, keySize, value, size, cas) => {
    const entry = stored(key, keySize);
    if (entry.version !== cas >>> 0) return 8;
    const memory = new Uint8Array(wasm.memory.buffer);
    for (let i = 0; i < size; i++) entry.bytes[i] = memory[value + i];
    entry.size = size;
    entry.version = ++version;
    return 0;
  },
};
const imports = Object.fromEntries(WebAssembly.Module.imports(module).map(({ name }) => [name, host[name] ?? (() => 0)]));
function startMs(config) { // a new VM with a configuration, as each worker has one
  buffer = readFileSync(config);
  wasm = new WebAssembly.Instance(module, { env: imports }).exports;
  const began = performance.now();
  wasm._initialize();
  wasm.proxy_on_context_create(1, 0);
  wasm.proxy_on_vm_start(1, 0);
  if (!wasm.proxy_on_configure(1, buffer.length)) throw new Error("the configuration was refused");
  return performance.now() - began;
}
const megabytes = () => wasm.memory.buffer.byteLength / 1048576;
const configureMs = startMs(configPath);
const memoryMb = megabytes();
const tableMs = startMs(tablePath);
const tableMb = megabytes();
startMs(configPath);

const head = [[":method", "POST"], [":path", "/v1/chat/completions"]];
const dimensions = "feature department team user session run-id project outcome gl-account environment".split(" ");
const tenHeaders = pairs([...head, ...dimensions.map((name) => [`x-cost-${name}`, `value-of-${name}`])]);
const noHeaders = pairs(head);
let request = pairs([...head, ["x-cost-team", "search"]]);
const question = text.encode('{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"hello"}]}');
const replies = Object.fromEntries(
  ["application/json", "text/event-stream"].map((type) => [type, pairs([[":status", "200"], ["content-type", type]])]));
let id = 2;
function call(contentType, pieces) {
  wasm.proxy_on_context_create(++id, 1);
  headers = request; wasm.proxy_on_request_headers(id, 3, 0);
  buffer = question; wasm.proxy_on_request_body(id, question.length, 1);
  headers = replies[contentType]; wasm.proxy_on_response_headers(id, 2, 0);
  for (const piece of pieces) { buffer = piece; wasm.proxy_on_response_body(id, piece.length, 0); }
  wasm.proxy_on_response_body(id, 0, 1);
  wasm.proxy_on_log(id); wasm.proxy_on_done(id); wasm.proxy_on_delete(id);
}
const cut = (bytes, size) => Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size));
// Of several rounds the one that was disturbed least; V8 compiles in the first.
function leastUs(contentType, pieces, calls, rounds = 15) {
  return Math.min(...Array.from({ length: rounds }, () => {
    const began = performance.now();
    for (let n = 0; n < calls; n++) call(contentType, pieces);
    return ((performance.now() - began) * 1000) / calls;
  }));
}
const stream = readFileSync(streamPath);
const events = stream.toString("latin1").split(/(?<=\n\n)/).map((event) => Buffer.from(event, "latin1"));
const last = events.slice(-3); // pricing and the record belong to the call, not to its events
const emptyUs = leastUs("application/json", [], 1000);
const allUs = leastUs("text/event-stream", events, 200);
const lastUs = leastUs("text/event-stream", last, 500);
const usual = request;
// Short rounds by turns: what disturbs a pair disturbs both or makes it an outlier, and the median is neither.
function addedUs(one, other) {
  const added = Array.from({ length: 600 }, () => {
    const [more, less] = [one, other].map((prepare) => { prepare(); return leastUs("application/json", [], 100, 1); });
    return more - less;
  }).slice(200).sort((a, b) => a - b); // V8 is done compiling after some
  return added[added.length / 2];
}
const tenHeadersUs = addedUs(() => { request = tenHeaders; }, () => { request = noHeaders; });
request = usual;
const json = (path) => {
  const body = readFileSync(path);
  return body.length / (leastUs("application/json", cut(body, 16384), 10) - emptyUs);
};
const [longMb, denseMb] = [json(longPath), json(densePath)];
const plain = wasm;
startMs(budgetsPath);
const budgeted = wasm;
request = tenHeaders;
const budgetsUs = addedUs(() => { wasm = budgeted; }, () => { wasm = plain; });
console.log(JSON.stringify({
  compile_ms: compileMs, configure_ms: configureMs, memory_mb: memoryMb, table_ms: tableMs, table_memory_mb: tableMb,
  call_us: emptyUs, ten_headers_us: tenHeadersUs, three_budgets_us: budgetsUs,
  long_mb_per_s: longMb, dense_mb_per_s: denseMb,
  event_ns: (allUs - lastUs) * 1000 / (events.length - last.length),
}));
