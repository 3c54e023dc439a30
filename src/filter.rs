//! The proxy-wasm side: callbacks in, host calls out. Nothing here decides anything.
//!
//! Envoy runs one VM per worker thread, and one more on its main thread. A VM has one [`vm::Vm`], shared by all of
//! its contexts; a root context has a configuration and a delivery queue, and every stream keeps the ones it began
//! with. A configuration update makes a new root context in the same VM, while the old one drains.
//!
//! A trap is fatal for the worker's traffic, so: no host call goes through the SDK's getters, which panic on
//! statuses they do not expect (all are raw, in [`proxy_host`]); no value is unwrapped; every shared cell is borrowed
//! with `try_borrow`.

mod abi;
mod held;
mod http_context;
mod proxy_host;
mod root_context;
mod test_trap;
mod vm;

use proxy_wasm::traits::RootContext;

proxy_wasm::main! {{
    proxy_host::install_logger();
    proxy_wasm::set_root_context(|id| -> Box<dyn RootContext> { Box::new(root_context::Root::new(id)) });
}}
