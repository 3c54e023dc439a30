//! What happens to an exchange, in Envoy's order and by Envoy's rules of holding and passing on.
//!
//! Followed here, because the filter lives by it: Continue shows each chunk once; Pause accumulates, so each callback
//! sees the whole body so far; a Continue after a Pause passes on all that was held; a Pause on headers stops every
//! callback unless the plugin allows otherwise; a local reply from the request path comes back through the guest's own
//! response callbacks, one from the response path does not.

use super::headers::HeaderMap;
use super::state::{CallState, Deferred, Hold, LocalReply, Side, StreamState};
use super::vm::{Action, Dead, VmInner, word};

/// A side of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Request,
    Response,
}

impl StreamState {
    pub(super) fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }
}

impl VmInner {
    pub fn stream_mut(&mut self, id: u32) -> &mut StreamState {
        self.store.data_mut().streams.get_mut(&id).expect("the stream was made by this VM")
    }

    pub fn on_headers(&mut self, id: u32, direction: Direction, map: HeaderMap, end: bool) -> Result<Action, Dead> {
        if direction == Direction::Request {
            self.create(id)?;
        }
        let stream = self.stream_mut(id);
        if !deliverable(stream, direction) || stream.side(direction).started {
            return Ok(Action::Withheld);
        }
        let root = stream.root;
        let count = word(map.len());
        let side = stream.side(direction);
        side.headers = map;
        (side.started, side.headers_open, side.end_seen) = (true, true, end);
        let name = match direction {
            Direction::Request => "proxy_on_request_headers",
            Direction::Response => "proxy_on_response_headers",
        };
        let (action, stopped) = self.ask(id, name, &[id, count, u32::from(end)])?;
        let allowed = self.store.data().roots.get(&root).is_some_and(|root| root.allow_on_headers_stop_iteration);
        let side = self.stream_mut(id).side(direction);
        if stopped || (action == Action::Pause && !allowed) {
            side.hold = Hold::All;
        } else if action == Action::Pause {
            side.hold = Hold::Single;
        } else {
            side.headers_open = false;
            side.release();
        }
        self.run_deferred()?;
        Ok(action)
    }

    pub fn on_body(&mut self, id: u32, direction: Direction, chunk: &[u8], end: bool) -> Result<Action, Dead> {
        self.alive()?;
        let stream = self.stream_mut(id);
        let side = stream.side(direction);
        if side.end_seen || side.pending_end || !side.started {
            return Ok(Action::Withheld);
        }
        if !deliverable(stream, direction) {
            return Ok(Action::Withheld);
        }
        let side = stream.side(direction);
        if side.hold == Hold::All {
            side.pending_body.extend(chunk);
            side.pending_end = end;
            return Ok(Action::Withheld);
        }
        side.buffer.extend(chunk);
        (side.body_open, side.end_seen) = (true, end);
        let size = word(side.buffer.len());
        let name = match direction {
            Direction::Request => "proxy_on_request_body",
            Direction::Response => "proxy_on_response_body",
        };
        let (action, stopped) = self.ask(id, name, &[id, size, u32::from(end)])?;
        let side = self.stream_mut(id).side(direction);
        if stopped {
            side.hold = Hold::All;
        } else if action == Action::Pause {
            side.hold = Hold::Single;
            side.buffering = true;
        } else {
            side.release();
        }
        self.run_deferred()?;
        Ok(action)
    }

    pub fn on_trailers(&mut self, id: u32, direction: Direction, map: HeaderMap) -> Result<Action, Dead> {
        self.alive()?;
        let stream = self.stream_mut(id);
        let side = stream.side(direction);
        if side.end_seen || side.pending_end || !side.started {
            return Ok(Action::Withheld);
        }
        if !deliverable(stream, direction) {
            return Ok(Action::Withheld);
        }
        let side = stream.side(direction);
        if side.hold == Hold::All {
            side.pending_trailers = Some(map);
            side.pending_end = true;
            return Ok(Action::Withheld);
        }
        let count = word(map.len());
        side.trailers = map;
        (side.has_trailers, side.trailers_open, side.end_seen) = (true, true, true);
        let name = match direction {
            Direction::Request => "proxy_on_request_trailers",
            Direction::Response => "proxy_on_response_trailers",
        };
        let (action, stopped) = self.ask(id, name, &[id, count])?;
        let side = self.stream_mut(id).side(direction);
        if stopped {
            side.hold = Hold::All;
        } else if action == Action::Pause {
            side.hold = Hold::Single;
        } else {
            side.trailers_open = false;
            side.release();
        }
        self.run_deferred()?;
        Ok(action)
    }

    /// The log callback, also for a stream no other callback has seen: an earlier filter answered it.
    pub fn on_log(&mut self, id: u32) -> Result<(), Dead> {
        self.create(id)?;
        let stream = self.stream_mut(id);
        (stream.closed, stream.logging) = (true, true);
        let result = self.callback(id, "proxy_on_log", &[id]);
        self.stream_mut(id).logging = false;
        result.map(|_| ())
    }

    pub fn on_done(&mut self, id: u32) -> Result<(), Dead> {
        self.alive()?;
        self.stream_mut(id).closed = true;
        if self.stream_mut(id).created {
            self.callback(id, "proxy_on_done", &[id])?;
        }
        Ok(())
    }

    pub fn on_delete(&mut self, id: u32) -> Result<(), Dead> {
        self.alive()?;
        if self.stream_mut(id).created {
            self.callback(id, "proxy_on_delete", &[id])?;
        }
        self.stream_mut(id).deleted = true;
        for call in &mut self.store.data_mut().calls {
            if call.context == id && call.state == CallState::Open {
                call.state = CallState::Cancelled;
            }
        }
        Ok(())
    }

    /// Does what the guest asked for in a callback, now that it has returned.
    pub fn run_deferred(&mut self) -> Result<(), Dead> {
        while let Some(deferred) = self.store.data_mut().deferred.pop_front() {
            match deferred {
                Deferred::Continue { stream, response: false } => self.resume(stream, Direction::Request)?,
                Deferred::Continue { stream, response: true } => self.resume(stream, Direction::Response)?,
                Deferred::LocalReply { stream, reply } => self.local_reply(stream, reply)?,
                Deferred::DeleteRoot { root } => self.delete_root(root)?,
            }
        }
        Ok(())
    }

    fn resume(&mut self, id: u32, direction: Direction) -> Result<(), Dead> {
        let stream = self.stream_mut(id);
        if !deliverable(stream, direction) {
            return Ok(());
        }
        let side = stream.side(direction);
        let hold = side.hold;
        if hold == Hold::None {
            return Ok(());
        }
        side.release();
        if hold == Hold::All {
            let body = std::mem::take(&mut side.pending_body);
            let trailers = side.pending_trailers.take();
            let end = std::mem::take(&mut side.pending_end) && trailers.is_none();
            if end || !body.is_empty() {
                self.on_body(id, direction, &body, end)?;
            }
            if let Some(trailers) = trailers {
                self.on_trailers(id, direction, trailers)?;
            }
        }
        Ok(())
    }

    fn local_reply(&mut self, id: u32, reply: LocalReply) -> Result<(), Dead> {
        let stream = self.stream_mut(id);
        if stream.closed || stream.reset {
            return Ok(());
        }
        if let Some(first) = &mut stream.local_reply {
            // A second reply is not sent, but its details are what the access log has.
            first.details = reply.details;
            return Ok(());
        }
        stream.local_reply = Some(reply.clone());
        let headers = reply_headers(&reply);
        if !stream.response.started {
            self.on_headers(id, Direction::Response, headers, reply.body.is_empty())?;
            if !reply.body.is_empty() {
                self.on_body(id, Direction::Response, &reply.body, true)?;
            }
        } else if stream.response.sent_headers.is_none() {
            let side = &mut stream.response;
            side.buffer = reply.body;
            side.headers = headers;
            (side.end_seen, side.has_trailers) = (true, false);
            side.release();
        } else {
            // The client has had the head of another response: the stream just ends.
            stream.reset = true;
        }
        Ok(())
    }

    fn create(&mut self, id: u32) -> Result<(), Dead> {
        self.alive()?;
        let stream = self.stream_mut(id);
        if stream.created || stream.deleted {
            return Ok(());
        }
        stream.created = true;
        let root = stream.root;
        self.callback(id, "proxy_on_context_create", &[id, root]).map(|_| ())
    }

    /// Calls a stream callback: its action, and whether a local reply overrules it.
    fn ask(&mut self, id: u32, name: &'static str, args: &[u32]) -> Result<(Action, bool), Dead> {
        let result = self.call(id, name, args)?;
        let stopped = std::mem::take(&mut self.store.data_mut().stop_iteration);
        let action = match result {
            None | Some(0) => Action::Continue,
            Some(1) => Action::Pause,
            Some(other) => panic!("{name} returned {other}, which is no action"),
        };
        Ok((action, stopped))
    }

    fn alive(&self) -> Result<(), Dead> {
        self.dead.clone().map_or(Ok(()), Err)
    }
}

fn deliverable(stream: &StreamState, direction: Direction) -> bool {
    let open = stream.created && !stream.deleted && !stream.closed && !stream.reset;
    open && (direction == Direction::Response || stream.local_reply.is_none())
}

/// The headers of a local reply, as Envoy completes them.
fn reply_headers(reply: &LocalReply) -> HeaderMap {
    let mut headers = HeaderMap::new(&[(":status", reply.status.to_string())]);
    headers.0.extend(reply.headers.0.iter().cloned());
    if !reply.body.is_empty() {
        headers.replace("content-length", reply.body.len().to_string().as_bytes());
        if !headers.has("content-type") {
            headers.add("content-type", b"text/plain");
        }
    }
    headers
}
