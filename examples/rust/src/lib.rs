// SPDX-License-Identifier: GPL-2.0-only

//! BPF maps by the bare system call: nothing but Rust's standard library.

use std::io::{Error, Result};
use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd};

/// A type of map, with the kernel's number (enum bpf_map_type).
#[derive(Clone, Copy)]
pub enum Type {
    Hash = 1,
    Array = 2,
}

const SYS_BPF: i64 = 321; // x86-64
const CREATE_MAP: i64 = 0;
const LOOKUP_ELEM: i64 = 1;
const UPDATE_ELEM: i64 = 2;

/// A map that this process has open.
pub struct Map(OwnedFd);

#[repr(C)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

#[repr(C)]
struct Element {
    fd: u32,
    key: u64,
    value: u64,
    flags: u64,
}

extern "C" {
    fn syscall(number: i64, ...) -> i64;
}

fn bpf<T>(command: i64, attr: &T) -> Result<i32> {
    let size = std::mem::size_of::<T>();
    // The kernel reads no more than size bytes of attr.
    match unsafe { syscall(SYS_BPF, command, attr as *const T, size) } {
        result if result < 0 => Err(Error::last_os_error()),
        result => Ok(result as i32),
    }
}

impl Map {
    /// Makes a map of 32-bit keys and values. Its error is the kernel's.
    pub fn new(kind: Type, max_entries: u32) -> Result<Map> {
        let attr = Create { kind: kind as u32, key_size: 4, value_size: 4, max_entries, flags: 0 };
        // A descriptor that was just made has no other owner.
        bpf(CREATE_MAP, &attr).map(|fd| Map(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Writes the value of a key.
    pub fn update(&self, key: u32, value: u32) -> Result<()> {
        self.element(UPDATE_ELEM, &key, &value as *const u32 as u64)
    }

    /// Reads the value of a key. Its error is ENOENT for a key that is not there.
    pub fn lookup(&self, key: u32) -> Result<u32> {
        let mut value = 0;
        self.element(LOOKUP_ELEM, &key, &mut value as *mut u32 as u64)?;
        Ok(value)
    }

    fn element(&self, command: i64, key: &u32, value: u64) -> Result<()> {
        let key = key as *const u32 as u64;
        let attr = Element { fd: self.0.as_raw_fd() as u32, key, value, flags: 0 };
        bpf(command, &attr).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOENT: i32 = 2;
    const E2BIG: i32 = 7;

    #[test]
    fn a_value_comes_back() {
        for kind in [Type::Hash, Type::Array] {
            let map = Map::new(kind, 4).unwrap();
            map.update(1, 42).unwrap();
            assert_eq!(map.lookup(1).unwrap(), 42);
        }
    }

    #[test]
    fn a_hash_has_no_key_at_first_and_an_array_has_all() {
        let absent = Map::new(Type::Hash, 4).unwrap().lookup(1).unwrap_err();
        assert_eq!(absent.raw_os_error(), Some(ENOENT));
        assert_eq!(Map::new(Type::Array, 4).unwrap().lookup(1).unwrap(), 0);
    }

    #[test]
    fn an_array_takes_no_key_beyond_its_end() {
        let refused = Map::new(Type::Array, 4).unwrap().update(4, 1).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(E2BIG));
    }
}
