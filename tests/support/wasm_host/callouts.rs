//! HTTP calls, foreign functions and the effective context.

use super::guest::{Args, Fail, Guest, Outcome};
use super::headers::HeaderMap;
use super::state::{CallState, Deferred, HttpCall, status};

/// Refused at once: an unknown cluster, a missing `:method`, `:path` or `:authority`, a negative timeout.
pub fn http_call(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let cluster = guest.text(args, 0)?;
    let mut headers = HeaderMap::decode(&guest.bytes(args, 2)?);
    let body = guest.bytes(args, 4)?;
    let trailers = HeaderMap::decode(&guest.bytes(args, 6)?);
    let timeout_ms = args.u32(8);
    guest.write_u32(args.u32(9), 0)?;

    let state = guest.state();
    let complete = [":method", ":path", ":authority"].iter().all(|name| headers.has(name));
    let known = state.process.clusters.borrow().contains(&cluster);
    if !known || !complete || timeout_ms.cast_signed() < 0 {
        return Err(Fail::Status(status::BAD_ARGUMENT));
    }
    if !body.is_empty() {
        headers.replace("content-length", body.len().to_string().as_bytes());
    }
    let token = u32::try_from(state.calls.len()).expect("a test makes few calls") + 1;
    let context = state.context();
    state.calls.push(HttpCall { token, context, cluster, headers, body, trailers, timeout_ms, state: CallState::Open });
    guest.write_u32(args.u32(9), token)
}

pub fn get_status(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let (code, message) = guest.state().last_status.clone();
    guest.write_u32(args.u32(0), code)?;
    guest.give(message.as_bytes(), args.u32(1), args.u32(2))
}

/// Lasts until the callback returns; 0 goes back to the callback's own context.
pub fn set_effective_context(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let id = args.u32(0);
    let state = guest.state();
    if id != 0 && !state.has_context(id) {
        return Err(Fail::Status(status::BAD_ARGUMENT));
    }
    state.effective = id;
    Ok(())
}

/// `declare_property` once for each name, `clear_route_cache`; others are not found.
pub fn call_foreign_function(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let name = guest.text(args, 0)?;
    let arguments = guest.bytes(args, 2)?;
    match name.as_str() {
        "declare_property" => {
            let property = declared_name(&arguments).ok_or(status::BAD_ARGUMENT)?;
            let state = guest.state();
            let root = state.root();
            let root = state.roots.get_mut(&root).ok_or(status::BAD_ARGUMENT)?;
            if !root.properties_declared.insert(property) {
                return Err(Fail::Status(status::BAD_ARGUMENT));
            }
        }
        "clear_route_cache" => {}
        _ => return Err(Fail::Status(status::NOT_FOUND)),
    }
    for result in [args.u32(4), args.u32(5)] {
        if result != 0 {
            guest.write_u32(result, 0)?;
        }
    }
    Ok(())
}

/// Field 1, a string, of the arguments' protobuf message. Its lengths and numbers all fit one byte in a test.
fn declared_name(message: &[u8]) -> Option<String> {
    let mut rest = message;
    while let [key, value, tail @ ..] = rest {
        rest = match key & 7 {
            0 => tail,
            2 => {
                let (bytes, tail) = tail.split_at_checked(usize::from(*value))?;
                if key >> 3 == 1 {
                    return String::from_utf8(bytes.to_vec()).ok();
                }
                tail
            }
            _ => return None,
        };
    }
    None
}

/// Ends a root context that answered `proxy_on_done` with false.
pub fn done(guest: &mut Guest<'_>) -> Outcome {
    let state = guest.state();
    let id = state.context();
    let root = state.roots.get_mut(&id).filter(|root| root.done_pending).ok_or(status::NOT_FOUND)?;
    root.done_pending = false;
    state.deferred.push_back(Deferred::DeleteRoot { root: id });
    Ok(())
}
