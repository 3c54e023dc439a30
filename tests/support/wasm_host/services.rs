//! The host calls that don't touch an exchange: log, clock, properties, shared data, queues, metrics.

use super::guest::{Args, Fail, Guest, Outcome};
use super::shared::Consumer;
use super::state::{HostState, LogLine, MetricKind, StreamState, status};

pub fn log(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let level = args.u32(0);
    if level > 5 {
        return Err(Fail::Status(status::BAD_ARGUMENT));
    }
    let text = guest.text(args, 1)?;
    guest.state().logs.push(LogLine { level, text });
    Ok(())
}

pub fn get_log_level(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let level = guest.state().log_level;
    guest.write_u32(args.u32(0), level)
}

pub fn get_current_time(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let now = guest.state().process.clock.now_ns();
    guest.write_u64(args.u32(0), now)
}

/// The timer is the root's, also when a stream sets it.
pub fn set_tick_period(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let state = guest.state();
    let root = state.root();
    if let Some(root) = state.roots.get_mut(&root) {
        root.tick_period_ms = args.u32(0);
    }
    Ok(())
}

/// A property of the stream, else of the VM, else what `set_property` left.
pub fn get_property(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let path = property_path(&guest.bytes(args, 0)?);
    let state = guest.state();
    let own = match state.stream() {
        Some(stream) if !needs_request_headers(&path) || reaches_request_headers(stream) => {
            let set = || stream.filter_state.get(String::from_utf8_lossy(&path).as_ref()).cloned();
            stream.properties.get(&path).cloned().or_else(set)
        }
        Some(_) => return Err(Fail::Status(status::NOT_FOUND)),
        None => None,
    };
    let value = own.or_else(|| state.properties.get(&path).cloned()).ok_or(status::NOT_FOUND)?;
    guest.give(&value, args.u32(2), args.u32(3))
}

/// Envoy takes these from the headers themselves, so they are there only when the headers are.
fn needs_request_headers(path: &[u8]) -> bool {
    let mut parts = path.split(|byte| *byte == 0);
    let of_headers: [&[u8]; 10] =
        [b"path", b"url_path", b"query", b"host", b"scheme", b"method", b"headers", b"referer", b"useragent", b"id"];
    parts.next() == Some(b"request") && parts.next().is_some_and(|part| of_headers.contains(&part))
}

fn reaches_request_headers(stream: &StreamState) -> bool {
    stream.logging || stream.request.headers_open
}

pub fn set_property(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let path = String::from_utf8_lossy(&property_path(&guest.bytes(args, 0)?)).into_owned();
    let value = guest.bytes(args, 2)?;
    guest.state().stream().ok_or(status::NOT_FOUND)?.filter_state.insert(path, value);
    Ok(())
}

/// A path without the zero byte some guests end it with.
fn property_path(path: &[u8]) -> Vec<u8> {
    path.strip_suffix(&[0]).unwrap_or(path).to_vec()
}

pub fn get_shared_data(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let key = guest.bytes(args, 0)?;
    let (value, cas) = guest.state().process.shared.borrow().get(&key)?;
    guest.give(&value, args.u32(2), args.u32(3))?;
    guest.write_u32(args.u32(4), cas)
}

pub fn set_shared_data(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let (key, value) = (guest.bytes(args, 0)?, guest.bytes(args, 2)?);
    let value = (args.u32(2) != 0).then_some(value.as_slice());
    guest.state().process.shared.borrow_mut().set(&key, value, args.u32(4))?;
    Ok(())
}

pub fn register_shared_queue(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let name = guest.bytes(args, 0)?;
    let state = guest.state();
    let consumer = Consumer { vm: state.vm, root: state.root() };
    let token = state.process.shared.borrow_mut().register(&name, consumer);
    guest.write_u32(args.u32(2), token)
}

/// The VM id is not looked at: all VMs of a process share one here.
pub fn resolve_shared_queue(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let name = guest.bytes(args, 2)?;
    let token = guest.state().process.shared.borrow().resolve(&name)?;
    guest.write_u32(args.u32(4), token)
}

pub fn dequeue_shared_queue(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let item = guest.state().process.shared.borrow_mut().dequeue(args.u32(0))?;
    guest.give(&item, args.u32(1), args.u32(2))
}

pub fn enqueue_shared_queue(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let item = guest.bytes(args, 1)?;
    guest.state().process.shared.borrow_mut().enqueue(args.u32(0), item)?;
    Ok(())
}

/// Each definition is a new id, also of a name that is defined: a guest that defines per request leaks in Envoy.
pub fn define_metric(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let kind = match args.u32(0) {
        0 => MetricKind::Counter,
        1 => MetricKind::Gauge,
        2 => MetricKind::Histogram,
        _ => return Err(Fail::Status(status::BAD_ARGUMENT)),
    };
    let name = guest.text(args, 1)?;
    let state = guest.state();
    let mut stats = state.process.stats.borrow_mut();
    match kind {
        MetricKind::Counter => _ = stats.counters.entry(name.clone()).or_default(),
        MetricKind::Gauge => _ = stats.gauges.entry(name.clone()).or_default(),
        MetricKind::Histogram => _ = stats.histograms.entry(name.clone()).or_default(),
    }
    drop(stats);
    let id = (u32::try_from(state.metrics.len()).expect("a test has few metrics") + 1) * 4 + args.u32(0);
    state.metrics.insert(id, (kind, name));
    guest.write_u32(args.u32(3), id)
}

pub fn get_metric(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let state = guest.state();
    let (kind, name) = metric(state, args)?;
    let stats = state.process.stats.borrow();
    let value = match kind {
        MetricKind::Counter => stats.counters[&name],
        MetricKind::Gauge => stats.gauges[&name],
        MetricKind::Histogram => return Err(Fail::Status(status::BAD_ARGUMENT)),
    };
    drop(stats);
    guest.write_u64(args.u32(1), value)
}

/// Adds to a counter, sets a gauge, records in a histogram.
pub fn record_metric(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let state = guest.state();
    // A histogram that isn't there is not found, unlike in the other two calls.
    let (kind, name) = metric(state, args).map_err(|_| status::NOT_FOUND)?;
    let value = args.i64(1).cast_unsigned();
    let stats = &mut *state.process.stats.borrow_mut();
    match kind {
        MetricKind::Counter => wrapping_add(stats.counters.entry(name).or_default(), value),
        MetricKind::Gauge => *stats.gauges.entry(name).or_default() = value,
        MetricKind::Histogram => stats.histograms.entry(name).or_default().push(value),
    }
    Ok(())
}

/// Counters take only positive offsets, histograms none.
pub fn increment_metric(guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    let offset = args.i64(1);
    let state = guest.state();
    let (kind, name) = metric(state, args)?;
    let stats = &mut *state.process.stats.borrow_mut();
    match kind {
        MetricKind::Counter if offset > 0 => {
            wrapping_add(stats.counters.entry(name).or_default(), offset.cast_unsigned());
        }
        MetricKind::Gauge => wrapping_add(stats.gauges.entry(name).or_default(), offset.cast_unsigned()),
        _ => return Err(Fail::Status(status::BAD_ARGUMENT)),
    }
    Ok(())
}

fn wrapping_add(value: &mut u64, offset: u64) {
    *value = value.wrapping_add(offset);
}

/// An unknown id is not found if its two low bits say counter or gauge, else a bad argument.
fn metric(state: &HostState, args: Args<'_>) -> Result<(MetricKind, String), Fail> {
    let id = args.u32(0);
    let missing = if id & 3 < 2 { status::NOT_FOUND } else { status::BAD_ARGUMENT };
    Ok(state.metrics.get(&id).cloned().ok_or(missing)?)
}
