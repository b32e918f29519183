// SPDX-License-Identifier: GPL-2.0-only

// Package bpfmap makes BPF maps with the bare system call: nothing but Go's standard library.
package bpfmap

import (
	"syscall"
	"unsafe"
)

// Type is a type of map, with the kernel's number (enum bpf_map_type).
type Type uint32

const (
	Hash        Type = 1
	Array       Type = 2
	Ringbuf     Type = 27
	BloomFilter Type = 30
)

const (
	sysBPF     = 321 // x86-64
	createMap  = 0
	lookupElem = 1
	updateElem = 2
)

// Map is a map that this process has open.
type Map struct{ fd int }

// New makes a map. Its error is the kernel's: EINVAL for a type that it does not know.
func New(kind Type, keySize, valueSize, maxEntries uint32) (*Map, error) {
	attr := struct{ kind, keySize, valueSize, maxEntries, flags uint32 }{
		uint32(kind), keySize, valueSize, maxEntries, 0,
	}
	fd, err := bpf(createMap, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return nil, err
	}
	return &Map{fd}, nil
}

// Update writes the value of a key.
func (m *Map) Update(key, value uint32) error { return m.element(updateElem, &key, &value) }

// Lookup reads the value of a key. Its error is ENOENT for a key that is not there.
func (m *Map) Lookup(key uint32) (value uint32, err error) {
	err = m.element(lookupElem, &key, &value)
	return value, err
}

// Close gives the map back.
func (m *Map) Close() error { return syscall.Close(m.fd) }

func (m *Map) element(command int, key, value *uint32) error {
	attr := struct {
		fd, _      uint32
		key, value *uint32
		flags      uint64
	}{fd: uint32(m.fd), key: key, value: value}
	_, err := bpf(command, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	result, _, errno := syscall.Syscall(sysBPF, uintptr(command), uintptr(attr), size)
	if errno != 0 {
		return -1, errno
	}
	return int(result), nil
}
