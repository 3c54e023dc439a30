//! Host functions of proxy-wasm ABI 0.2.1, called raw: every status comes back as a value.
//!
//! Source: <https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>. The only host call that goes through
//! the SDK is the HTTP call, whose token the SDK's dispatcher must know.

use crate::reply::LocalReply;
use std::ptr::null_mut;

/// A host call that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostError {
    /// The function's name.
    pub(super) call: &'static str,
    /// What it returned; 1 is not found, 2 a bad argument, 3 not serializable, 8 a lost compare-and-swap, 12 unimplemented.
    pub(super) status: u32,
}

pub(super) const NOT_FOUND: u32 = 1;
/// What Envoy says of a property that has no bytes: `null`, as a claim of a JWT may be, or a whole map.
const NOT_SERIALIZABLE: u32 = 3;
pub(super) const CAS_MISMATCH: u32 = 8;

/// Header maps.
#[derive(Clone, Copy)]
pub(super) enum Map {
    Request = 0,
    Response = 2,
    ResponseTrailers = 3,
    CallResponse = 6,
}

/// Buffers.
#[derive(Clone, Copy)]
pub(super) enum Buffer {
    RequestBody = 0,
    ResponseBody = 1,
    CallResponseBody = 4,
    PluginConfiguration = 7,
}

/// Log levels.
#[derive(Clone, Copy)]
pub(super) enum Level {
    Trace = 0,
    Debug = 1,
    Info = 2,
    Warn = 3,
    Error = 4,
    Critical = 5,
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(buffer: u32, start: usize, max_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_buffer_bytes(buffer: u32, start: usize, size: usize, data: *const u8, data_size: usize) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, key: *const u8, key_size: usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(key: *const u8, key_size: usize, value: *const u8, value_size: usize, cas: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_close_stream(stream: u32) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
}

fn check(call: &'static str, status: u32) -> Result<(), HostError> {
    if status == 0 { Ok(()) } else { Err(HostError { call, status }) }
}

/// Takes over memory the host has allocated in this VM. A null pointer, or none, is nothing.
fn take(data: *mut u8, size: usize) -> Vec<u8> {
    if data.is_null() {
        return Vec::new();
    }
    // SAFETY: the host allocates through `proxy_on_memory_allocate`, which gives out a `Vec<u8>` of capacity `size`
    // from this module's own allocator, and hands the block over with the call.
    unsafe { Vec::from_raw_parts(data, size, size) }
}

/// A call that returns a block of memory.
fn returning(call: &'static str, function: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, HostError> {
    let (mut data, mut size) = (null_mut(), 0);
    let status = function(&raw mut data, &raw mut size);
    let bytes = take(data, size);
    check(call, status).map(|()| bytes)
}

pub(super) fn log(level: Level, message: &str) {
    // SAFETY: the host reads `len` bytes at the pointer during the call.
    unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

pub(super) fn now_ns() -> Result<u64, HostError> {
    let mut time = 0;
    // SAFETY: the host writes one u64 during the call.
    let status = unsafe { proxy_get_current_time_nanoseconds(&raw mut time) };
    check("proxy_get_current_time_nanoseconds", status).map(|()| time)
}

pub(super) fn set_tick_period_ms(period: u32) -> Result<(), HostError> {
    // SAFETY: no memory is passed.
    let status = unsafe { proxy_set_tick_period_milliseconds(period) };
    check("proxy_set_tick_period_milliseconds", status)
}

/// Bytes of a buffer from `start` on.
pub(super) fn buffer(buffer: Buffer, start: usize, max_size: usize) -> Result<Vec<u8>, HostError> {
    returning("proxy_get_buffer_bytes", |data, size| {
        // SAFETY: the host writes a pointer and a size during the call.
        unsafe { proxy_get_buffer_bytes(buffer as u32, start, max_size, data, size) }
    })
}

/// Puts `bytes` in the place of the first `size` bytes of a buffer, which are all of it.
pub(super) fn replace_buffer(buffer: Buffer, size: usize, bytes: &[u8]) -> Result<(), HostError> {
    // SAFETY: the host reads the bytes during the call.
    let status = unsafe { proxy_set_buffer_bytes(buffer as u32, 0, size, bytes.as_ptr(), bytes.len()) };
    check("proxy_set_buffer_bytes", status)
}

/// Answers the stream at hand in the upstream's place.
pub(super) fn send_local_response(reply: &LocalReply) -> Result<(), HostError> {
    const NO_GRPC_STATUS: i32 = -1;
    let headers = serialized(&reply.headers);
    let (details, body) = (reply.details, &reply.body);
    // SAFETY: the host reads details, body and headers during the call.
    let status = unsafe {
        proxy_send_local_response(
            u32::from(reply.status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            NO_GRPC_STATUS,
        )
    };
    check("proxy_send_local_response", status)
}

/// The request half of a stream.
const REQUEST: u32 = 0;
const RESPONSE: u32 = 1;

/// Makes another context the one that host calls are about, until the callback returns.
pub(super) fn set_effective_context(context: u32) -> Result<(), HostError> {
    // SAFETY: no memory is passed.
    let status = unsafe { proxy_set_effective_context(context) };
    check("proxy_set_effective_context", status)
}

/// Lets a request go on that was held.
pub(super) fn continue_request() -> Result<(), HostError> {
    // SAFETY: no memory is passed.
    let status = unsafe { proxy_continue_stream(REQUEST) };
    check("proxy_continue_stream", status)
}

/// Lets a response go on that was held.
pub(super) fn continue_response() -> Result<(), HostError> {
    // SAFETY: no memory is passed.
    let status = unsafe { proxy_continue_stream(RESPONSE) };
    check("proxy_continue_stream", status)
}

/// Breaks off the stream at hand. Hosts other than Envoy trap here, which ends the stream too.
pub(super) fn close_stream() -> Result<(), HostError> {
    // SAFETY: no memory is passed.
    let status = unsafe { proxy_close_stream(REQUEST) };
    check("proxy_close_stream", status)
}

/// Headers in the layout that [`pairs`] reads.
fn serialized(headers: &[(&'static str, String)]) -> Vec<u8> {
    let length = |text: &str| u32::try_from(text.len()).unwrap_or(0).to_le_bytes();
    let mut bytes = u32::try_from(headers.len()).unwrap_or(0).to_le_bytes().to_vec();
    for (name, value) in headers {
        bytes.extend(length(name));
        bytes.extend(length(value));
    }
    for text in headers.iter().flat_map(|(name, value)| [*name, value.as_str()]) {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// All headers of a map, serialized; see [`pairs`].
pub(super) fn header_pairs(map: Map) -> Result<Vec<u8>, HostError> {
    returning("proxy_get_header_map_pairs", |data, size| {
        // SAFETY: as in `buffer`.
        unsafe { proxy_get_header_map_pairs(map as u32, data, size) }
    })
}

pub(super) fn header(map: Map, name: &str) -> Result<Vec<u8>, HostError> {
    returning("proxy_get_header_map_value", |data, size| {
        // SAFETY: the host reads the name, and writes a pointer and a size, during the call.
        unsafe { proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size) }
    })
}

pub(super) fn set_header(map: Map, name: &str, value: &[u8]) -> Result<(), HostError> {
    // SAFETY: the host reads name and value during the call.
    let status =
        unsafe { proxy_replace_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    check("proxy_replace_header_map_value", status)
}

pub(super) fn remove_header(map: Map, name: &str) -> Result<(), HostError> {
    // SAFETY: the host reads the name during the call.
    let status = unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) };
    check("proxy_remove_header_map_value", status)
}

/// A property by its path, zero bytes between its parts; `None` where the host has none of that name.
pub(super) fn property(path: &str) -> Result<Option<Vec<u8>>, HostError> {
    let value = returning("proxy_get_property", |data, size| {
        // SAFETY: the host reads the path, and writes a pointer and a size, during the call.
        unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) }
    });
    match value {
        Ok(bytes) => Ok(Some(bytes)),
        Err(HostError { status: NOT_FOUND | NOT_SERIALIZABLE, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn set_property(path: &str, value: &[u8]) -> Result<(), HostError> {
    // SAFETY: the host reads path and value during the call.
    let status = unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) };
    check("proxy_set_property", status)
}

pub(super) fn shared_data(key: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
    let mut cas = 0;
    let value = returning("proxy_get_shared_data", |data, size| {
        // SAFETY: the host reads the key, and writes a pointer, a size and a version, during the call.
        unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut cas) }
    });
    match value {
        Ok(bytes) => Ok(Some((bytes, cas))),
        Err(HostError { status: NOT_FOUND, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn set_shared_data(key: &str, value: &[u8], cas: u32) -> Result<(), HostError> {
    // SAFETY: the host reads key and value during the call.
    let status = unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) };
    check("proxy_set_shared_data", status)
}

pub(super) fn define_counter(name: &str) -> Result<u32, HostError> {
    const COUNTER: u32 = 0;
    let mut id = 0;
    // SAFETY: the host reads the name and writes an id during the call.
    let status = unsafe { proxy_define_metric(COUNTER, name.as_ptr(), name.len(), &raw mut id) };
    check("proxy_define_metric", status).map(|()| id)
}

pub(super) fn increment(id: u32, offset: i64) -> Result<(), HostError> {
    // SAFETY: no memory is passed.
    let status = unsafe { proxy_increment_metric(id, offset) };
    check("proxy_increment_metric", status)
}

/// The names and values in a serialized header map: a count, the sizes of each, then all of them, each with a zero
/// byte behind. What does not fit the layout is left out.
pub(super) fn pairs(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let (count, sizes) = split_u32(bytes).unwrap_or((0, &[]));
    let table_bytes = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(8);
    let (mut sizes, mut data) = sizes.split_at_checked(table_bytes).unwrap_or_default();
    std::iter::from_fn(move || {
        let (name_size, rest) = split_u32(sizes)?;
        let (value_size, rest) = split_u32(rest)?;
        sizes = rest;
        let (name, rest) = split_terminated(data, name_size)?;
        let (value, rest) = split_terminated(rest, value_size)?;
        data = rest;
        Some((name, value))
    })
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(number, rest)| (u32::from_le_bytes(*number), rest))
}

fn split_terminated(bytes: &[u8], size: u32) -> Option<(&[u8], &[u8])> {
    let (text, rest) = bytes.split_at_checked(usize::try_from(size).ok()?)?;
    rest.split_first().map(|(_, rest)| (text, rest))
}
