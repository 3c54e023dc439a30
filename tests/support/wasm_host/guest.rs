//! The guest as a host call sees it: its arguments and its memory.

use wasmi::{Caller, Memory, TypedFunc, Val};

use super::state::{HostState, status};

/// How a host call ends when it does not succeed.
#[derive(Debug)]
pub enum Fail {
    /// With a status other than OK.
    Status(u32),
    /// With a trap that kills the VM.
    Trap(wasmi::Error),
}

impl From<u32> for Fail {
    fn from(status: u32) -> Self {
        Self::Status(status)
    }
}

impl From<wasmi::Error> for Fail {
    fn from(error: wasmi::Error) -> Self {
        Self::Trap(error)
    }
}

pub type Outcome = Result<(), Fail>;

/// What the host uses of the guest's exports.
#[derive(Clone, Copy)]
pub struct GuestExports {
    pub memory: Memory,
    /// `proxy_on_memory_allocate`, else `malloc`.
    pub allocate: TypedFunc<i32, i32>,
}

/// A host call's arguments.
#[derive(Clone, Copy)]
pub struct Args<'a>(pub &'a [Val]);

impl Args<'_> {
    pub fn u32(self, at: usize) -> u32 {
        match self.0[at] {
            Val::I32(value) => value.cast_unsigned(),
            ref other => panic!("argument {at} is {other:?}, not an i32"),
        }
    }

    pub fn i64(self, at: usize) -> i64 {
        match self.0[at] {
            Val::I64(value) => value,
            ref other => panic!("argument {at} is {other:?}, not an i64"),
        }
    }
}

/// The guest that makes a host call.
pub struct Guest<'a> {
    pub caller: Caller<'a, HostState>,
    pub exports: GuestExports,
}

impl Guest<'_> {
    pub fn state(&mut self) -> &mut HostState {
        self.caller.data_mut()
    }

    /// The bytes that arguments `at` (pointer) and `at + 1` (length) name.
    pub fn bytes(&self, args: Args<'_>, at: usize) -> Result<Vec<u8>, Fail> {
        let (start, len) = (args.u32(at) as usize, args.u32(at + 1) as usize);
        let memory = self.exports.memory.data(&self.caller);
        let end = start.checked_add(len).ok_or(status::INVALID_MEMORY_ACCESS)?;
        Ok(memory.get(start..end).ok_or(status::INVALID_MEMORY_ACCESS)?.to_vec())
    }

    /// Like [`Self::bytes`], as text; what is not UTF-8 is replaced.
    pub fn text(&self, args: Args<'_>, at: usize) -> Result<String, Fail> {
        Ok(String::from_utf8_lossy(&self.bytes(args, at)?).into_owned())
    }

    pub fn write(&mut self, at: u32, bytes: &[u8]) -> Outcome {
        let memory = self.exports.memory;
        memory.write(&mut self.caller, at as usize, bytes).map_err(|_| Fail::Status(status::INVALID_MEMORY_ACCESS))
    }

    pub fn write_u32(&mut self, at: u32, value: u32) -> Outcome {
        self.write(at, &value.to_le_bytes())
    }

    pub fn write_u64(&mut self, at: u32, value: u64) -> Outcome {
        self.write(at, &value.to_le_bytes())
    }

    /// Hands bytes to the guest in memory it allocates. Empty ones are a null pointer and a zero, without allocating.
    pub fn give(&mut self, bytes: &[u8], pointer_at: u32, size_at: u32) -> Outcome {
        let mut pointer = 0;
        let size = u32::try_from(bytes.len()).map_err(|_| status::INVALID_MEMORY_ACCESS)?;
        if size > 0 {
            let allocate = self.exports.allocate;
            pointer = allocate.call(&mut self.caller, size.cast_signed())?.cast_unsigned();
            if pointer == 0 {
                return Err(Fail::Status(status::INVALID_MEMORY_ACCESS));
            }
            self.write(pointer, bytes)?;
        }
        self.write_u32(pointer_at, pointer)?;
        self.write_u32(size_at, size)
    }
}
