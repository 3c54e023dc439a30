//! Links a module's imports to the host calls.

use wasmi::{Caller, Error, ExternType, FuncType, Linker, Module, Val, ValType};

use super::guest::{Args, Fail, Guest, Outcome};
use super::hostcall::{Effect, HostCall};
use super::state::{HostState, status};
use super::{bodies, callouts, maps, services};

/// Links every import of a module. What this host does not offer is linked too, and traps when called, naming itself.
pub fn link(linker: &mut Linker<HostState>, module: &Module) {
    for import in module.imports() {
        let ExternType::Func(ty) = import.ty() else {
            panic!("the module imports {}.{}, which is not a function", import.module(), import.name());
        };
        let known = HostCall::by_name(import.name()).filter(|_| import.module() == "env");
        let linked = match known {
            Some(call) => {
                assert_eq!(*ty, signature(call), "the module imports {} with another signature", import.name());
                linker.func_new("env", import.name(), ty.clone(), move |caller, params, results| {
                    results[0] = Val::I32(answer(call, caller, params)?.cast_signed());
                    Ok(())
                })
            }
            None => {
                let message = format!("the guest called {}.{}, which Envoy lacks", import.module(), import.name());
                linker.func_new(import.module(), import.name(), ty.clone(), move |_, _, _| {
                    Err(Error::new(message.clone()))
                })
            }
        };
        linked.unwrap_or_else(|error| panic!("{}.{}: {error}", import.module(), import.name()));
    }
}

fn signature(call: HostCall) -> FuncType {
    let params = call.signature().chars().map(|c| if c == 'I' { ValType::I64 } else { ValType::I32 });
    FuncType::new(params.collect::<Vec<_>>(), [ValType::I32])
}

fn answer(call: HostCall, mut caller: Caller<'_, HostState>, params: &[Val]) -> Result<u32, Error> {
    match caller.data_mut().faults.strike(call) {
        Some(Effect::Status(status)) => return Ok(status),
        Some(Effect::Trap) => return Err(Error::new(format!("{} was told to trap", call.import_name()))),
        None => {}
    }
    let Some(exports) = caller.data().guest else {
        return Err(Error::new(format!("{} was called before the guest was instantiated", call.import_name())));
    };
    match perform(call, &mut Guest { caller, exports }, Args(params)) {
        Ok(()) => Ok(status::OK),
        Err(Fail::Status(status)) => Ok(status),
        Err(Fail::Trap(error)) => Err(error),
    }
}

fn perform(call: HostCall, guest: &mut Guest<'_>, args: Args<'_>) -> Outcome {
    match call {
        HostCall::Log => services::log(guest, args),
        HostCall::GetLogLevel => services::get_log_level(guest, args),
        HostCall::GetCurrentTime => services::get_current_time(guest, args),
        HostCall::SetTickPeriod => services::set_tick_period(guest, args),
        HostCall::GetProperty => services::get_property(guest, args),
        HostCall::SetProperty => services::set_property(guest, args),
        HostCall::GetSharedData => services::get_shared_data(guest, args),
        HostCall::SetSharedData => services::set_shared_data(guest, args),
        HostCall::RegisterSharedQueue => services::register_shared_queue(guest, args),
        HostCall::ResolveSharedQueue => services::resolve_shared_queue(guest, args),
        HostCall::DequeueSharedQueue => services::dequeue_shared_queue(guest, args),
        HostCall::EnqueueSharedQueue => services::enqueue_shared_queue(guest, args),
        HostCall::DefineMetric => services::define_metric(guest, args),
        HostCall::GetMetric => services::get_metric(guest, args),
        HostCall::RecordMetric => services::record_metric(guest, args),
        HostCall::IncrementMetric => services::increment_metric(guest, args),
        HostCall::GetBufferBytes => bodies::get_bytes(guest, args),
        HostCall::SetBufferBytes => bodies::set_bytes(guest, args),
        HostCall::GetBufferStatus => bodies::get_status(guest, args),
        HostCall::ContinueStream => bodies::continue_stream(guest, args),
        HostCall::CloseStream => bodies::close_stream(guest, args),
        HostCall::SendLocalResponse => bodies::send_local_response(guest, args),
        HostCall::GetHeaderMapPairs => maps::get_pairs(guest, args),
        HostCall::SetHeaderMapPairs => maps::set_pairs(guest, args),
        HostCall::GetHeaderMapSize => maps::get_size(guest, args),
        HostCall::GetHeaderMapValue => maps::get_value(guest, args),
        HostCall::RemoveHeaderMapValue => maps::remove_value(guest, args),
        HostCall::ReplaceHeaderMapValue => maps::replace_value(guest, args),
        HostCall::AddHeaderMapValue => maps::add_value(guest, args),
        HostCall::HttpCall => callouts::http_call(guest, args),
        // As Envoy answers for a cluster it does not know, and for a call or stream that is not there.
        HostCall::GrpcCall | HostCall::GrpcStream => Err(Fail::Status(status::PARSE_FAILURE)),
        HostCall::GrpcSend if args.u32(0) % 2 == 1 => Err(Fail::Status(status::BAD_ARGUMENT)),
        HostCall::GrpcSend | HostCall::GrpcCancel | HostCall::GrpcClose => Err(Fail::Status(status::NOT_FOUND)),
        HostCall::GetStatus => callouts::get_status(guest, args),
        HostCall::SetEffectiveContext => callouts::set_effective_context(guest, args),
        HostCall::CallForeignFunction => callouts::call_foreign_function(guest, args),
        HostCall::Done => callouts::done(guest),
    }
}
