//! Buffers, and what a guest does to a stream as a whole.

use super::guest::{Args, Fail, Guest, Outcome};
use super::headers::HeaderMap;
use super::state::{Deferred, HostState, LocalReply, Side, status};

const REQUEST_BODY: u32 = 0;
const RESPONSE_BODY: u32 = 1;
const CALL_RESPONSE_BODY: u32 = 4;
const VM_CONFIGURATION: u32 = 6;
const PLUGIN_CONFIGURATION: u32 = 7;
const LAST_BUFFER: u32 = 8;

pub fn get_bytes(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let buffer = readable(guest.state(), args.u32(0))?;
    let (start, length) = (args.u32(1) as usize, args.u32(2) as usize);
    // A start behind the end reads nothing, as in an empty buffer.
    let start = start.min(buffer.len());
    let part = buffer[start..start.saturating_add(length).min(buffer.len())].to_vec();
    guest.give(&part, args.u32(3), args.u32(4))
}

/// The beginning of a buffer can be replaced, up to the whole of it, and bytes put behind it; nothing in its middle.
pub fn set_bytes(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let (start, length) = (args.u32(1) as usize, args.u32(2) as usize);
    let data = guest.bytes(args, 3)?;
    let buffer = writable(guest.state(), args.u32(0))?;
    if start == 0 {
        let replaced = length.min(buffer.len());
        buffer.splice(..replaced, data);
    } else if start >= buffer.len() {
        buffer.extend(data);
    } else {
        return Err(Fail::Status(status::BAD_ARGUMENT));
    }
    Ok(())
}

pub fn get_status(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let length = readable(guest.state(), args.u32(0))?.len();
    guest.write_u32(args.u32(1), u32::try_from(length).unwrap_or(u32::MAX))?;
    guest.write_u32(args.u32(2), 0)
}

/// A body out of its callbacks is empty, other buffers are then not found.
fn readable(state: &mut HostState, kind: u32) -> Result<&[u8], Fail> {
    let root = state.root();
    match kind {
        REQUEST_BODY => Ok(state.stream().map_or(&[], |stream| body(&stream.request))),
        RESPONSE_BODY => Ok(state.stream().map_or(&[], |stream| body(&stream.response))),
        CALL_RESPONSE_BODY => {
            let answer = state.answering.as_ref().filter(|answer| answer.root == root);
            Ok(&answer.ok_or(status::NOT_FOUND)?.body)
        }
        VM_CONFIGURATION => Ok(&state.vm_configuration),
        PLUGIN_CONFIGURATION => {
            let root = state.configuring.and_then(|root| state.roots.get(&root));
            Ok(&root.ok_or(status::NOT_FOUND)?.configuration)
        }
        _ if kind <= LAST_BUFFER => Ok(&[]),
        _ => Err(Fail::Status(status::BAD_ARGUMENT)),
    }
}

fn body(side: &Side) -> &[u8] {
    if side.body_open || side.buffering { &side.buffer } else { &[] }
}

fn writable(state: &mut HostState, kind: u32) -> Result<&mut Vec<u8>, Fail> {
    if (kind == CALL_RESPONSE_BODY && state.answering.is_none())
        || (kind == PLUGIN_CONFIGURATION && state.configuring.is_none())
    {
        return Err(Fail::Status(status::NOT_FOUND));
    }
    let stream = state.stream().ok_or(status::BAD_ARGUMENT)?;
    let side = match kind {
        REQUEST_BODY => &mut stream.request,
        RESPONSE_BODY => &mut stream.response,
        _ => return Err(Fail::Status(status::BAD_ARGUMENT)),
    };
    let open = side.body_open || side.buffering;
    if open { Ok(&mut side.buffer) } else { Err(Fail::Status(status::BAD_ARGUMENT)) }
}

/// Continues the request (0) or the response (1) after the callback; others it accepts and ignores. Either way the request's maps close at once.
pub fn continue_stream(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let kind = args.u32(0);
    match kind {
        0 | 1 => {}
        2 | 3 => return Ok(()),
        _ => return Err(Fail::Status(status::BAD_ARGUMENT)),
    }
    let state = guest.state();
    let context = state.context();
    if let Some(stream) = state.stream() {
        stream.request.headers_open = false;
        stream.request.body_open = false;
        stream.request.trailers_open = false;
        state.deferred.push_back(Deferred::Continue { stream: context, response: kind == 1 });
    }
    Ok(())
}

pub fn close_stream(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    match args.u32(0) {
        0 | 1 => {
            if let Some(stream) = guest.state().stream() {
                stream.reset = true;
            }
            Ok(())
        }
        2 | 3 => Ok(()),
        _ => Err(Fail::Status(status::BAD_ARGUMENT)),
    }
}

/// Takes effect after the callback. Outside a stream it is accepted and does nothing.
pub fn send_local_response(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let reply = LocalReply {
        status: args.u32(0),
        details: guest.text(args, 1)?.replace(char::is_whitespace, "_"),
        body: guest.bytes(args, 3)?,
        headers: HeaderMap::decode(&guest.bytes(args, 5)?),
        grpc_status: args.u32(7).cast_signed(),
    };
    let state = guest.state();
    let context = state.context();
    state.stop_iteration = true;
    if state.stream().is_some() {
        state.deferred.push_back(Deferred::LocalReply { stream: context, reply });
    }
    Ok(())
}
