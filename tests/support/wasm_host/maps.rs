//! Header maps: which the guest may read or change, and when.
//!
//! A map can be reached in its own callback and, if that callback paused, until a later one continues. In the log
//! callback all can be read, not changed. Elsewhere reading or
//! changing a value is a bad argument, while reading all pairs gives none.

use super::guest::{Args, Fail, Guest, Outcome};
use super::headers::HeaderMap;
use super::state::{HostState, Side, status};

const REQUEST_HEADERS: u32 = 0;
const REQUEST_TRAILERS: u32 = 1;
const RESPONSE_HEADERS: u32 = 2;
const RESPONSE_TRAILERS: u32 = 3;
const CALL_RESPONSE_HEADERS: u32 = 6;
const CALL_RESPONSE_TRAILERS: u32 = 7;

pub fn get_pairs(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let pairs = readable(guest.state(), kind(args)?).filter(|map| !map.is_empty());
    let bytes = pairs.map(HeaderMap::encode).unwrap_or_default();
    guest.give(&bytes, args.u32(1), args.u32(2))
}

pub fn set_pairs(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let pairs = HeaderMap::decode(&guest.bytes(args, 1)?);
    *writable(guest.state(), kind(args)?)? = pairs;
    Ok(())
}

pub fn get_size(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let size = writable(guest.state(), kind(args)?)?.byte_size();
    guest.write_u32(args.u32(1), u32::try_from(size).unwrap_or(u32::MAX))
}

pub fn get_value(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let name = guest.text(args, 1)?;
    let map = readable(guest.state(), kind(args)?).ok_or(status::BAD_ARGUMENT)?;
    let value = map.get(&name).ok_or(status::NOT_FOUND)?.to_vec();
    guest.give(&value, args.u32(3), args.u32(4))
}

pub fn remove_value(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let name = guest.text(args, 1)?;
    writable(guest.state(), kind(args)?)?.remove(&name);
    Ok(())
}

pub fn replace_value(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let (name, value) = (guest.text(args, 1)?, guest.bytes(args, 3)?);
    writable(guest.state(), kind(args)?)?.replace(&name, &value);
    Ok(())
}

pub fn add_value(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let (name, value) = (guest.text(args, 1)?, guest.bytes(args, 3)?);
    writable(guest.state(), kind(args)?)?.add(&name, &value);
    Ok(())
}

fn kind(args: Args<'_>) -> Result<u32, Fail> {
    let kind = args.u32(0);
    if kind > CALL_RESPONSE_TRAILERS { Err(Fail::Status(status::BAD_ARGUMENT)) } else { Ok(kind) }
}

fn readable(state: &mut HostState, kind: u32) -> Option<&HeaderMap> {
    if kind == CALL_RESPONSE_HEADERS || kind == CALL_RESPONSE_TRAILERS {
        let root = state.root();
        let answer = state.answering.as_ref().filter(|answer| answer.root == root)?;
        return if kind == CALL_RESPONSE_HEADERS { Some(&answer.headers) } else { answer.trailers.as_ref() };
    }
    let stream = state.stream()?;
    let (request, response) = (&stream.request, &stream.response);
    let (map, open) = match kind {
        REQUEST_HEADERS => (&request.headers, request.headers_open),
        REQUEST_TRAILERS => (&request.trailers, request.trailers_open),
        RESPONSE_HEADERS => (&response.headers, response.headers_open),
        RESPONSE_TRAILERS => (&response.trailers, response.trailers_open),
        _ => return None,
    };
    (stream.logging || open).then_some(map)
}

fn writable(state: &mut HostState, kind: u32) -> Result<&mut HeaderMap, Fail> {
    let stream = state.stream().ok_or(status::BAD_ARGUMENT)?;
    let (map, open) = match kind {
        REQUEST_HEADERS => (&mut stream.request.headers, stream.request.headers_open),
        RESPONSE_HEADERS => (&mut stream.response.headers, stream.response.headers_open),
        REQUEST_TRAILERS => trailers(&mut stream.request),
        RESPONSE_TRAILERS => trailers(&mut stream.response),
        _ => return Err(Fail::Status(status::BAD_ARGUMENT)),
    };
    if open { Ok(map) } else { Err(Fail::Status(status::BAD_ARGUMENT)) }
}

/// At the end of a body without trailers, changing them creates them.
fn trailers(side: &mut Side) -> (&mut HeaderMap, bool) {
    if side.body_open && side.end_seen && !side.has_trailers {
        side.has_trailers = true;
        side.trailers_open = true;
    }
    (&mut side.trailers, side.trailers_open)
}
