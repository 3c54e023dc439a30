//! The script of one exchange: each step is an event at Envoy's filter, its answer the guest's action.

use std::cell::{Ref, RefMut};

use super::events::Direction;
use super::headers::HeaderMap;
use super::state::{LocalReply, StreamState};
use super::vm::{Action, Dead, Vm};

/// An exchange going through a VM. Several can be under way in one VM, their steps mixed.
#[derive(Clone)]
pub struct HttpStream {
    pub(super) vm: Vm,
    pub(super) id: u32,
}

impl HttpStream {
    /// The id of the stream's context.
    pub fn context_id(&self) -> u32 {
        self.id
    }

    /// Sets a property of the stream from now on; numbers are 8 bytes, little end first.
    pub fn set_property(&self, path: &[&str], value: impl AsRef<[u8]>) {
        self.state_mut().properties.insert(path.join("\0").into_bytes(), value.as_ref().to_vec());
    }

    pub fn request_headers<V: AsRef<[u8]>>(&self, headers: &[(&str, V)], end: bool) -> Result<Action, Dead> {
        self.vm.0.borrow_mut().on_headers(self.id, Direction::Request, HeaderMap::new(headers), end)
    }

    pub fn request_body(&self, chunk: impl AsRef<[u8]>, end: bool) -> Result<Action, Dead> {
        self.vm.0.borrow_mut().on_body(self.id, Direction::Request, chunk.as_ref(), end)
    }

    pub fn request_trailers<V: AsRef<[u8]>>(&self, trailers: &[(&str, V)]) -> Result<Action, Dead> {
        self.vm.0.borrow_mut().on_trailers(self.id, Direction::Request, HeaderMap::new(trailers))
    }

    pub fn response_headers<V: AsRef<[u8]>>(&self, headers: &[(&str, V)], end: bool) -> Result<Action, Dead> {
        self.vm.0.borrow_mut().on_headers(self.id, Direction::Response, HeaderMap::new(headers), end)
    }

    pub fn response_body(&self, chunk: impl AsRef<[u8]>, end: bool) -> Result<Action, Dead> {
        self.vm.0.borrow_mut().on_body(self.id, Direction::Response, chunk.as_ref(), end)
    }

    pub fn response_trailers<V: AsRef<[u8]>>(&self, trailers: &[(&str, V)]) -> Result<Action, Dead> {
        self.vm.0.borrow_mut().on_trailers(self.id, Direction::Response, HeaderMap::new(trailers))
    }

    /// The log callback: once, at the end of every stream, also of one the guest has seen nothing of.
    pub fn log(&self) -> Result<(), Dead> {
        self.vm.0.borrow_mut().on_log(self.id)
    }

    /// The done callback, after the access log has been written.
    pub fn done(&self) -> Result<(), Dead> {
        self.vm.0.borrow_mut().on_done(self.id)
    }

    /// The delete callback; calls the stream still waits for are cancelled.
    pub fn delete(&self) -> Result<(), Dead> {
        self.vm.0.borrow_mut().on_delete(self.id)
    }

    /// Log, done and delete, as at the end of every stream, whatever ended it.
    pub fn finish(&self) -> Result<(), Dead> {
        self.log()?;
        self.done()?;
        self.delete()
    }

    /// Everything known of the exchange; it stays after the end of the stream and of the VM.
    pub fn state(&self) -> Ref<'_, StreamState> {
        Ref::map(self.vm.0.borrow(), |vm| &vm.store.data().streams[&self.id])
    }

    /// The same to change, for cases the steps don't cover: headers only the log callback will see, say.
    pub fn state_mut(&self) -> RefMut<'_, StreamState> {
        RefMut::map(self.vm.0.borrow_mut(), |vm| vm.stream_mut(self.id))
    }

    /// What the guest put into filter state under `key`, as text.
    pub fn filter_state(&self, key: &str) -> Option<String> {
        self.state().filter_state.get(key).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// The request headers the upstream got, or those held back so far.
    pub fn upstream_headers(&self) -> HeaderMap {
        let state = self.state();
        state.request.sent_headers.as_ref().unwrap_or(&state.request.headers).clone()
    }

    /// The response headers the client got, or those held back so far.
    pub fn client_headers(&self) -> HeaderMap {
        let state = self.state();
        state.response.sent_headers.as_ref().unwrap_or(&state.response.headers).clone()
    }

    /// The request body the upstream got so far.
    pub fn upstream_body(&self) -> Vec<u8> {
        self.state().request.body()
    }

    /// The response body the client got so far.
    pub fn client_body(&self) -> Vec<u8> {
        self.state().response.body()
    }

    /// The reply the guest sent itself.
    pub fn local_reply(&self) -> Option<LocalReply> {
        self.state().local_reply.clone()
    }
}
